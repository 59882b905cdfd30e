"""Operations -> MLflow. A `Delivery` belongs to one thread."""

import contextlib
import json
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.tracking import model
from pipeline.tracking.outbox import Operation
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
Point = tuple[str, int, str]
"""A metric's name, step and value, the value as text so that nan equals nan."""

STATUS = {
    "finished": "FINISHED",
    "diverged": "FAILED",
    "out of memory": "FAILED",
    "crashed": "FAILED",
    "timed out": "FAILED",
    "interrupted": "KILLED",
    "pruned": "KILLED",
}
"""Why a run ended -> MLflow's status."""

# What a person sets goes first. MLflow would try 7 times over minutes, 120 s each; the sender has its own patience.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

_FORBIDDEN = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}


class Unreachable(Exception):
    """The store did not answer, or not now: worth another try."""


class Refused(Exception):
    """The store answered that it will not: another try would end the same."""


class Delivery:
    """Carries operations to the store. All its methods raise Unreachable and Refused, their text without passwords."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client: MlflowClient
        self._experiment_id: str
        self._run_ids: dict[str, str] = {}
        self._points: dict[str, set[Point]] = {}
        """What MLflow had of a run before this process wrote to it, by run id."""

    def load(self) -> None:
        """Imports MLflow, with the settings that make it quiet and quick to give up."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        # Not catch_warnings: it would swap the filters under the feet of the main thread.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*noload", category=DeprecationWarning)
        import mlflow.store.tracking.rest_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  else it comes later, beside the main thread's imports

    def connect(self) -> None:
        """Finds the experiment, or makes the database and the experiment."""
        try:
            with _creating(self._store.database):
                self._attach()
        except Refused:
            raise
        except Exception as error:
            raise self._sorted(error, connecting=True) from None

    def _attach(self) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self._store.uri)
        name = self._store.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # Its own, never MLflow's experiment 0: if `mlflow ui` made the database, that one keeps its artifacts
            # where only a server can reach them.
            location = None if self._store.is_server else self._store.artifacts.as_uri()
            try:
                experiment = client.get_experiment(client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                experiment = client.get_experiment_by_name(name)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                    raise
        elif self._store.is_own:
            _follow(self._store, experiment.artifact_location)
        if experiment.lifecycle_stage != "active":
            raise Refused(
                f"the experiment {name} was deleted: restore it with `mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME"
            )
        self._client, self._experiment_id = client, experiment.experiment_id

    def deliver(self, folder: Path, opening: Operation, operation: Operation) -> None:
        """Does one operation of the outbox in `folder`, whose first one is `opening`."""
        with self._explained():
            run_id = self._run_id(opening)
            content = operation.content
            match operation.kind:
                case "open":
                    self._open(run_id, content)
                case "params":
                    self._params(run_id, content["values"])
                case "metrics":
                    self._metrics(run_id, content["values"], content["step"] or 0, operation.time_ms)
                case "tags":
                    self._tags(run_id, content["values"])
                case "file":
                    self._client.log_artifact(run_id, str(folder / content["path"]), content["folder"])
                    if content["table"]:
                        self._mark_table(
                            run_id, "/".join(filter(None, [content["folder"], Path(content["path"]).name]))
                        )
                case "dataset":
                    self._dataset(run_id, **content)
                case "model":
                    self._model(run_id, folder / content["path"], operation.id)
                case "finish":
                    self._tags(run_id, {"ended": content["ended"]})
                    self._client.set_terminated(run_id, STATUS[content["ended"]], end_time=operation.time_ms)

    def steps(self, key: str) -> set[int]:
        """The steps at which MLflow has a metric of a run."""
        with self._explained():
            run_id = self._find(key)
            return {step for _, step, _ in self._known(run_id)} if run_id else set()

    def _run_id(self, opening: Operation) -> str:
        key = opening.content["key"]
        return self._run_ids.get(key) or self._find(key) or self._create(opening)

    def _find(self, key: str) -> str | None:
        if key not in self._run_ids:
            runs = self._client.search_runs(
                [self._experiment_id], f"tags.`pipeline.key` = '{key}'", max_results=1, order_by=["start_time ASC"]
            )
            if not runs:
                return None
            self._run_ids[key] = runs[0].info.run_id
        return self._run_ids[key]

    def _create(self, opening: Operation) -> str:
        content = opening.content
        tags = {"pipeline.key": content["key"]}
        if content["parent"] and (parent := self._find(content["parent"])):
            tags["mlflow.parentRunId"] = parent
        run = self._client.create_run(self._experiment_id, opening.time_ms, tags, run_name=content["name"])
        self._run_ids[content["key"]] = run.info.run_id
        self._points[run.info.run_id] = set()
        return str(run.info.run_id)

    def _known(self, run_id: str) -> set[Point]:
        if run_id not in self._points:
            self._points[run_id] = {
                (metric.key, metric.step, repr(metric.value))
                for key in self._client.get_run(run_id).data.metrics
                for metric in self._client.get_metric_history(run_id, key)
            }
        return self._points[run_id]

    def _open(self, run_id: str, content: dict[str, Any]) -> None:
        run = self._client.get_run(run_id)
        self._known(run_id)  # before this process adds to it
        if run.info.status != "RUNNING" or content["name"] not in (None, run.info.run_name):
            self._client.update_run(run_id, status="RUNNING", name=content["name"])
        if "ended" in run.data.tags:
            self._client.delete_tag(run_id, "ended")

    def _params(self, run_id: str, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        for part in _parts([Param(name, value) for name, value in values.items()], 100):
            self._client.log_batch(run_id, params=part, synchronous=True)

    def _metrics(self, run_id: str, values: dict[str, float], step: int, time_ms: int) -> None:
        from mlflow.entities import Metric

        # A training that goes on while the store can't be asked records again what an earlier process sent.
        known = self._points.get(run_id, set())
        points = [
            Metric(name, value, time_ms, step)
            for name, value in values.items()
            if (name, step, repr(value)) not in known
        ]
        for part in _parts(points, 1000):
            self._client.log_batch(run_id, metrics=part, synchronous=True)

    def _tags(self, run_id: str, values: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        for part in _parts([RunTag(name, value) for name, value in values.items()], 100):
            self._client.log_batch(run_id, tags=part, synchronous=True)

    def _mark_table(self, run_id: str, path: str) -> None:
        # What MlflowClient.log_table does beside writing the file; it would also append to a table sent before.
        tables = json.loads(self._client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        if {"path": path, "type": "table"} not in tables:
            self._tags(run_id, {"mlflow.loggedArtifacts": json.dumps([*tables, {"path": path, "type": "table"}])})

    def _dataset(
        self,
        run_id: str,
        name: str,
        digest: str,
        source: str,
        counts: dict[str, int],
        shape: list[int],
        classes: int,
        context: str,
    ) -> None:
        import numpy as np
        from mlflow.data.schema import TensorDatasetSchema
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.types.schema import Schema, TensorSpec

        is_url = urlsplit(source).scheme in ("http", "https")
        schema = TensorDatasetSchema(
            Schema([TensorSpec(np.dtype("uint8"), (-1, *shape))]), Schema([TensorSpec(np.dtype("int64"), (-1,))])
        )
        dataset = Dataset(
            name=name,
            digest=digest[:36],  # MLflow's limit
            source_type="http" if is_url else "local",
            source=json.dumps({"url" if is_url else "uri": source}),
            schema=json.dumps(schema.to_dict()),
            profile=json.dumps({"num_rows": sum(counts.values()), "classes": classes} | counts),
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def _model(self, run_id: str, folder: Path, id: str) -> None:
        run = self._client.get_run(run_id)
        logged = next(
            iter(
                self._client.search_logged_models(
                    [self._experiment_id], f"source_run_id = '{run_id}' and tags.`pipeline.operation` = '{id}'"
                )
            ),
            None,
        ) or self._client.create_logged_model(
            self._experiment_id,
            name="model",
            source_run_id=run_id,
            params=run.data.params,
            tags={"pipeline.operation": id},
        )
        if logged.status != "READY":
            model.address(folder, run_id, logged.model_id, logged.artifact_location)
            self._client.log_model_artifacts(logged.model_id, str(folder))
            self._client.finalize_logged_model(logged.model_id, "READY")
        outputs = run.outputs.model_outputs if run.outputs else []
        if logged.model_id not in [output.model_id for output in outputs]:
            from mlflow.entities import LoggedModelOutput

            self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # None: the cause may show a password in its text.
            raise self._sorted(error, connecting=False) from None

    def _sorted(self, error: Exception, connecting: bool) -> Unreachable | Refused:
        if isinstance(error, ImportError):
            return Refused(f"{error}: install what this kind of store needs")
        from mlflow.exceptions import MlflowException, RestException
        from requests.exceptions import HTTPError
        from sqlalchemy.exc import OperationalError

        reason = _reason(self._store.redacted(str(error)), type(error).__name__)
        unreachable, refused = Unreachable(reason), Refused(reason)
        if isinstance(error, MlflowException):
            if connecting and (
                error.error_code in _FORBIDDEN | _REFUSALS | {"ENDPOINT_NOT_FOUND"}
                or self._store.database
                or "valid JSON" in str(error)
            ):
                return refused
            # An answer that is not MLflow's own may come from a gateway whose server is away.
            own = isinstance(error, RestException) or not self._store.is_server
            return refused if own and error.error_code in _REFUSALS else unreachable
        if isinstance(error, HTTPError) and error.response is not None:
            return refused if error.response.status_code in (400, 413, 415, 422) else unreachable
        if isinstance(error, OperationalError):
            return refused if connecting and self._store.database and "locked" not in reason else unreachable
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            return unreachable
        return refused


@contextlib.contextmanager
def _creating(database: Path | None) -> Iterator[None]:
    """Keeps other processes from making the same SQLite file at the same time, which would leave it broken."""
    if database is None:
        yield
        return
    with FileLock(f"{database}.lock", timeout=120):
        # Readers and a writer side by side, and half the time a write; it stays so in the file. Not worth an error.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        yield


def _follow(store: Store, location: str) -> None:
    """Lets the database of a project that was moved or copied find the artifacts that came along with it.

    MLflow keeps absolute paths: it would show the old runs without their files, and write new ones to the old place.
    """
    old, artifacts = Path(unquote(urlsplit(location).path)), store.artifacts
    if old.parts[-2:] != artifacts.parts[-2:] or not artifacts.is_dir():
        return
    if old.is_dir() and old.samefile(artifacts):
        return
    places = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
    with contextlib.closing(sqlite3.connect(store.own_database, timeout=20)) as connection, connection:
        for table, column in places.items():
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?",
                (artifacts.as_uri(), len(location) + 1, len(location) + 1, f"{location}/"),
            )


def _reason(text: str, kind: str) -> str:
    """The heart of an error's text, on one line."""
    if found := re.search(
        r"Connection (?:refused|reset|aborted)|timed out|Remote end closed|Name or service not known|"
        r"Temporary failure in name resolution|No route to host|Network is unreachable|too many \d+ error responses",
        text,
    ):
        return found[0].lower()
    line = " ".join(text.split()) or kind
    return line if len(line) <= 300 else f"{line[:300]}..."


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """MLflow takes 100 params or tags, or 1000 metrics, at once."""
    return (items[start : start + size] for start in range(0, len(items), size))
