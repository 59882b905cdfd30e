"""Checks of MLflow's database and of the outbox."""

import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow_runs import client, files, runs
from recordings import unsent_run

from pipeline.files import Project
from pipeline.findings import Finding, Looked, Weight
from pipeline.tracking import Tracker, health
from pipeline.tracking.internals import artifact_addresses, snapshot
from pipeline.tracking.outbox import kept


def findings(report: Iterable[Finding | Looked]) -> list[Finding]:
    return [one for one in report if isinstance(one, Finding)]


def moved(project: Project, tmp_path: Path) -> Project:
    target = Project(tmp_path / "moved", tmp_path / "moved")
    shutil.move(project.home, target.home)
    return target


def test_all_experiments_of_a_moved_project_are_corrected(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("pipeline", "mine/and yours")
    for name in names:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        with Tracker(project) as tracker:
            tracker.open("a").log_bytes(b"hello", "hello.txt")
    assert not findings(health.artifacts(project))
    there = moved(project, tmp_path)
    (finding,) = findings(health.artifacts(there))
    assert finding.weight is Weight.ERROR
    assert finding.what == (
        f"MLflow looks for the artifacts of 2 runs and 2 experiments in {project.artifacts}, where the project was"
    )
    assert finding.mend
    assert "the database as it was is mlflow.db.before-" in finding.mend()
    assert not findings(health.artifacts(there))
    for name in names:
        (run,) = runs(client(there), name)
        assert files(client(there), run) == ["hello.txt"]
    (backup,) = there.home.glob("mlflow.db.before-*")
    with snapshot(backup) as connection:
        assert all(str(project.home) in unquote(address) for _, address in artifact_addresses(connection))


def test_artifacts_that_stayed_behind_are_named(project: Project, tmp_path: Path) -> None:
    with Tracker(project) as tracker:
        tracker.open("a").log_table({"class": ["cat"]}, "per_class.json")
    copy = Project(tmp_path / "copy", tmp_path / "copy")
    copy.home.mkdir()
    for file in project.home.glob("mlflow.db*"):
        shutil.copy(file, copy.home)
    (finding,) = findings(health.artifacts(copy))
    assert (finding.weight, finding.mend) == (Weight.WARNING, None)
    assert f"lie outside of the project, in {project.artifacts}" in finding.what
    shutil.rmtree(project.artifacts)
    (finding,) = findings(health.artifacts(copy))
    assert finding.weight is Weight.ERROR
    assert "neither" in finding.what
    (finding,) = findings(health.artifacts(project))
    assert "the files of 1 run or model are missing" in finding.what


def test_a_run_that_nobody_ends_is_named_and_ended(project: Project) -> None:
    with Tracker(project) as tracker:
        tracker.open("a", name="left")
        tracker.open("b", name="done")
    with sqlite3.connect(project.mlflow_database) as connection:
        connection.execute("UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE name = 'left'")
    (finding,) = findings(health.open_runs(project))
    assert finding.what.endswith("the process is gone with all of its records in .outbox/: left")
    assert finding.mend
    assert finding.mend() == "1 run recorded as interrupted"
    assert {run.info.run_name: run.info.status for run in runs(client(project))} == {
        "left": "KILLED",
        "done": "FINISHED",
    }
    assert not findings(health.open_runs(project))
    assert not kept(project.outbox)


def test_a_run_that_is_recorded_at_this_moment_is_no_finding_and_what_a_dead_process_left_is_one(
    project: Project,
) -> None:
    with Tracker(project) as tracker:
        tracker.open("a", name="left")
    run, outbox = unsent_run(project, "a", name="left")
    run.set_tags({"seed": 0})
    with sqlite3.connect(project.mlflow_database) as connection:
        connection.execute("UPDATE runs SET status = 'RUNNING'")
    assert not findings(health.open_runs(project))
    assert not findings(health.unsent(project))
    outbox.close()
    (shown,), (waits,) = findings(health.open_runs(project)), findings(health.unsent(project))
    assert (shown.remedy, shown.mend) == ("python -m pipeline.tracking", None)
    assert waits.what == "2 records of runs wait to be sent to mlflow.db"
    with Tracker(project) as tracker:
        tracker.send_leftovers()
    assert not findings([*health.open_runs(project), *health.unsent(project)])


def test_locks_without_an_outbox_are_deleted(project: Project) -> None:
    project.outbox.mkdir()
    (project.outbox / "a@0.lock").touch()
    (finding,) = findings(health.unsent(project))
    assert finding.weight is Weight.NOTE
    assert finding.mend
    finding.mend()
    assert not list(project.outbox.glob("*.lock"))


@pytest.mark.parametrize("damage", ["cut", "no database"])
def test_a_damaged_database_is_named_once(project: Project, damage: str) -> None:
    database = project.mlflow_database
    database.write_bytes(database.read_bytes()[:300_000] if damage == "cut" else b"hello" * 1000)
    (finding,) = findings(health.database(project))
    assert finding.weight is Weight.ERROR
    assert not findings([*health.artifacts(project), *health.open_runs(project)])
    assert health.recorded_keys(project) is None


def test_artifacts_without_a_database_are_named(project: Project) -> None:
    project.mlflow_database.unlink()
    assert not findings(health.database(project))
    (project.artifacts / "pipeline").mkdir(parents=True)
    (finding,) = findings(health.database(project))
    assert "mlflow.db, which names them, is missing" in finding.what


def test_a_database_with_writes_that_wait_is_read_with_them_and_not_changed(project: Project) -> None:
    with sqlite3.connect(project.mlflow_database) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE experiments SET name = 'renamed'")
        writer.commit()
        before = {path.name: path.read_bytes() for path in project.home.glob("mlflow.db*")}
        assert len(before["mlflow.db-wal"]) > 0
        with snapshot(project.mlflow_database) as connection:
            assert connection.execute("SELECT name FROM experiments").fetchone() == ("renamed",)
        assert {path.name: path.read_bytes() for path in project.home.glob("mlflow.db*")} == before
    writer.close()
