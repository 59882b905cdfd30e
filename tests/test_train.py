import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from deliveries import deliver

from pipeline import config, train
from pipeline.files import Project


@pytest.fixture
def short(project: Project, change: Callable[[str, str], None], migrated: Path) -> Project:
    """Trains on one thread, so that the numbers of two processes can be compared to the bit."""
    change("threads: null", "threads: 1")
    shutil.copy(migrated, project.home)
    return project


@pytest.fixture(scope="module")
def undisturbed(_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A training on one thread that was not interrupted."""
    root = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(_digits, root)
    project = Project(root, root)
    config.write_values(project.params, {"train.threads": 1})
    with start(project) as process:
        process.communicate(timeout=240)
    assert process.returncode == 0
    return project


def figures(project: Project) -> list[dict[str, str]]:
    """The rows of history.csv without the times, which differ."""
    with project.history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in ("images_per_second", "elapsed_s")} for row in rows]


def start(project: Project) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.train"],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def end_after_epoch(process: subprocess.Popen[str], epoch: int, number: signal.Signals) -> tuple[str, str]:
    """Sends a signal when the epoch's line appears; returns what was printed."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith(f"epoch {epoch:>3}/"):
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=60)
    return printed + out, err


def runs(project: Project) -> list[mlflow.entities.Run]:
    deliver(project.home)
    client = mlflow.MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments))


