"""The models that MLflow has, as folders: of a run, or of a version in the registry."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import TrackingError
from pipeline.exporting.environment import quiet
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import internals
from pipeline.tracking.experiment import attach
from pipeline.tracking.failures import explained
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REGISTRY = "models:/"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_LAGS = "What a stage has just recorded is there when `python -m pipeline.tracking` has ended."


class FetchedModel(NamedTuple):
    """A model of MLflow, and its run."""

    folder: Path
    """In MLflow's own store, or a copy in a temporary folder."""
    key: str | None
    """Of the run: the tag pipeline.key; None where it is none of this project."""
    ended: Outcome | None


def fetch_model(project: Project, name: str) -> FetchedModel:
    """An MLflow model. `name` is models:/NAME@ALIAS (or another address of MLflow's), the id of a run, or
    its name; of several runs with that name the last one that has a model.

    Raises TrackingError if there is no such model.
    """
    store = Store.of(project)
    if store.database and not store.database.exists():
        raise TrackingError(
            f"{store} is missing, so there is no {name}: `dvc repro` or `python -m pipeline.tune` begins it."
        )
    quiet()
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        client, experiment_id = attach(store)
        address = name if name.startswith(REGISTRY) else _model_of_run(client, experiment_id, name, store)
        folder = Path(internals.artifact_repository(address, store.uri).download_artifacts(""))
        run_id = Model.load(folder).run_id
        tags = client.get_run(run_id).data.tags if run_id else {}
        return FetchedModel(folder, tags.get("pipeline.key"), Outcome(tags["ended"]) if "ended" in tags else None)
    except TrackingError:
        raise
    except MlflowException as error:
        raise TrackingError(f"MLflow at {store} has no {name}: {explained(store, error)}") from error
    except Exception as error:
        raise TrackingError(f"MLflow at {store} does not give {name}: {explained(store, error)}.") from None


def _model_of_run(client: "MlflowClient", experiment_id: str, name: str, store: Store) -> str:
    """The address of a run's last model."""
    runs = _runs(client, experiment_id, name)
    if not runs:
        raise TrackingError(
            f"MLflow at {store} has no run {name}, neither by id nor by name, and no file has that name. {_LAGS}"
        )
    for run in runs:
        found = client.search_logged_models(
            [run.info.experiment_id],
            f"source_run_id = '{run.info.run_id}'",
            max_results=1,
            order_by=[{"field_name": "creation_timestamp", "ascending": False}],
        )
        if found:
            return str(found[0].artifact_location)
    why = next((run.data.tags["model.error"] for run in runs if "model.error" in run.data.tags), None)
    raise TrackingError(f"the run {name} has no model{f': {why}' if why else ''}. {_LAGS}")


def _runs(client: "MlflowClient", experiment_id: str, name: str) -> "list[Run]":
    if _RUN_ID.fullmatch(name):
        return [client.get_run(name)]
    quote = '"' if "'" in name else "'"
    return list(
        client.search_runs(
            [experiment_id],
            f"attributes.run_name = {quote}{name}{quote}",
            order_by=["start_time DESC"],
            max_results=100,
        )
    )
