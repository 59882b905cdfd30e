"""Trainings that MLflow has on record, made again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from chaos import disturbed, mlflow_ledger
from deliveries import deliver

from pipeline import config, reproduce, train
from pipeline.audit.reproduction import Request, reproduced
from pipeline.files import Project

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def _trained(_digits: Path, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(_digits, root)
    shutil.copy(migrated, root)
    config.write_values(Project(root, root).params, {"train.threads": 1, "train.epochs": 2})
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("pipeline.tracking.handover.serve_in_background", lambda project, store: None)
        assert train.main([]) == 0
    torch.set_num_threads(threads)
    deliver(root)
    return root


@pytest.fixture
def trained(_trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose stage train has run, on one thread, with its run in MLflow."""
    root = tmp_path / "project"
    shutil.copytree(_trained, root)
    monkeypatch.chdir(root)
    return Project(root, root)


def again(root: Path, **request: Any) -> dict[str, Any]:
    asked = {"run": None, "study": None, "trial": None, "tolerance": 0.02} | request
    return reproduced(Project(root, root), Request(**asked), lambda about: None)


def client(project: Project) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")


def test_the_last_training_is_the_same_to_the_bit(trained: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in trained.root.rglob("*") if "mlflow.db" not in path.name)
    assert reproduce.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["epochs"], found["differences"]) == ("identical", 2, [])
    assert found["lacking"] == []
    assert sorted(path for path in trained.root.rglob("*") if "mlflow.db" not in path.name) == before


def test_a_figure_that_is_not_what_comes_out_is_found(trained: Project, capsys: pytest.CaptureFixture[str]) -> None:
    store = client(trained)
    (run,) = store.search_runs(["1"])
    loss = store.get_metric_history(run.info.run_id, "train.training_loss")[1].value
    store.log_metric(run.info.run_id, "train.training_loss", loss * 1.001, step=2)
    assert reproduce.main([]) == 0
    assert "Within the tolerance of 0.02: the largest difference is 0.001 (training_loss of epoch 2), the first" in (
        capsys.readouterr().out
    )
    assert reproduce.main([run.info.run_id, "--tolerance", "0.0001"]) == 1
    assert "Not reproduced: epoch 2 of 2 is the first that differs" in capsys.readouterr().err


def test_a_run_of_another_place_and_of_an_older_version_says_what_differs_and_what_it_lacks(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    store = client(trained)
    (run,) = store.search_runs(["1"])
    for tag in ("code.train", "device.threads"):
        store.delete_tag(run.info.run_id, tag)
    store.set_tag(run.info.run_id, "version.torch", "2.9.0")
    store.set_tag(run.info.run_id, "data.digest", "sha256:other")
    assert reproduce.main([run.info.run_name]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "will change results version.torch 2.9.0" in printed, "the gravest first"
    assert "may change digits" in printed
    assert "Not on record: device.threads, so the number of threads can't be compared" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["nosuch"],
            "There is no run nosuch in mlflow.db, experiment pipeline. The last ones are:\n  resnet8 on digits",
        ),
        (["--trial", "3"], "There is no trial 3 of a study main in mlflow.db"),
        (["--code"], "was made outside a git repository: there is no commit to go back to"),
    ],
)
def test_what_can_not_be_made_again_is_said_in_a_sentence(
    trained: Project, arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(arguments) == 1
    assert sentence in capsys.readouterr().err


def test_a_training_that_diverged_has_to_diverge_again_in_the_same_epoch(
    project: Project, migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(migrated, project.home)
    values = {"train.learning_rate": 100.0, "train.weight_decay": 1.0, "train.schedule": "constant", "train.threads": 1}
    project.params.write_text(project.params.read_text().split("space:")[0])  # which has no such rate
    config.write_values(project.params, values)
    assert train.main([]) == 1
    deliver(project.home)
    (run,) = client(project).search_runs(["1"])
    assert run.data.tags["ended"] == "diverged"
    assert reproduce.main([run.info.run_id]) == 0
    assert "It diverged again in the epoch after that." in capsys.readouterr().out
    client(project).set_tag(run.info.run_id, "ended", "finished")
    assert reproduce.main([run.info.run_id]) == 1


def test_without_a_store_the_next_step_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["--trial", "1"]) == 1
    assert "There are no runs: " in capsys.readouterr().err
    assert not (project.home / "mlflow.db").exists()


@pytest.mark.slow
def test_the_code_of_the_recorded_commit_is_trained_in_a_worktree_of_its_own(
    project: Project, migrated: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    shutil.copy(migrated, project.home)
    monkeypatch.setattr(sys, "path", [str(project.root), *sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    code = project.root / "nets.py"
    network = (
        "from torch import nn\ndef build(model, meta, width: int = 8):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))\n"
    )
    code.write_text(network)
    params = project.params.read_text()
    project.params.write_text(params.replace("family: resnet", 'family: "nets:build"'))
    for line in ("train.epochs=2", "train.threads=1", "model.extra.width=12"):
        name, _, value = line.partition("=")
        config.write_values(project.params, {name: int(value)})
    git("init", "--quiet")
    git("add", "-A")
    git("commit", "-m", "a network of 12")
    assert subprocess.run([sys.executable, "-m", "pipeline.train"], check=False).returncode == 0
    deliver(project.home)
    code.write_text(network.replace("nn.ReLU", "nn.Tanh"))
    capfd.readouterr()
    assert reproduce.main(["--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert [each["name"] for each in found["differences"]] == ["code.nets:build"]
    assert found["first_different_epoch"] == 1
    assert reproduce.main(["--json", "--code"]) == 0
    assert json.loads(capfd.readouterr().out)["verdict"] == "identical"
    listed = subprocess.run(["git", "worktree", "list"], check=True, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


@pytest.mark.slow
def test_every_trial_of_a_search_by_two_workers_is_the_same_to_the_bit(searched: Path) -> None:
    names = [name for name in mlflow_ledger(searched) if name.startswith(("trial", "confirm"))]
    assert len(names) >= 5 + 2
    for name in names:
        assert again(searched, run=name)["verdict"] == "identical", name


@pytest.mark.slow
def test_trials_that_were_killed_and_cross_validated_are_the_same_to_the_bit(_digits: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(_digits, root)
    values = ("train.folds=2", "train.epochs=4", "tune.confirm=0", "tune.retries=9", "tune.scheduler=asha")
    given = [word for value in values for word in ("--set", value)]
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "5", "--workers", "2", *given]
    disturbed(command, root, seed=3, kills=5)
    for number in range(5):
        assert again(root, study="main", trial=number)["verdict"] == "identical", number
