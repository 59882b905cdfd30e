"""The SQLite database of a project."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_runs import client, files, only_run, runs

from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import Tracker


def test_the_local_store_has_its_own_experiment_although_mlflow_ui_created_the_database(project: Project) -> None:
    database = project.home / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    with Tracker(project) as tracker:
        tracker.open("a").log_bytes(b"hello", "hello.txt")
    assert files(client(project), only_run(project)) == ["hello.txt"]
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_local_store_uses_the_experiment_that_the_environment_names(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine/and yours")
    with Tracker(project) as tracker:
        tracker.open("a").log_bytes(b"hello", "hello.txt")
    (run,) = runs(client(project), "mine/and yours")
    assert files(client(project), run) == ["hello.txt"]
    id = run.info.experiment_id
    description = client(project).get_experiment(id).tags["mlflow.note.content"]
    assert f"#/experiments/{id}/runs?workflowType=machine_learning" in description


def test_the_local_store_finds_its_artifacts_after_the_project_was_moved(project: Project, tmp_path: Path) -> None:
    with Tracker(project) as tracker:
        tracker.open("a").log_bytes(b"hello", "hello.txt")
    moved = Project(tmp_path / "moved", tmp_path / "moved")
    shutil.move(project.home, moved.home)
    with Tracker(moved) as tracker:
        tracker.open("b").log_bytes(b"hello", "hello.txt")
    for run in runs(client(moved)):
        assert files(client(moved), run) == ["hello.txt"]
    assert not project.home.exists()


@pytest.mark.slow
def test_the_local_store_is_created_once_by_processes_that_start_together(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.files import Project; from pipeline.tracking import Tracker\n"
        "with Tracker(Project(Path.cwd(), Path.cwd())) as tracker:\n"
        "    tracker.open(sys.argv[1]).log_metrics({'loss': 1.0}, step=1)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
    assert [run.info.status for run in runs(MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"))] == ["FINISHED"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("table", [1, 20, 60])
def test_a_process_that_is_killed_while_it_creates_the_database_does_not_disturb_the_next_one(
    project: Project, table: int
) -> None:
    code = (
        "import os, signal, sys\n"
        "from sqlalchemy import Engine, event\n"
        "from pipeline.files import Project; from pipeline.tracking import Tracker\n"
        "left = int(sys.argv[1])\n"
        "@event.listens_for(Engine, 'before_cursor_execute')\n"
        "def die_at_a_table(connection, cursor, statement, *_):\n"
        "    global left\n"
        "    left -= 'CREATE TABLE' in statement\n"
        "    if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Tracker(Project.here()).open('first')\n"
    )
    database = project.home / "mlflow.db"
    database.unlink()
    died = subprocess.run([sys.executable, "-c", code, str(table)], cwd=project.home, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not database.exists()
    with Tracker(project) as tracker:
        tracker.open("second").finish(Outcome.FINISHED)
    assert only_run(project).info.status == "FINISHED"
    assert not list(project.home.glob("mlflow.db.part*"))
