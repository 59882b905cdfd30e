"""Operations -> MLflow. A `Delivery` belongs to one thread."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.exporting.environment import quiet
from pipeline.tracking import linked
from pipeline.tracking.experiment import attach
from pipeline.tracking.failures import Refused, explained
from pipeline.tracking.outbox import Operation
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

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
    "paused": "SCHEDULED",
}
"""Why a run ended -> MLflow's status. A paused run did not end: it waits to be opened again."""

_BATCH = 200
"""How many operations are sent at once at most."""


@dataclass(frozen=True)
class Recorded:
    """What MLflow has of a run."""

    status: str
    """RUNNING, SCHEDULED (paused), FINISHED, FAILED or KILLED."""
    ended: str | None
    """Why it ended, or "paused": a key of STATUS. None while it is open."""
    last_step: int
    """The last step of train.validation_accuracy; 0 if there is none."""


@dataclass
class _Known:
    """What this process knows of a run in MLflow, so that it need not ask."""

    id: str
    artifacts: str
    """Its artifact URI."""
    status: str | None = None
    """None if MLflow has to be asked."""
    name: str | None = None
    last_steps: dict[str, int] | None = None
    """The last step of each metric; None if MLflow has to be asked."""
    points: set[Point] | None = None
    """All its metrics, once they were asked for."""
    tables: list[dict[str, str]] | None = None
    """The artifacts that MLflow shows as tables; None if MLflow has to be asked."""
    dataset: dict[str, Any] | None = None
    """The one that this process sent last."""


@dataclass
class _Wanted:
    """What of a batch goes to MLflow in one request."""

    params: "list[Param]" = field(default_factory=list)
    metrics: "dict[Point, Metric]" = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tables: list[dict[str, str]] | None = None
    """What `tags` says of the run's tables, if it does."""


def batch(operations: Sequence[Operation]) -> list[Operation]:
    """The first operations, as many as one `deliver` takes; at least one, if there are any.

    A run that paused and went on before it could be sent is sent as if it had not paused: a third of the price.
    """
    taken: list[Operation] = []
    paused = False
    for operation in operations:
        goes_on = paused and operation.kind == "open"
        if len(taken) == _BATCH or (taken and operation.kind in ("open", "model", "register") and not goes_on):
            break
        taken.append(operation)
        paused = operation.kind == "finish" and operation.content["ended"] == "paused"
        if operation.kind in ("model", "register") or (operation.kind == "finish" and not paused):
            break
    return taken


