"""The commands that use the data warn when its source has changed since the download."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline import records, study, train, tune
from pipeline.datasets.address import Address
from pipeline.datasets.fingerprint import fingerprint
from pipeline.files import Project
from pipeline.records import load_meta

SENTENCE = "source has changed since it was read, and data/ holds what it was before. Run `dvc repro -f download`"


@pytest.fixture
def changed(project: Project) -> Project:
    """A project whose data comes from a folder that has changed."""
    source = project.root / "source"
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(source / name / "0.png")
    meta = load_meta(project.meta)
    found = fingerprint(Address.parse("source"), project)
    records.write(dataclasses.replace(meta, source="source", fingerprint=found), project.meta)
    Image.new("L", (8, 8)).save(source / "cat" / "1.png")
    return project


def test_train_warns(
    changed: Project, change: Callable[[str, str], None], migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(migrated, changed.home)
    change("epochs: 6", "epochs: 1")
    train.train(changed)
    assert f"warning: {SENTENCE}" in capsys.readouterr().err
    assert json.loads(changed.run.read_text())["data"]["duplicates"]["leaked"] == 0
    (changed.root / "source" / "cat" / "1.png").unlink()
    train.train(changed)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [tune.main, study.main])
def test_a_search_and_a_grid_warn(
    changed: Project,
    command: Callable[[list[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipeline.search.studies.session import Session

    monkeypatch.setattr(Session, "run", lambda self: {})
    command(["depth"] if command is study.main else [])
    assert f"warning: {SENTENCE}" in capsys.readouterr().err
