"""Where in MLflow the runs go: finds the database and the experiment, or creates them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.tracking import internals
from pipeline.tracking.failures import Refused
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DESCRIPTION = (
    "Trainings and searches. [Model training](#/experiments/{id}/runs?workflowType=machine_learning) lists them; a "
    "study is a run with its trials below it."
)
"""Of an experiment. MLflow's page opens in its part for generative AI, which shows none of that."""


def attach(store: Store) -> "tuple[MlflowClient, str]":
    """A client of the store and the experiment's id. Raises Refused for a deleted experiment, and MLflow's errors."""
    with _database(store.database):
        return _attach(store)


def _attach(store: Store) -> "tuple[MlflowClient, str]":
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(store.uri)
    name = store.experiment
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # Never MLflow's experiment 0: if `mlflow ui` created the database, the artifacts of that experiment lie where
        # only a server can reach them.
        location = None if store.is_server else store.artifacts.as_uri()
        try:
            id = client.create_experiment(name, artifact_location=location)
            client.set_experiment_tag(id, "mlflow.note.content", _DESCRIPTION.format(id=id))
            experiment = client.get_experiment(id)
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                raise
    elif store.is_own:
        _relocate(store, experiment.artifact_location)
    if experiment.lifecycle_stage != "active":
        raise Refused(
            f"the experiment {name} was deleted: restore it with `mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME"
        )
    return client, experiment.experiment_id


@contextlib.contextmanager
def _database(database: Path | None) -> Iterator[None]:
    """Creates the SQLite file if it is missing. Other processes wait: creating it twice at once would break it."""
    if database is None:
        yield
        return
    with FileLock(f"{database}.lock", timeout=120):
        if not database.exists() or not database.stat().st_size:
            internals.create_database(database)
        internals.allow_readers(database)
        yield


def _relocate(store: Store, location: str) -> None:
    """Corrects the paths of artifacts in the database of a project that was moved or copied together with them.

    MLflow stores absolute paths. It would show the old runs without their artifacts, and write new ones to the old
    place.
    """
    old, artifacts = Path(unquote(urlsplit(location).path)), store.artifacts
    if old.parts[-2:] != artifacts.parts[-2:] or not artifacts.is_dir():
        return
    if old.is_dir() and old.samefile(artifacts):
        return
    internals.relocate_artifacts(store.own_database, location, artifacts.as_uri())
