"""Operations of an outbox -> calls of MLflow."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.exporting import trained
from pipeline.exporting.environment import quiet
from pipeline.outcome import Outcome
from pipeline.tracking import internals, linked
from pipeline.tracking.experiment import attach
from pipeline.tracking.failures import Refused, explained
from pipeline.tracking.outbox import Operation
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run

Point = tuple[str, int, str]
"""A metric's name, step and value, the value as text so that nan equals nan."""

_ALONE = ("open", "weights", "model", "register")
"""Kinds of operations that begin a batch."""
_BATCH = 200
"""The most operations that are sent at once."""


@dataclass(frozen=True)
class Recorded:
    """What MLflow has of a run."""

    status: str
    """RUNNING, SCHEDULED (paused), FINISHED, FAILED or KILLED."""
    ended: str | None
    """The outcome, such as finished or paused; None while it is open."""
    last_step: int
    """The last step of train.validation_accuracy; 0 if there is none."""
    has_model: bool
    """Whether it has logged one."""


@dataclass
class _Known:
    """What this process knows of a run in MLflow without asking."""

    id: str
    artifacts: str
    """Its artifact URI."""
    status: str | None = None
    """None if MLflow has to be asked."""
    name: str | None = None
    last_steps: dict[str, int] | None = None
    """By metric; None if MLflow has to be asked."""
    points: set[Point] | None = None
    """All its metrics; None if MLflow has to be asked."""
    tables: list[dict[str, str]] | None = None
    """The artifacts that MLflow shows as tables; None if MLflow has to be asked."""
    dataset: dict[str, Any] | None = None
    """The dataset that this process sent last."""


@dataclass
class _Request:
    """The part of a batch that goes to MLflow in one request."""

    params: "list[Param]" = field(default_factory=list)
    metrics: "dict[Point, Metric]" = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tables: list[dict[str, str]] | None = None
    """The run's tables as listed in `tags`; None if they are not."""


def batch(operations: Sequence[Operation]) -> list[Operation]:
    """The first operations, as many as one `deliver` takes; at least one, if there are any.

    A pause that ended before it was sent is left out: that saves two thirds of its requests.
    """
    taken: list[Operation] = []
    paused = False
    for operation in operations:
        resumes = paused and operation.kind == "open"
        if len(taken) == _BATCH or (taken and operation.kind in _ALONE and not resumes):
            break
        taken.append(operation)
        paused = operation.kind == "finish" and operation.content["ended"] == Outcome.PAUSED
        if operation.kind in ("weights", "model", "register") or (operation.kind == "finish" and not paused):
            break
    return taken


