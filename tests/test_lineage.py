"""What figures hang on."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from deliveries import deliver

from pipeline import config, evaluate, lineage, train
from pipeline.files import Project, sha256


@pytest.fixture(scope="module")
def _scored(_digits: Path, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages train and evaluate have run, with its run in MLflow."""
    root = tmp_path_factory.mktemp("scored") / "project"
    shutil.copytree(_digits, root)
    shutil.copy(migrated, root)
    project = Project(root, root)
    config.write_values(project.params, {"train.epochs": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("pipeline.tracking.handover.serve_in_background", lambda project, store: None)
        assert train.main([]) == evaluate.main([]) == 0
    deliver(root)
    return root


@pytest.fixture
def scored(_scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "project"
    shutil.copytree(_scored, root)
    monkeypatch.chdir(root)
    return Project(root, root)


def links(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert lineage.main([*arguments, "--json"]) == code
    return {link["name"]: link for link in json.loads(capsys.readouterr().out)}


def test_figures_and_their_run_hang_on_the_same(scored: Project, capsys: pytest.CaptureFixture[str]) -> None:
    of_files = links(capsys)
    of_run = links(capsys, "resnet8 on digits")
    assert list(of_files) == [*of_run, "figures"]
    for name in ("source", "arrays", "values", "seed", "weights"):
        assert of_files[name]["value"] == of_run[name]["value"], name
    assert of_files["split"]["value"] == "1,295 training, 143 validation, 359 test"
    assert of_run["split"]["value"] == "1,295 training, 143 validation"
    assert of_files["weights"]["value"] == f"sha256:{sha256(scored.model)}"
    assert "epochs = 1" in " ".join(of_files["values"]["more"])
    assert not any(link["problem"] for link in of_files.values())


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n1,2")


def _other_value(project: Project) -> None:
    config.write_values(project.params, {"train.batch_size": 32})


def _other_data(project: Project) -> None:
    meta = json.loads(project.meta.read_text())
    project.meta.write_text(json.dumps(meta | {"digest": "sha256:other"}))


@pytest.mark.parametrize(
    ("change", "name", "problem"),
    [
        (_other_value, "values", "params.yaml differs now in train.batch_size: `dvc repro`"),
        (_other_data, "arrays", "data/ holds sha256:other now"),
        (lambda project: project.meta.unlink(), "arrays", "meta.json is missing"),
        (lambda project: _append(project.model), "weights", "is another file now"),
        (lambda project: project.model.unlink(), "weights", "model.safetensors is missing"),
        (lambda project: _append(project.predictions), "predictions", "metrics.json says"),
        (lambda project: project.history.unlink(), "figures", "history.csv is missing or damaged"),
    ],
)
def test_a_link_that_no_longer_holds_is_named_with_what_to_do(
    scored: Project,
    change: Callable[[Project], None],
    name: str,
    problem: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(scored)
    found = links(capsys, "metrics.json", code=1)
    assert [link for link in found if found[link]["problem"]] == [name]
    assert problem in found[name]["problem"]
    assert lineage.main([]) == 1
    assert f"1 of {len(found)} links no longer hold here: {name}." in capsys.readouterr().err


def test_what_was_made_from_data_and_by_a_commit_is_listed(scored: Project, capsys: pytest.CaptureFixture[str]) -> None:
    digest = json.loads(scored.meta.read_text())["digest"]
    for start in (digest, digest[:16], digest.removeprefix("sha256:")[:7]):
        assert lineage.main(["--data", start]) == 0
        printed = capsys.readouterr().out
        assert "resnet8 on digits" in printed
        assert "finished" in printed
    assert lineage.main(["--commit", "1234567"]) == 1
    assert "Nothing in MLflow was made from that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "sha256:04"], "is too short, or no hash"),
        (["--commit", "' OR 1=1 --"], "is too short, or no hash"),
        (["nosuch"], "There is no run nosuch"),
    ],
)
@pytest.mark.usefixtures("scored")
def test_a_wrong_name_gets_a_sentence(
    arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lineage.main(arguments) == 1
    assert sentence in capsys.readouterr().err


def test_without_figures_the_next_step_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert lineage.main([]) == 1
    assert "metrics.json is missing: run `dvc repro`" in capsys.readouterr().err
