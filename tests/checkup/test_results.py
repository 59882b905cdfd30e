import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from hashlib import md5
from pathlib import Path

import pytest

from pipeline import config
from pipeline.checkup import data, results
from pipeline.files import Project
from pipeline.findings import Finding, Looked, Weight
from pipeline.records import EvaluateFigures, Metrics, TrainFigures, write
from pipeline.train import train


def findings(report: Iterable[Finding | Looked]) -> list[Finding]:
    return [one for one in report if isinstance(one, Finding)]


def only(report: Iterable[Finding | Looked]) -> Finding:
    (finding,) = findings(report)
    return finding


@pytest.fixture
def locked(project: Project) -> Project:
    """A project with a dvc.lock of two files, in the workspace and in DVC's cache, and of one that git keeps."""
    outs = []
    for name in ("results/train/model.safetensors", "results/train/history.csv"):
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        digest = md5(name.encode(), usedforsecurity=False).hexdigest()
        outs.append({"path": name, "hash": "md5", "md5": digest, "size": len(name)})
    keep(project, project.model)
    lock = {"schema": "2.0", "stages": {"train": {"cmd": "x", "outs": outs}}}
    project.dvc_lock.write_text(config.yaml_text(lock))
    return project


def keep(project: Project, path: Path) -> Path:
    """Puts a file into DVC's cache."""
    digest = md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    kept = project.home / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(path.read_bytes())
    return kept


def test_outputs_that_dvc_has_are_no_finding(locked: Project) -> None:
    assert not findings(results.outputs(locked))
    locked.dvc_lock.unlink()
    assert not list(results.outputs(locked))


def test_a_missing_output_is_named_with_what_brings_it_back(locked: Project) -> None:
    kept = keep(locked, locked.model)
    locked.model.unlink()
    assert only(results.outputs(locked)).remedy == "dvc checkout"
    kept.unlink()
    assert (only(results.outputs(locked)).weight, only(results.outputs(locked)).remedy) == (Weight.ERROR, "dvc repro")
    with (locked.home / ".dvc" / "config").open("a") as file:
        file.write("['remote \"team\"']\n    url = /mnt/team\n")
    assert only(results.outputs(locked)).remedy == "dvc pull"


def test_a_file_that_git_keeps_is_looked_for_there(locked: Project) -> None:
    locked.history.unlink()
    assert only(results.outputs(locked)).remedy == "git checkout -- results/train/history.csv, or dvc repro"


def test_a_changed_output_and_one_that_the_cache_lacks_are_named(locked: Project) -> None:
    locked.model.write_text("another")
    assert only(results.outputs(locked)).what == "1 output is not what dvc.lock says: results/train/model.safetensors"
    locked.model.write_text("results/train/model.safetensors")
    keep(locked, locked.model).unlink()
    assert only(results.outputs(locked)).remedy == "dvc commit --force"


def test_the_cache_may_lie_elsewhere(locked: Project, tmp_path: Path) -> None:
    (locked.home / ".dvc" / "cache").rename(tmp_path / "shared")
    assert findings(results.outputs(locked))
    (locked.home / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    assert not findings(results.outputs(locked))


def test_a_damaged_lock_is_named(locked: Project) -> None:
    locked.dvc_lock.write_text("stages: [")
    assert only(results.outputs(locked)).remedy == "git checkout -- dvc.lock"


def test_a_model_its_record_and_the_data_belong_together(
    project: Project, change: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change("epochs: 6", "epochs: 1")
    assert not list(results.trained(project))
    train(project)
    assert not findings(results.trained(project))
    history = [float(line.split(",")[5]) for line in project.history.read_text().splitlines()[1:]]
    for accuracy, count in ((history[-1], 0), (0.25, 1)):
        figures = TrainFigures(1, 0.5, 0.5, 0.5, accuracy, 100.0)
        scores = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "nll", "ece"), 0.5)
        scored = EvaluateFigures(**scores, parameters=1, macs=1, images_per_second=1.0)
        write(Metrics(figures, scored), project.metrics)
        assert len(findings(results.trained(project))) == count
    assert only(results.trained(project)).remedy == "dvc repro -f evaluate"
    project.metrics.unlink()
    monkeypatch.setattr("pipeline.tracking.health.recorded_keys", lambda project: {})
    assert not findings(results.trained(project)), "its records wait in the outbox"
    shutil.rmtree(project.outbox)
    assert only(results.trained(project)).what == "MLflow has no run of the model in results/train"
    monkeypatch.setattr("pipeline.tracking.health.recorded_keys", lambda project: None)
    run = project.run.read_text()
    project.run.write_text(run.replace("sha256:", "sha256:0"))
    assert "the model was trained on other data (sha256:0" in only(results.trained(project)).what
    project.run.write_text(run[:100])
    damaged = only(results.trained(project))
    assert "run.json is damaged (Invalid JSON: EOF" in damaged.what
    assert damaged.remedy == "run `dvc repro`, which writes it again"
    project.run.unlink()
    assert only(results.trained(project)).what == "of the trained model run.json is missing"


def test_invalid_values_missing_data_and_a_changed_source_are_named(
    project: Project, change: Callable[[str, str], None]
) -> None:
    assert not findings([*data.params(project), *data.data(project)])
    source = project.root / "images"
    source.mkdir()
    meta = json.loads(project.meta.read_text()) | {"source": "images", "fingerprint": "0"}
    project.meta.write_text(json.dumps(meta))
    assert only(data.data(project)).what.startswith("images has changed since it was read")
    project.meta.unlink()
    assert only(data.data(project)).remedy == "run `dvc repro`, or `python -m pipeline.download`"
    subprocess.run(["rm", "-r", project.data], check=True)
    assert not list(data.data(project))
    project.params.write_text("train: {epochs: 0}")
    assert "train.epochs must be at least 1, got 0" in only(data.params(project)).what