class Delivery:
    """Carries operations to the store. It belongs to one thread.

    Its methods raise Unreachable and Refused, whose text shows no password.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client: MlflowClient
        self._experiment_id: str
        self._runs: dict[str, _Known] = {}
        """Runs that are open or paused, and parents, by key."""
        self._deleted: dict[str, list[str]] = {}
        """The ids of deleted runs that may have children, by key."""

    def load(self) -> None:
        """Imports MLflow."""
        quiet()
        internals.preload()

    def connect(self) -> None:
        """Finds the database and the experiment, or creates them."""
        try:
            self._client, self._experiment_id = attach(self._store)
        except Refused:
            raise
        except Exception as error:
            raise explained(self._store, error, connecting=True) from None

    def deliver(self, folder: Path, opening: Operation, operations: Sequence[Operation], *, new: bool = False) -> None:
        """Carries out a `batch` of operations of the outbox in `folder`. `opening` is that outbox's first operation.

        `new` says that MLflow has no such run, which saves a search. After an error the whole batch, or its first
        operations, can be delivered again.
        """
        with self._explained():
            request = _Request()
            for operation in operations:
                if operation.kind == "tags":
                    request.tags |= operation.content["values"]
                elif operation.kind == "finish" and operation.content["ended"] != Outcome.PAUSED:
                    request.tags["ended"] = operation.content["ended"]
            run = self._run(opening, request, new)
            ends = operations[-1].kind == "finish"
            for operation in operations:
                content = operation.content
                match operation.kind:
                    case "open":
                        self._adopt(operation, run)
                        self._open(run, content["name"], ends=ends)
                    case "params":
                        self._params(request, content["values"])
                    case "metrics":
                        self._metrics(run, request, content["values"], content["step"] or 0, operation.time_ms)
                    case "file":
                        self._file(run, request, folder / content["path"], content["folder"], content["table"])
                    case "dataset" if content != run.dataset:
                        linked.log_dataset(self._client, run.id, **content)
                        run.dataset = content
                    case "model":
                        linked.log_model(
                            self._client, self._experiment_id, run.id, folder / content["path"], operation.id
                        )
                    case "weights":
                        self._weights(run, request, folder / content["path"], operation.id)
                    case "register":
                        linked.register(self._client, self._experiment_id, run.id, content["name"], content["alias"])
            self._send(run, request)
            if ends:
                self._finish(opening.content["key"], run, operations[-1])

    def children(self, key: str) -> dict[str, Recorded]:
        """The runs under a run, by key."""
        with self._explained():
            parent = self._find(key)
            found: dict[str, Recorded] = {}
            for run in self._runs_with("mlflow.parentRunId", parent.id) if parent else ():
                if "pipeline.key" not in run.data.tags:
                    continue
                paused = run.info.status == Outcome.PAUSED.mlflow_status
                found[run.data.tags["pipeline.key"]] = Recorded(
                    run.info.status,
                    Outcome.PAUSED if paused else run.data.tags.get("ended"),
                    internals.last_step(run, "train.validation_accuracy"),
                    bool(run.outputs and run.outputs.model_outputs),
                )
            return found

    def _run(self, opening: Operation, request: _Request, new: bool) -> _Known:
        key = opening.content["key"]
        return self._runs.get(key) or (None if new else self._find(key)) or self._create(opening, request)

    def _find(self, key: str) -> _Known | None:
        if key not in self._runs:
            from mlflow.entities import ViewType

            runs = self._client.search_runs(
                [self._experiment_id],
                f"tags.`pipeline.key` = '{key}'",
                run_view_type=ViewType.ALL,
                max_results=1000,
                order_by=["start_time ASC"],
            )
            there = [run for run in runs if run.info.lifecycle_stage == "active"]
            self._deleted[key] = [run.info.run_id for run in runs if run not in there]
            if not there:
                return None
            self._runs[key] = _Known(there[0].info.run_id, there[0].info.artifact_uri)
        return self._runs[key]

    def _create(self, opening: Operation, request: _Request) -> _Known:
        content = opening.content
        tags = {"pipeline.key": content["key"]}
        # MLflow checks the length of tags in log_batch only. A long one could make the database fail here.
        for name in [name for name, value in request.tags.items() if len(value) <= 500][:90]:
            tags[name] = request.tags.pop(name)
        if content["parent"] and (parent := self._find(content["parent"])):
            tags["mlflow.parentRunId"] = parent.id
        run = self._client.create_run(self._experiment_id, opening.time_ms, tags, run_name=content["name"])
        known = _Known(run.info.run_id, run.info.artifact_uri, "RUNNING", content["name"], last_steps={}, tables=[])
        self._runs[content["key"]] = known
        return known

    def _adopt(self, opening: Operation, run: _Known) -> None:
        """Moves the children of deleted runs of the same key to the run that took their place, if it is no child."""
        key = opening.content["key"]
        if opening.content["parent"] or key not in self._deleted:
            return
        children = [child for id in self._deleted[key] for child in self._runs_with("mlflow.parentRunId", id)]
        if run.status is not None:  # it was created: the run in whose place it is may be deleted for good
            children += self._runs_with("pipeline.key", f"{key}-%", "LIKE")
        for child in children:
            if child.data.tags.get("mlflow.parentRunId") != run.id:
                self._client.set_tag(child.info.run_id, "mlflow.parentRunId", run.id)
        del self._deleted[key]

    def _runs_with(self, tag: str, value: str, comparison: str = "=") -> "list[Run]":
        """The runs that have a value of a tag, the last one first."""
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                f"tags.`{tag}` {comparison} '{value}'",
                max_results=1000,
                order_by=["start_time DESC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found

    def _points(self, run: _Known) -> set[Point]:
        if run.points is None:
            run.points = {
                (metric.key, metric.step, repr(metric.value))
                for key in self._client.get_run(run.id).data.metrics
                for metric in self._client.get_metric_history(run.id, key)
            }
        return run.points

    def _open(self, run: _Known, name: str | None, *, ends: bool) -> None:
        """Sets a run that was paused or has ended to RUNNING, unless it `ends` in the same batch."""
        if run.status is None:
            found = self._client.get_run(run.id)
            if "ended" in found.data.tags:
                self._client.delete_tag(run.id, "ended")
            run.status, run.name = found.info.status, found.info.run_name
        if (run.status != "RUNNING" and not ends) or name not in (None, run.name):
            internals.update_run(self._client, run.id, "RUNNING", name)
            run.status, run.name = "RUNNING", name or run.name

    def _params(self, request: _Request, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        request.params += [Param(name, value) for name, value in values.items()]

    def _metrics(self, run: _Known, request: _Request, values: dict[str, float], step: int, time_ms: int) -> None:
        from mlflow.entities import Metric

        # A training that resumes from a checkpoint records some epochs again. What MLflow has is not sent again, and of
        # two equal points that wait the first one is sent.
        for name, value in values.items():
            point = (name, step, repr(value))
            is_new = run.last_steps is not None and step > run.last_steps.get(name, -1)
            if is_new or point not in self._points(run):
                request.metrics.setdefault(point, Metric(name, value, time_ms, step))

    def _send(self, run: _Known, request: _Request) -> None:
        from mlflow.entities import RunTag

        if not (request.params or request.metrics or request.tags):
            return
        tags = [RunTag(name, value) for name, value in request.tags.items()]
        # The client splits it into requests of the size that MLflow takes.
        self._client.log_batch(run.id, list(request.metrics.values()), request.params, tags, synchronous=True)
        run.tables = run.tables if request.tables is None else request.tables
        for name, step, _ in request.metrics:
            if run.last_steps is not None:
                run.last_steps[name] = max(step, run.last_steps.get(name, -1))
        if run.points is not None:
            run.points |= request.metrics.keys()

    def _finish(self, key: str, run: _Known, operation: Operation) -> None:
        outcome = Outcome(operation.content["ended"])
        status = outcome.mlflow_status
        if outcome is Outcome.PAUSED:
            if run.status != status:
                internals.update_run(self._client, run.id, status)
            self._runs[key] = replace(run, status=status, points=None)
        else:
            self._client.set_terminated(run.id, status, end_time=operation.time_ms)
            del self._runs[key]

    def _file(self, run: _Known, request: _Request, path: Path, folder: str | None, table: str | None) -> None:
        """`path` is a file, or a folder of which all files are sent; `table` names the one that is a table."""
        repository = internals.artifact_repository(run.artifacts, self._store.uri)
        if path.is_dir():
            repository.log_artifacts(str(path), folder)
        else:
            repository.log_artifact(str(path), folder)
        if not table:
            return
        tables = run.tables if request.tables is None else request.tables
        if tables is None:
            tables = json.loads(self._client.get_run(run.id).data.tags.get(internals.TABLES_TAG, "[]"))
        entry = {"path": "/".join(filter(None, [folder, table])), "type": "table"}
        if entry not in tables:
            request.tables = [*tables, entry]
            request.tags[internals.TABLES_TAG] = json.dumps(request.tables)

    def _weights(self, run: _Known, request: _Request, kept: Path, id: str) -> None:
        """Makes the model of what exporting.trained has kept, and logs it."""
        target = kept.with_name("model")
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that was interrupted
        if reason := trained.make(kept, target):
            request.tags["model.error"] = reason
        else:
            linked.log_model(self._client, self._experiment_id, run.id, target, id)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Refused:
            raise
        except Exception as error:
            # No cause: its text may show a password.
            raise explained(self._store, error) from None
