"""The doctor on a whole project: a copy, of which parts are deleted."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import pytest

from pipeline import doctor
from pipeline.files import Project


@pytest.fixture
def copied(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project in which a search is over. The original is still there."""
    root = tmp_path / "a cöpy"
    shutil.copytree(searched, root)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    monkeypatch.chdir(root)
    # Which versions are installed is no matter of the project.
    monkeypatch.setattr("pipeline.checkup.surroundings.constraints_of", lambda project: root / "no constraints")
    monkeypatch.setattr("pipeline.checkup.surroundings.nvidia_is_there", lambda: False)
    return root


def content(root: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(root)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in (root, *root.rglob("*"))
    }


def found(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, str]]]:
    capsys.readouterr()
    code = doctor.main(["--json", *options])
    findings: list[dict[str, str]] = json.loads(capsys.readouterr().out)["findings"]
    return code, findings


@pytest.mark.slow
def test_a_copied_project_is_examined_without_a_change_and_mended(
    copied: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(copied)
    code, findings = found(capsys)
    assert content(copied) == before
    assert code == 1
    assert [(one["weight"], one["where"]) for one in findings if one["weight"] != "note"] == [("error", "mlflow.db")]
    assert f"in {searched}/mlruns, where the project was" in findings[0]["what"]
    assert findings[0]["remedy"] == "python -m pipeline.doctor --fix"

    assert doctor.main(["--fix"]) == 0
    printed = capsys.readouterr().out
    assert f"fixed: mlflow.db names {copied}/mlruns in place of {searched}/mlruns" in printed
    assert len(list(copied.glob("mlflow.db.before-*"))) == 1
    client = mlflow.MlflowClient(f"sqlite:///{copied}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "pipeline"]
    runs = client.search_runs([experiment.experiment_id])
    for run in runs:
        assert str(searched) not in run.info.artifact_uri
        assert client.list_artifacts(run.info.run_id)
    version = client.get_model_version_by_alias(client.search_registered_models()[0].name, "best")
    assert Path(unquote(urlsplit(version.source).path)).is_relative_to(copied)
    models = client.search_logged_models([experiment.experiment_id])
    assert models
    assert all(client.list_logged_model_artifacts(model.model_id) for model in models)
    assert not [file for file in copied.rglob("MLmodel") if str(searched) in file.read_text()]

    assert doctor.main([]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("All is well: ")
    assert "images 1,797" in line

    before = content(copied)
    assert doctor.main(["--fix"]) == 0
    assert content(copied) == before, "there was nothing to mend"


@pytest.mark.slow
def test_what_was_deleted_is_named_with_a_remedy(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--fix", "--quick"]) == 0
    project = Project(copied, copied)
    shutil.rmtree(project.artifacts)
    shutil.rmtree(project.study_folder("main") / "trials")
    project.optuna_journal.write_bytes(project.optuna_journal.read_bytes() + b'{"op_code": 5, "tri')
    (project.test_data / "labels.npy").unlink()
    code, findings = found(capsys)
    assert code == 1
    whats = "\n".join(f"{one['weight']}: {one['what']}" for one in findings)
    assert "error: data/test/labels.npy is missing" in whats
    assert "error: the files of " in whats
    assert "warning: the study main has lost the weights of " in whats
    assert "note: the last 19 bytes of Optuna's journal are incomplete" in whats
    assert all(one["remedy"] for one in findings)


def test_there_must_be_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.main([]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} has no params.yaml: change to the folder of a project.\n"
