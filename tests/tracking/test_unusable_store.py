"""Stores that can never be used: an error says why."""

import contextlib
import json
import sqlite3

import pytest
from mlflow_runs import client, wait_until
from servers import SECRET, answering

from pipeline.errors import TrackingError
from pipeline.files import Project
from pipeline.tracking import Timing, Tracker


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "must begin with http://"),
        ("file:./mlruns", "must begin with http://"),
        (f"htp://me:{SECRET}@host", "must begin with http://"),
        ("http://", "must be http://host"),
        (f"http://me:{SECRET}@host:port", "must be http://host"),
        (f"http://me:a/{SECRET}@host", "got http://\\*\\*\\*@host"),
        ("sqlite:////no/such/folder/mlflow.db", "no folder /no/such/folder"),
        ("sqlite:///notes.txt", "is not an SQLite database"),
    ],
)
def test_an_address_that_cannot_be_right_is_an_error_before_the_store_is_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    (project.home / "notes.txt").write_text("This is no database.")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match=message) as raised:
        Tracker(project)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, f"There is no me with {SECRET}.", "There is no me with"),
        (403, json.dumps({"error_code": "PERMISSION_DENIED", "message": "not yours"}), "not yours"),
        (404, "Not Found", "404"),
        (200, "<html>a page</html>", "valid JSON"),
    ],
)
def test_an_answer_that_shows_that_the_store_cannot_be_used_is_an_error(
    project: Project, monkeypatch: pytest.MonkeyPatch, status: int, body: str, message: str
) -> None:
    with answering(status, body) as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
        with pytest.raises(TrackingError, match=message) as raised, Tracker(project) as tracker:
            tracker.open("a")
    assert f"http://***@127.0.0.1:{port}" in str(raised.value)
    assert SECRET not in str(raised.value)
    assert not project.outbox.exists()


def test_a_damaged_database_is_an_error(project: Project) -> None:
    database = project.home / "mlflow.db"
    content = bytearray(database.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    database.write_bytes(content)
    with pytest.raises(TrackingError, match=r"mlflow\.db: "), Tracker(project) as tracker:
        tracker.open("a")


def test_a_deleted_experiment_is_an_error_with_the_command_that_restores_it(project: Project) -> None:
    with Tracker(project) as tracker:
        tracker.open("a")
    (experiment,) = client(project).search_experiments(filter_string="name = 'pipeline'")
    client(project).delete_experiment(experiment.experiment_id)
    with (
        pytest.raises(TrackingError, match="mlflow experiments restore --experiment-id 1"),
        Tracker(project) as tracker,
    ):
        tracker.open("b")


@pytest.mark.parametrize(("name", "is_error"), [(None, True), ("", True), ("flowers", False)])
def test_an_experiment_chosen_by_its_number_is_an_error_and_not_ignored(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str | None, is_error: bool
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    if name is not None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    if is_error:
        with pytest.raises(TrackingError, match=r"MLFLOW_EXPERIMENT_ID is 7, but .* set MLFLOW_EXPERIMENT_NAME"):
            Tracker(project)
    else:
        Tracker(project)


def test_an_error_of_the_database_is_a_sentence_and_no_traceback(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    timing = Timing(patience_s=0.3, away_patience_s=0.3, retry_delays_s=(0.01,), linger_s=0.0)
    with Tracker(project, timing=timing) as tracker:
        run = tracker.open("a")
        wait_until(lambda: not tracker.waiting)
        with contextlib.closing(sqlite3.connect(project.home / "mlflow.db")) as database:
            database.execute("DROP TABLE latest_metrics")
        run.log_metrics({"train.loss": 1.0}, step=1)
        wait_until(lambda: "does not answer" in (said.append(capfd.readouterr().err) or "".join(said)))
    said.append(capfd.readouterr().err)
    assert "no such table: latest_metrics" in "".join(said)
    assert "Traceback" not in "".join(said)
