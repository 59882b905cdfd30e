import csv
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos import mlflow_ledger, optuna_ledger, phase_and_number, results_ledger
from places import QUICK_STUDY as QUICK

from pipeline import config, ensemble, study, tune
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.search.space.space import Space
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.session import Session, TuneOptions


def run(*arguments: str, folder: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.tune", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--trials", "0"], "must be a whole number of at least 1, got 0"),
        (["--trials", "many"], "must be a whole number of at least 1, got many"),
        (["--workers", "none"], "must be a whole number of at least 1, got none"),
        (["--hours", "-1"], "must be a number over 0, got -1"),
        (["--study", "a/b"], "must be up to 60 letters, digits, - and _, got a/b"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_sentence(
    arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        tune.main(arguments)
    assert exit.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "train.epoch=9"], "train.epoch is not a key; did you mean train.epochs?"),
        (["--set", "train.epochs"], "--set takes NAME=VALUE, such as train.epochs=9, got train.epochs"),
        (["--set", "tune.storage=postgresql://h/x"], "tune.storage can't be --set: write it into params.yaml"),
        (["--set", "train.epochs=[1"], "--set train.epochs is not a YAML value: [1"),
        (["--set", "train.epochs=0"], "train.epochs must be at least 1, got 0"),
        (["--set", "tune.scheduler=best"], "tune.scheduler must be freeze_thaw, asha or none, got"),
        (["--set", "space.model.depth=[8, 21]"], "model.depth must be 6n+2"),
        (["--set", "data.name=cifar10"], "data/ holds digits, but data.name is cifar10"),
        (["--resume-only"], "There is no study main to resume"),
        (["--delete", "--yes"], "There is no study main; there is none at all"),
        (["--explain"], "There is no study main; `python -m pipeline.tune --list` shows those that are there"),
    ],
)
def test_an_impossible_request_is_refused_with_a_sentence_and_nothing_is_begun(
    project: Project, arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune.main(arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not (project.home / ".studies").exists()
    assert not (project.home / "mlflow.db").exists()


def test_what_the_model_thinks_of_a_study_is_told(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config.load(project.params)
    space, epochs = Space.of(settings), settings.train.epochs
    with Ledger.open(project, "main") as ledger:
        ledger.note(space=space.described())
        for number, values in enumerate(space.spread(9, 0)):
            trial = ledger.enter(values, space.distributions, epochs if number < 3 else 1, seed=number)
            for epoch in range(1, trial.until + 1):
                ledger.score(trial, epoch, 0.5 + 0.04 * epoch + 0.01 * number)
            if number < 3:
                ledger.end(trial, Outcome.FINISHED, None)
            if number == 4:
                assert tune.main(["--explain"]) == 0
                assert "too few trials yet; the model needs 8" in capsys.readouterr().out
    assert tune.main(["--explain"]) == 0
    shown = capsys.readouterr().out
    assert "expected end" in shown and "±" in shown
    assert "What matters, by the model: " in shown and "20 more trials: " in shown
    assert tune.main(["--explain", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"expected", "importances", "unfinished", "gain"}
    assert tune.main(["--explain", "--set", "space.train.batch_size=[16, 64]"]) == 1
    assert "The study main has another space than params.yaml" in capsys.readouterr().err


def test_without_data_the_next_step_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project.data)
    assert tune.main([]) == 1
    assert "meta.json is missing: run `dvc repro`, or `python -m pipeline.download`" in capsys.readouterr().err


def test_values_are_set_as_yaml_reads_them(project: Project) -> None:
    words = ["--trials", "7", "--workers", "auto", "--set", "tune.scheduler=asha", "--set", "train.batch_size=16"]
    seen: dict[str, Any] = {}

    class Caught(Exception):
        pass

    def session(project: Project, settings: config.Config, options: TuneOptions, console: Any) -> Session:
        seen.update(settings=settings, options=options)
        raise Caught

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.search.studies.session.Session", session)
        with pytest.raises(Caught):
            tune.main(words)
    settings = seen["settings"]
    assert (settings.tune.trials, settings.tune.workers, settings.tune.scheduler) == (7, None, "asha")
    assert settings.train.batch_size == 16
    assert seen["options"].study == "main"


def test_there_is_no_study_to_list_before_the_first(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(["--list"]) == 0
    assert "There is no study yet" in capsys.readouterr().out
    assert tune.main(["--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    "command",
    [
        ["tune"],
        ["tune", "--list"],
        ["tune", "--delete", "--yes"],
        ["tune", "--resume-only"],
        ["study", "--list"],
        ["ensemble"],
    ],
)
def test_a_damaged_journal_is_an_error_with_file_line_and_remedy(
    project: Project, command: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger.open(project, "main") as ledger:
        ledger.note(key="abc")
        ledger.note(created="today")
    first, *others = project.optuna_journal.read_bytes().splitlines()
    project.optuna_journal.write_bytes(b"\n".join([first, b'{"op_code": 4, "wor', *others, b""]))
    main = {"tune": tune.main, "study": study.main, "ensemble": ensemble.main}[command[0]]
    assert main(command[1:]) == 1
    assert f"error: Line 2 of {project.optuna_journal} is damaged" in capsys.readouterr().err


def test_a_study_with_a_damaged_line_is_listed_and_can_be_deleted(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("main", "other"):
        with Ledger.open(project, name) as ledger:
            ledger.note(created="today")
    first, second, *others = project.optuna_journal.read_bytes().splitlines()
    project.optuna_journal.write_bytes(b"\n".join([first, second.replace(b"today", b"to\0"), *others, b""]))
    project.optuna_journal.write_bytes(project.optuna_journal.read_bytes().replace(b'"to\0"', b'"to\0'))
    assert tune.main([]) == 1
    assert "Line 2 of optuna.journal is damaged, which is of the study main" in capsys.readouterr().err
    assert tune.main(["--list"]) == 0
    assert "line 2 of optuna.journal is damaged" in capsys.readouterr().out
    assert tune.main(["--delete", "--yes"]) == 0
    assert tune.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "other" in listed
    assert "damaged" not in listed


@pytest.mark.slow
def test_a_study_leaves_the_same_in_optuna_in_mlflow_and_in_results(searched: Path) -> None:
    trials = optuna_ledger(searched, "main")
    rows = results_ledger(searched)
    runs = mlflow_ledger(searched)
    assert [trial["number"] for trial in trials] == list(range(5))
    assert len(rows) == 5
    for trial, row in zip(trials, rows, strict=True):
        child = runs[f"trial {trial['number']}"]
        assert {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}[trial["state"]] == child["status"]
        assert trial["ended"] == child["ended"] == row["state"]
        accuracy = dict(child["metrics"]["train.validation_accuracy"])
        assert accuracy == trial["intermediate"]
        assert float(row["validation_accuracy"]) == accuracy[max(accuracy)] == trial["value"]
        assert child["params"]["train.seed"] == row["seed"] == str(trial["seed"])
        assert "confusion_matrix.png" in child["artifacts"]
        assert child["models"] == (trial["state"] == "COMPLETE")
        for key, value in trial["params"].items():
            assert child["params"][key] == row[key] == str(value)
    again = [name for name in runs if name.startswith("confirm")]
    assert len(again) == len(optuna_ledger(searched, "main.confirmation")) <= 4
    parent = runs["study"]
    assert parent["status"] == "FINISHED"
    assert {"best.yaml", "study.json", "trials.csv", "optimisation_history.png", "parallel_coordinates.png"} <= set(
        parent["artifacts"]
    )
    best = [value for _, value in parent["metrics"]["best.validation_accuracy"]]
    assert best == sorted(best)
    assert len(best) == sum(trial["state"] == "COMPLETE" for trial in trials)


@pytest.mark.slow
def test_the_first_trial_has_the_values_of_params_yaml(searched: Path) -> None:
    own = config.load(searched / "params.yaml").values()
    first = optuna_ledger(searched, "main")[0]
    assert first["params"] == {name: own[name] for name in first["params"]}


@pytest.mark.slow
def test_the_winner_is_the_candidate_with_the_best_mean_over_new_seeds(searched: Path) -> None:
    study = json.loads((searched / "study.out").read_text())
    assert study == json.loads((searched / "results" / "tune" / "study.json").read_text())
    means = [candidate["mean"] for candidate in study["candidates"]]
    assert means == sorted(means, reverse=True)
    assert study["winner"] == study["candidates"][0]["trial"]
    again = optuna_ledger(searched, "main.confirmation")
    values = study["candidates"][0]["values"]
    own = [trial["value"] for trial in again if trial["params"] == values]
    assert study["candidates"][0]["mean"] == pytest.approx(sum(own) / len(own))
    seeds = {trial["seed"] for trial in again} | {trial["seed"] for trial in optuna_ledger(searched, "main")}
    assert len(seeds) == len(again) + 5
    best = config.read_yaml(searched / "results" / "tune" / "best.yaml")
    assert best["values"] == values


@pytest.mark.slow
def test_the_winners_model_is_in_the_registry_and_predicts_like_its_trial(
    searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import torch

    winner = json.loads((searched / "study.out").read_text())["winner"]
    # Not set_tracking_uri, which lasts as long as the process.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{searched / 'mlflow.db'}")
    loaded = mlflow.pytorch.load_model("models:/digits-main@best")
    from pipeline import networks
    from pipeline.batches.images import load_images
    from pipeline.records import load_meta

    meta = load_meta(searched / "data" / "meta.json")
    images = load_images(searched / "data" / "train", meta)
    trial = optuna_ledger(searched, "main")[winner]
    settings = config.load(searched / "params.yaml").with_values(trial["params"])
    network = networks.build(settings.model, meta, seed=0)
    networks.load(network, searched / ".studies" / "main" / "trials" / f"{winner:04}" / "model.safetensors")
    network.eval()
    pixels = torch.from_numpy(images.pixels[:8].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        assert torch.allclose(loaded(pixels), network(pixels), atol=1e-5)


@pytest.mark.slow
def test_the_same_command_again_does_nothing_and_says_so(searched: Path) -> None:
    before = optuna_ledger(searched, "main"), mlflow_ledger(searched)
    done = run("--trials", "5", *QUICK, folder=searched)
    assert "The study main is over: 5 of 5 trials are done" in done.stdout
    assert (optuna_ledger(searched, "main"), mlflow_ledger(searched)) == before


@pytest.mark.slow
def test_a_study_whose_run_was_deleted_in_mlflow_is_there_again_with_all_its_trials(
    searched: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    root = tmp_path / "project"
    shutil.copytree(searched, root)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (study_run,) = client.search_runs(["1"], "attributes.run_name = 'study main'")
    client.delete_run(study_run.info.run_id)
    before = mlflow_ledger(searched)
    run("--trials", "5", *QUICK, folder=root)
    assert {name: run["status"] for name, run in mlflow_ledger(root).items()} == {
        name: run["status"] for name, run in before.items()
    }
    (again,) = client.search_runs(["1"], "attributes.run_name = 'study main'")
    children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{again.info.run_id}'")
    assert {phase_and_number(child) for child in children} == set(before) - {"study"}


@pytest.mark.slow
def test_a_changed_space_or_value_is_not_mixed_in(searched: Path) -> None:
    done = run("--trials", "9", *QUICK, "--set", "space.train.batch_size=[16, 64]", folder=searched, code=1)
    assert "space train.batch_size: it was" in done.stderr
    done = run("--trials", "9", folder=searched, code=1)
    assert "values train.epochs: it was 3, it is 6" in done.stderr
    assert "`--study NAME` begins another beside it" in done.stderr
    assert len(optuna_ledger(searched, "main")) == 5


@pytest.mark.slow
def test_studies_are_listed_and_one_is_deleted(searched: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(searched, root)
    (listed,) = json.loads(run("--list", "--json", folder=root).stdout)
    assert (listed["study"], listed["trials"]) == ("main", 5)
    assert "main" in run("--list", folder=root).stdout
    refused = run("--delete", folder=root, code=1)
    assert "add --yes" in refused.stderr
    run("--delete", "--yes", folder=root)
    assert json.loads(run("--list", "--json", folder=root).stdout) == []
    assert not (root / ".studies" / "main").exists()


@pytest.mark.slow
def test_the_winner_is_written_into_params_yaml_and_more_trials_can_be_added(searched: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(searched, root)
    before = (root / "params.yaml").read_text()
    run("--trials", "5", *QUICK, "--apply", folder=root)
    after = (root / "params.yaml").read_text()
    best = config.read_yaml(root / "results" / "tune" / "best.yaml")["values"]
    applied = config.load(root / "params.yaml").values()
    assert {name: applied[name] for name in best} == best
    earlier, comments = ([line.partition("#")[2] for line in text.splitlines()] for text in (before, after))
    assert [comment for comment in comments if comment and comment in before] == list(filter(None, earlier))
    first = optuna_ledger(root, "main")
    done = run("--trials", "7", *QUICK, "--set", "tune.scheduler=asha", folder=root)
    assert "7 trials" in done.stdout
    trials = optuna_ledger(root, "main")
    assert len(trials) == 7
    assert trials[:5] == first
    assert len(results_ledger(root)) == 7
    statuses = {name: run["status"] for name, run in mlflow_ledger(root).items()}
    assert len(statuses) >= 7
    assert set(statuses.values()) <= {"FINISHED", "KILLED"}


@pytest.fixture
def started(project: Project, migrated: Path) -> Iterator[psutil.Popen]:
    """A search that is under way: its first epoch is over."""
    shutil.copy(migrated, project.home)
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "6", "--set", "train.epochs=200"]
    with (project.root / "log").open("w") as log:
        process = psutil.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 90
    while '"intermediate_value"' not in _journal(project):
        assert process.poll() is None, (project.root / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _journal(project: Project) -> str:
    return project.optuna_journal.read_text() if project.optuna_journal.exists() else ""


@pytest.mark.slow
def test_a_second_search_of_the_study_is_refused_and_another_study_works(
    project: Project, started: psutil.Popen
) -> None:
    refused = run("--trials", "6", "--set", "train.epochs=200", code=1)
    assert f"The study main is owned by process {started.pid} on " in refused.stderr
    run("--trials", "1", "--study", "other", "--workers", "1", "--set", "train.epochs=1", "--set", "tune.confirm=0")
    assert started.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_is_stopped_keeps_all_and_says_so(
    project: Project, started: psutil.Popen, number: signal.Signals
) -> None:
    children = started.children(recursive=True)
    os.killpg(started.pid, number)  # as a terminal does it: to all
    assert started.wait(60) == 130
    assert "the same command resumes the study" in (project.root / "log").read_text()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    trials = optuna_ledger(project.root, "main")
    assert trials
    assert {trial["state"] for trial in trials} == {"RUNNING"}
    runs = mlflow_ledger(project.root)
    assert runs["study"]["ended"] == "interrupted"
    assert all(run["ended"] in ("interrupted", "paused") for name, run in runs.items())
    assert len(results_ledger(project.root)) == len(trials)


@pytest.mark.slow
def test_a_terminal_that_is_gone_leaves_a_stopped_study_and_finished_trials(project: Project, migrated: Path) -> None:
    shutil.copy(migrated, project.home)
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "9", "--workers", "1", "--set", "train.epochs=8"]
    ours, theirs = os.openpty()

    def take_the_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = psutil.Popen(
        [*command, "--set", "tune.scheduler=none"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_the_terminal,
    )
    os.close(theirs)
    reader = threading.Thread(target=_drain, args=(ours, lambda: _journal(project).count('"ended"') >= 2))
    reader.start()
    reader.join(120)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # the shell's, beside the kernel's
    assert process.wait(60) == 130
    ended = {f"trial {trial['number']}": trial["ended"] for trial in optuna_ledger(project.root, "main")}
    assert list(ended.values()).count("finished") >= 2
    runs = mlflow_ledger(project.root)
    assert (runs["study"]["status"], runs["study"]["ended"]) == ("KILLED", "interrupted")
    for name, outcome in ended.items():
        assert runs[name]["status"] == ("FINISHED" if outcome == "finished" else "KILLED"), name
    run("--trials", "2", "--set", "train.epochs=8", "--set", "tune.scheduler=none", "--set", "tune.confirm=0")
    runs = mlflow_ledger(project.root)
    assert all(runs[name]["models"] == 1 for name, outcome in ended.items() if outcome == "finished")


def _drain(terminal: int, is_enough: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not is_enough() and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65_536)


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_owner_ends_the_search_and_it_resumes_later(
    project: Project, started: psutil.Popen
) -> None:
    # No file may grow beyond that size, which a program can't tell from a full disk.
    limit = project.optuna_journal.stat().st_size
    resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    # Its output goes to a file under the same limit, and may be cut off.
    assert started.wait(90) == 1
    before = optuna_ledger(project.root, "main")
    run("--trials", "6", "--set", "train.epochs=200", "--hours", "0.004")
    after = optuna_ledger(project.root, "main")
    assert len(after) >= len(before)
    for old, new in zip(before, after, strict=False):
        assert old["params"] == new["params"]
        assert old["intermediate"].items() <= new["intermediate"].items()


def test_a_folder_that_cannot_be_written_is_an_error_with_a_sentence(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / ".studies").write_text("a file where the folder should be")
    assert tune.main([]) == 1
    assert ".studies" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_of_which_no_trial_can_be_trained_is_an_error(project: Project, migrated: Path) -> None:
    shutil.copy(migrated, project.home)
    searched = ["--set", "model.family=vgg11", "--set", "space.model.family=[vgg11]"]
    for sentence in ("model.family vgg11 halves images", "The study main is over"):  # the second start trains nothing
        done = run("--trials", "1", *searched, code=1)
        assert sentence in done.stdout
        assert "No trial was trained to the end: results/tune/trials.csv says why." in done.stderr
        with project.trials.open(newline="") as file:
            assert [row["state"] for row in csv.DictReader(file)] == ["impossible"]


@pytest.mark.slow
def test_a_search_whose_fixed_values_can_not_work_stops_at_once_with_the_sentence(
    project: Project, migrated: Path
) -> None:
    shutil.copy(migrated, project.home)
    for _ in range(2):
        done = run("--trials", "9", "--workers", "1", "--set", "model.family=vgg11", code=1)
        assert "error: model.family vgg11 halves images" in done.stderr
        assert "crashed" not in done.stdout + done.stderr
        assert len(optuna_ledger(project.root, "main")) == 1
        assert {run["ended"] for run in mlflow_ledger(project.root).values()} == {"interrupted"}


@pytest.mark.slow
def test_after_the_hours_the_search_stops_in_order(project: Project, migrated: Path) -> None:
    shutil.copy(migrated, project.home)
    done = run("--trials", "6", "--hours", "0.003", "--set", "train.epochs=2000")
    assert "0.003 hours are over; all is kept" in done.stdout
    with project.trials.open(newline="") as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert states
    assert set(states) <= {"running", "paused"}
