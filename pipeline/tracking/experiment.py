"""Where in MLflow the runs go: finds the database and the experiment, or makes them."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.tracking.failures import Refused
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


def attach(store: Store) -> "tuple[MlflowClient, str]":
    """A client of the store and the id of the experiment. Raises Refused if that was deleted, and MLflow's errors."""
    with _creating(store.database):
        return _attach(store)


def _attach(store: Store) -> "tuple[MlflowClient, str]":
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(store.uri)
    name = store.experiment
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # Its own, never MLflow's experiment 0: if `mlflow ui` made the database, that one keeps its artifacts
        # where only a server can reach them.
        location = None if store.is_server else store.artifacts.as_uri()
        try:
            experiment = client.get_experiment(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                raise
    elif store.is_own:
        _follow(store, experiment.artifact_location)
    if experiment.lifecycle_stage != "active":
        raise Refused(
            f"the experiment {name} was deleted: restore it with `mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME"
        )
    return client, experiment.experiment_id


@contextlib.contextmanager
def _creating(database: Path | None) -> Iterator[None]:
    """Keeps other processes from making the same SQLite file at the same time, which would leave it broken."""
    if database is None:
        yield
        return
    with FileLock(f"{database}.lock", timeout=120):
        if not database.exists() or not database.stat().st_size:
            _make(database)
        # Readers and a writer side by side, and half the time a write; it stays so in the file. Not worth an error.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        yield


def _make(database: Path) -> None:
    """Makes the tables aside, as a process that is killed in the middle would leave a file that MLflow can't use."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in database.parent.glob(f"{database.name}.part*"):
        leftover.unlink()
    aside = database.with_name(f"{database.name}.part")
    store = SqlAlchemyStore(f"sqlite:///{aside}", str(database.parent / "mlruns"))  # type: ignore[no-untyped-call]
    store.engine.dispose()
    aside.replace(database)


def _follow(store: Store, location: str) -> None:
    """Lets the database of a project that was moved or copied find the artifacts that came along with it.

    MLflow keeps absolute paths: it would show the old runs without their files, and write new ones to the old place.
    """
    old, artifacts = Path(unquote(urlsplit(location).path)), store.artifacts
    if old.parts[-2:] != artifacts.parts[-2:] or not artifacts.is_dir():
        return
    if old.is_dir() and old.samefile(artifacts):
        return
    places = [
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "source"),
        ("model_versions", "storage_location"),
    ]
    with contextlib.closing(sqlite3.connect(store.own_database, timeout=20)) as connection, connection:
        for table, column in places:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?",
                (artifacts.as_uri(), len(location) + 1, len(location) + 1, f"{location}/"),
            )
