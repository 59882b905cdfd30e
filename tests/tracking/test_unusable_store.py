"""Stores that can never be used: an error says why."""

import json

import pytest
from mlflow_runs import client
from servers import SECRET, answering

from pipeline.errors import TrackingError
from pipeline.files import Project
from pipeline.tracking import Tracker


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
