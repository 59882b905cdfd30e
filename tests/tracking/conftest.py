"""A project with an MLflow database, and a server that is away."""

import shutil
from pathlib import Path

import pytest
from servers import SECRET, free_port

from pipeline.files import Project
from pipeline.tracking.store import Store


@pytest.fixture
def project(tmp_path: Path, migrated: Path) -> Project:
    home = tmp_path / "a project with 100 % ünusual näme"
    home.mkdir()
    shutil.copy(migrated, home)
    return Project(home, home)


@pytest.fixture
def away(project: Project, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A server that does not answer: nobody listens at its port."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{SECRET}@127.0.0.1:{free_port()}")
    return Store.of(project)