class Delivery:
    """Carries operations to the store. All its methods raise Unreachable and Refused, their text without passwords."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client: MlflowClient
        self._experiment_id: str
        self._runs: dict[str, _Known] = {}
        """By key: runs that are open or paused, and parents."""

    def load(self) -> None:
        """Imports MLflow."""
        quiet()
        import mlflow.store.tracking.rest_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  else it comes later, beside the main thread's imports

    def connect(self) -> None:
        """Finds the experiment, or makes the database and the experiment."""
        try:
            self._client, self._experiment_id = attach(self._store)
        except Refused:
            raise
        except Exception as error:
            raise explained(self._store, error, connecting=True) from None

    def deliver(self, folder: Path, opening: Operation, operations: Sequence[Operation], *, new: bool = False) -> None:
        """Does a `batch` of operations of the outbox in `folder`, whose first one ever is `opening`.

        `new` says that MLflow has no such run, which spares a search. After an error the whole batch, or any part of
        it from the start, can be delivered again.
        """
        with self._explained():
            wanted = _Wanted()
            for operation in operations:
                if operation.kind == "tags":
                    wanted.tags |= operation.content["values"]
                elif operation.kind == "finish" and operation.content["ended"] != "paused":
                    wanted.tags["ended"] = operation.content["ended"]
            run = self._run(opening, wanted, new)
            ends = operations[-1].kind == "finish"
            for operation in operations:
                content = operation.content
                match operation.kind:
                    case "open":
                        self._open(run, content["name"], ends=ends)
                    case "params":
                        self._params(wanted, content["values"])
                    case "metrics":
                        self._metrics(run, wanted, content["values"], content["step"] or 0, operation.time_ms)
                    case "file":
                        self._file(run, wanted, folder / content["path"], content["folder"], content["table"])
                    case "dataset" if content != run.dataset:
                        linked.log_dataset(self._client, run.id, **content)
                        run.dataset = content
                    case "model":
                        linked.log_model(
                            self._client, self._experiment_id, run.id, folder / content["path"], operation.id
                        )
                    case "register":
                        linked.register(self._client, self._experiment_id, run.id, content["name"], content["alias"])
            self._send(run, wanted)
            if ends:
                self._finish(opening.content["key"], run, operations[-1])

    def steps(self, key: str) -> set[int]:
        """The steps at which MLflow has a metric of a run."""
        with self._explained():
            run = self._find(key)
            return {step for _, step, _ in self._points(run)} if run else set()

    def children(self, key: str) -> dict[str, Recorded]:
        """The runs under a run, by key."""
        with self._explained():
            parent = self._find(key)
            found: dict[str, Recorded] = {}
            token = None
            while parent:
                page = self._client.search_runs(
                    [self._experiment_id],
                    f"tags.`mlflow.parentRunId` = '{parent.id}'",
                    max_results=1000,
                    order_by=["start_time DESC"],
                    page_token=token,
                )
                for run in page:
                    if "pipeline.key" not in run.data.tags:
                        continue
                    # The entity tells a metric's last value alone; its message, the step too.
                    steps = {metric.key: metric.step for metric in run.to_proto().data.metrics}
                    paused = run.info.status == STATUS["paused"]
                    found[run.data.tags["pipeline.key"]] = Recorded(
                        run.info.status,
                        "paused" if paused else run.data.tags.get("ended"),
                        int(steps.get("train.validation_accuracy", 0)),
                    )
                token = page.token
                if not token:
                    break
            return found

    def _run(self, opening: Operation, wanted: _Wanted, new: bool) -> _Known:
        key = opening.content["key"]
        return self._runs.get(key) or (None if new else self._find(key)) or self._create(opening, wanted)

    def _find(self, key: str) -> _Known | None:
        if key not in self._runs:
            runs = self._client.search_runs(
                [self._experiment_id], f"tags.`pipeline.key` = '{key}'", max_results=1, order_by=["start_time ASC"]
            )
            if not runs:
                return None
            self._runs[key] = _Known(runs[0].info.run_id, runs[0].info.artifact_uri)
        return self._runs[key]

    def _create(self, opening: Operation, wanted: _Wanted) -> _Known:
        content = opening.content
        tags = {"pipeline.key": content["key"]}
        # MLflow checks these less than those of log_batch: a database might choke on a long one.
        for name in [name for name, value in wanted.tags.items() if len(value) <= 500][:90]:
            tags[name] = wanted.tags.pop(name)
        if content["parent"] and (parent := self._find(content["parent"])):
            tags["mlflow.parentRunId"] = parent.id
        run = self._client.create_run(self._experiment_id, opening.time_ms, tags, run_name=content["name"])
        known = _Known(run.info.run_id, run.info.artifact_uri, "RUNNING", content["name"], last_steps={}, tables=[])
        self._runs[content["key"]] = known
        return known

    def _points(self, run: _Known) -> set[Point]:
        if run.points is None:
            run.points = {
                (metric.key, metric.step, repr(metric.value))
                for key in self._client.get_run(run.id).data.metrics
                for metric in self._client.get_metric_history(run.id, key)
            }
        return run.points

    def _open(self, run: _Known, name: str | None, *, ends: bool) -> None:
        """Reopens a run that was paused or has ended, unless it `ends` in the same batch: nobody would see it run."""
        if run.status is None:
            found = self._client.get_run(run.id)
            if "ended" in found.data.tags:
                self._client.delete_tag(run.id, "ended")
            run.status, run.name = found.info.status, found.info.run_name
        if (run.status != "RUNNING" and not ends) or name not in (None, run.name):
            self._update(run, "RUNNING", name)
            run.status, run.name = "RUNNING", name or run.name

    def _params(self, wanted: _Wanted, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        wanted.params += [Param(name, value) for name, value in values.items()]

    def _metrics(self, run: _Known, wanted: _Wanted, values: dict[str, float], step: int, time_ms: int) -> None:
        from mlflow.entities import Metric

        # A training that goes on from a checkpoint records again what was recorded before it was stopped: what of that
        # MLflow has is not sent, and of what waited too, the first.
        for name, value in values.items():
            point = (name, step, repr(value))
            is_new = run.last_steps is not None and step > run.last_steps.get(name, -1)
            if is_new or point not in self._points(run):
                wanted.metrics.setdefault(point, Metric(name, value, time_ms, step))

    def _send(self, run: _Known, wanted: _Wanted) -> None:
        from mlflow.entities import RunTag

        if not (wanted.params or wanted.metrics or wanted.tags):
            return
        tags = [RunTag(name, value) for name, value in wanted.tags.items()]
        # The client cuts it into requests of the size that MLflow takes.
        self._client.log_batch(run.id, list(wanted.metrics.values()), wanted.params, tags, synchronous=True)
        run.tables = run.tables if wanted.tables is None else wanted.tables
        for name, step, _ in wanted.metrics:
            if run.last_steps is not None:
                run.last_steps[name] = max(step, run.last_steps.get(name, -1))
        if run.points is not None:
            run.points |= wanted.metrics.keys()

    def _finish(self, key: str, run: _Known, operation: Operation) -> None:
        status = STATUS[operation.content["ended"]]
        if status == "SCHEDULED":
            if run.status != status:
                self._update(run, status)
            self._runs[key] = replace(run, status=status, points=None)
        else:
            self._client.set_terminated(run.id, status, end_time=operation.time_ms)
            del self._runs[key]

    def _update(self, run: _Known, status: str, name: str | None = None) -> None:
        """Sets a run's status, and its name if there is one; its end time stays.

        What MlflowClient.update_run does, without asking for the whole run first. That takes as long again, and a
        trial of a search pauses and goes on several times.
        """
        from mlflow.entities import RunStatus

        self._client._tracking_client.store.update_run_info(run.id, RunStatus.from_string(status), None, name)

    def _file(self, run: _Known, wanted: _Wanted, path: Path, folder: str | None, table: str | None) -> None:
        """`path` is a file, or a folder of which all is meant."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # What the client would ask MLflow for, with one more request a run.
        repository: Any = get_artifact_repository(run.artifacts, tracking_uri=self._store.uri)
        if path.is_dir():
            repository.log_artifacts(str(path), folder)
        else:
            repository.log_artifact(str(path), folder)
        if not table:
            return
        # What MlflowClient.log_table does beside writing the file; it would also append to a table sent before.
        tables = run.tables if wanted.tables is None else wanted.tables
        if tables is None:
            tables = json.loads(self._client.get_run(run.id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": "/".join(filter(None, [folder, table])), "type": "table"}
        if entry not in tables:
            wanted.tables = [*tables, entry]
            wanted.tags["mlflow.loggedArtifacts"] = json.dumps(wanted.tables)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Refused:
            raise
        except Exception as error:
            # None: the cause may show a password in its text.
            raise explained(self._store, error) from None