def test_the_stage_writes_the_model_the_history_and_what_it_was_made_from(
    short: Project, change: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    change("epochs: 6", "epochs: 3")
    train.train(short)
    record = json.loads(short.run.read_text())
    assert [row["epoch"] for row in figures(short)] == ["1", "2", "3"]
    assert float(figures(short)[-1]["validation_accuracy"]) > 0.6
    assert record["values"]["train.epochs"] == 3
    assert record["data"]["training"] + record["data"]["validation"] == record["data"]["counts"]["train"] == 1438
    assert record["device"]["threads"] == 1
    assert record["seconds_per_epoch"] == pytest.approx(record["elapsed_s"] / 3)
    assert short.model.stat().st_size > 4 * 4934  # bytes of its parameters in fp32
    out = capsys.readouterr().out
    assert out.count("\nepoch ") == 3
    assert "images/s" in out
    assert "ETA" in out


def test_the_run_in_mlflow_has_values_figures_of_each_epoch_tags_data_and_model(
    short: Project, change: Callable[[str, str], None]
) -> None:
    change("epochs: 6", "epochs: 2")
    train.train(short)
    (run,) = runs(short)
    client = mlflow.MlflowClient(f"sqlite:///{short.home / 'mlflow.db'}")
    assert run.info.status == "FINISHED"
    values = config.load(short.params).values()
    assert set(run.data.params) == {name for name in values if not config.decides_scoring(name)}
    assert run.data.params["train.epochs"] == "2"
    assert "erasing" not in short.params.read_text()
    assert run.data.params["augment.erasing"] == "0.0"  # a default that the file does not name
    history = client.get_metric_history(run.info.run_id, "train.validation_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [
        (int(row["epoch"]), pytest.approx(float(row["validation_accuracy"]))) for row in figures(short)
    ]
    for tag in ("ended", "seed", "data.digest", "device.type", "device.threads"):
        assert tag in run.data.tags
    assert run.data.tags["ended"] == "finished"
    assert run.data.tags["data.duplicates.leaked"] == "0"
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    assert len(client.get_run(run.info.run_id).outputs.model_outputs) == 1
    assert not any(short.checkpoints.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_training_resumes_and_ends_with_the_same_numbers(
    short: Project, undisturbed: Project, number: signal.Signals
) -> None:
    with start(short) as killed:
        _, err = end_after_epoch(killed, 3, number)
    assert killed.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert not short.model.exists()
    if number != signal.SIGKILL:
        assert "stopped: " in err
        assert "of 6 epochs are kept, `dvc repro` resumes there" in err
        assert "Traceback" not in err
        assert [run.info.status for run in runs(short)] == ["KILLED"]

    with start(short) as second:
        out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert "resuming after epoch" in out
    assert figures(short) == figures(undisturbed)
    assert short.model.read_bytes() == undisturbed.model.read_bytes()
    # The killed training resumed in its own run, which is complete.
    (run,) = runs(short)
    assert run.info.status == "FINISHED"
    client = mlflow.MlflowClient(f"sqlite:///{short.home / 'mlflow.db'}")
    history = client.get_metric_history(run.info.run_id, "train.training_loss")
    assert [metric.step for metric in history] == list(range(1, 7))


def test_a_training_of_other_values_does_not_resume_from_this_checkpoint(
    short: Project,
    change: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change("epochs: 6", "epochs: 2")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.networks.save", _fails)
        with pytest.raises(OSError, match="no space"):
            train.train(short)
    change("learning_rate: 0.1", "learning_rate: 0.05")
    train.train(short)
    assert "resuming" not in capsys.readouterr().out
    change("learning_rate: 0.05", "learning_rate: 0.1")
    train.train(short)
    assert "resuming after epoch 2 of 2" in capsys.readouterr().out


def _fails(*_: object) -> None:
    raise OSError("no space left")


@pytest.mark.slow
def test_the_run_of_a_killed_training_that_is_not_resumed_is_closed_by_the_next_one(
    short: Project, change: Callable[[str, str], None]
) -> None:
    with start(short) as killed:
        end_after_epoch(killed, 2, signal.SIGKILL)
    change("epochs: 6", "epochs: 1")
    train.train(short)
    assert sorted((run.info.status, run.data.tags["ended"]) for run in runs(short)) == [
        ("FINISHED", "finished"),
        ("KILLED", "interrupted"),
    ]


@pytest.mark.slow
def test_a_training_that_stops_early_says_so_and_keeps_the_epochs_that_it_has(
    short: Project, change: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    # At so small a rate the accuracy stands still.
    change("learning_rate: 0.1", "learning_rate: 1.0e-9")
    change("early_stopping: null", "early_stopping: 1")
    train.train(short)
    epochs = len(figures(short))
    assert 1 < epochs < 6
    assert f"ended after epoch {epochs} of 6 by train.early_stopping" in capsys.readouterr().out
    record = json.loads(short.run.read_text())
    assert record["seconds_per_epoch"] == pytest.approx(record["elapsed_s"] / epochs)
    assert record["folds"] is None
    assert not any(short.checkpoints.iterdir())


def test_a_diverged_training_is_reported_and_named_in_mlflow(
    short: Project, change: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    change("learning_rate: 0.1", "learning_rate: 100.0")
    change("weight_decay: 0.0005", "weight_decay: 1.0")
    change("schedule: one_cycle", "schedule: constant")
    change("epochs: 6", "epochs: 50")
    assert train.main([]) == 1
    assert "error: The training diverged" in capsys.readouterr().err
    (run,) = runs(short)
    assert (run.info.status, run.data.tags["ended"]) == ("FAILED", "diverged")
    assert not short.model.exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epochs: 6", "epochs: 0", "train.epochs must be at least 1, got 0"),
        ("device: auto", "device: cuda:9", "train.device is cuda:9, but PyTorch finds"),
    ],
)
def test_bad_values_end_with_one_sentence_before_anything_is_written(
    short: Project,
    migrated: Path,
    change: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    sentence: str,
) -> None:
    change(old, new)
    assert train.main([]) == 1
    assert sentence in capsys.readouterr().err
    assert not (short.root / "results").exists()
    assert (short.home / "mlflow.db").read_bytes() == migrated.read_bytes()


def test_missing_data_is_reported_with_the_command_that_makes_it(
    short: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    short.meta.unlink()
    assert train.main([]) == 1
    assert "meta.json is missing: run `dvc repro`" in capsys.readouterr().err
