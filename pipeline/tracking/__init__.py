"""Runs in MLflow: recorded on disk first, sent by a thread of its own, so that no store can hold up or end a training.

    with Tracker(project) as tracker:
        run = tracker.open(key, name="resnet20 on cifar10")
        run.log_metrics({"train.validation_accuracy": 0.5}, step=3)
        run.finish("finished")

The store is mlflow.db in the project, or what MLFLOW_TRACKING_URI names; the experiment is "pipeline", or what
MLFLOW_EXPERIMENT_NAME names. A store that does not answer costs nothing but the delay: what it has not received stays
in .outbox, and `python -m pipeline.tracking` sends it.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pipeline.config import Scalar
from pipeline.files import Project
from pipeline.tracking.delivery import STATUS, Recorded
from pipeline.tracking.outbox import Held, Kept, Operation, Outbox, kept, sweep
from pipeline.tracking.sender import Sender, say
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

__all__ = ["Recorded", "Run", "Tracker"]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}")
_REGISTERED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")
_HOLDER_S = 5.0
_MANY_RUNS_S = 60.0
_PATIENCE_S = 30.0
_INTERRUPTED_PATIENCE_S = 3.0


class Tracker:
    """The MLflow store of a project. A context manager: at its end the open runs are finished and all is sent.

    A run that nobody finished is ended by what ended the block: finished, interrupted (Ctrl-C) or crashed.
    """

    def __init__(self, project: Project, on_sent: Callable[[], None] = lambda: None) -> None:
        """`on_sent` is called from another thread after each operation that MLflow took.

        Raises TrackingError if the environment names no store that MLflow can use.
        """
        self._store = Store.of(project)
        self._folder = project.outbox
        self._sender = Sender(self._store, on_sent)
        self._runs: list[Run] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            for run in self._runs:
                if not run.finished:
                    run.finish("interrupted" if interrupted else "crashed" if error else "finished")
        finally:
            left = self._sender.close(_INTERRUPTED_PATIENCE_S if interrupted else _PATIENCE_S)
            if left:
                count = sum(outbox.waiting for outbox in left)
                say(
                    f"MLflow at {self._store} lacks {count} of the recorded operations, which are kept in "
                    f"{self._folder}. When it answers, `python -m pipeline.tracking` sends them."
                )

    def open(self, key: str, name: str | None = None, parent: str | None = None, *, new: bool = False) -> "Run":
        """Makes the run `key`, or goes on with it: then it is RUNNING again, and `name`, if given, renames it.

        `key` is this project's name for a run, unique for good: up to 100 letters, digits and any of . _ = + -
        `parent` is the key of the run that MLflow shows it under. `new` promises that no run of this key was ever
        opened, which spares MLflow a search. The first call waits until the store is connected, the others for nothing.
        Raises TrackingError if the store can't be used, or if another process records the run.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"a run's key must be up to 100 letters, digits and . _ = + -, got {key!r}")
        self._sender.start()
        opening = {"key": key, "name": name, "parent": parent}
        place = {"store": str(self._store), "experiment": self._store.experiment}
        folder = self._folder / f"{key}@{self._store.id}"
        outbox = self._sender.open(folder, _HOLDER_S, new=new, **opening, **place)
        run = Run(self._store, self._sender, outbox)
        self._runs = [other for other in self._runs if not other.finished] + [run]
        return run

    @property
    def waiting(self) -> int:
        """How many of the recorded operations MLflow does not have yet."""
        return self._sender.waiting

    def children(self, parent: str) -> dict[str, Recorded] | None:
        """What MLflow has of the runs under the run `parent`, by key; None if it does not answer.

        It takes seconds for thousands of runs. What still waits to be sent is not in it. To be called after `open`.
        """
        no_answer: dict[str, Recorded] | None = None
        return self._sender.ask(lambda delivery: delivery.children(parent), default=no_answer, wait_s=_MANY_RUNS_S)

    def send_leftovers(self) -> list[Kept]:
        """Sends what earlier processes could not, and ends the runs whose process died, as interrupted.

        Returns the outboxes that living processes hold, and leaves them alone. To be called after `open`, which goes
        on with a run whose process died. Raises TrackingError if the store can't be used.
        """
        held = []
        sweep(self._folder)
        for leftover in kept(self._folder, self._store.id):
            try:
                outbox = Outbox(leftover.folder, wait_s=0)
            except Held:
                held.append(leftover)
                continue
            if not outbox.ended:
                outbox.append("finish", ended="interrupted")
            self._sender.start()
            self._sender.add(outbox)
        return held


class Run:
    """A run in MLflow. Its methods return when the record is on disk; they raise TrackingError if that fails."""

    def __init__(self, store: Store, sender: Sender, outbox: Outbox) -> None:
        self._store = store
        self._sender = sender
        self._outbox = outbox
        self._earlier_steps: set[int] | None = None
        self._gathered: list[Operation] | None = None
        self.finished = False

    @property
    def key(self) -> str:
        return self._outbox.key

    @property
    def logged_steps(self) -> set[int]:
        """The steps for which metrics were recorded, by this process or an earlier one."""
        if self._earlier_steps is None:
            nothing: set[int] = set()
            self._earlier_steps = self._sender.ask(lambda delivery: delivery.steps(self.key), default=nothing)
        return self._earlier_steps | self._outbox.steps

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is recorded in the block is on disk when the block ends, not earlier: one wait for the disk, not many.

        An error in the block leaves recorded what was recorded before it.
        """
        if self._gathered is not None:
            raise RuntimeError("together() does not go into itself")
        self._gathered = []
        try:
            yield
        finally:
            gathered, self._gathered = self._gathered, None
            if gathered:
                self._sender.append(self._outbox, gathered)

    def log_params(self, values: Mapping[str, Scalar]) -> None:
        """Under their dotted names, written as in YAML. MLflow takes one value a name, for good."""
        self._append("params", values={name: self._text(value) for name, value in values.items()})

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """All at once. `step` is the epoch; without one they stand at 0 in MLflow."""
        self._append("metrics", values={name: float(value) for name, value in values.items()}, step=step)

    def set_tags(self, values: Mapping[str, Scalar]) -> None:
        self._append("tags", values={name: self._text(value) for name, value in values.items()})

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """As an artifact, into the run's `folder`. The file is copied: it may change or go afterwards."""
        copy = self._outbox.new_folder() / path.name
        shutil.copyfile(path, copy)
        self._log(copy, folder)

    def log_text(self, text: str, name: str) -> None:
        """As the artifact `name`, which may hold folders: `notes/name.txt`."""
        self.log_bytes(self._text(text).encode(), name)

    def log_bytes(self, content: bytes, name: str) -> None:
        """As the artifact `name`, which may hold folders: `plots/curves.png`."""
        path = PurePosixPath(name)
        file = self._outbox.new_folder() / path.name
        file.write_bytes(content)
        self._log(file, None if len(path.parts) == 1 else str(path.parent))

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """As the artifact `name` (.json) that MLflow shows as a table; the columns are of equal length."""
        file = self._outbox.new_folder() / name
        file.write_text(_table(columns), encoding="utf-8")
        self._log(file, None, table=name)

    def log_confusion_matrix(self, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
        """As confusion_matrix.png and as the table confusion_matrix.json; the run's earlier ones are replaced.

        `matrix` has a row an actual class and a column a predicted one, and holds numbers of images.
        """
        from pipeline.tracking import confusion

        folder = self._outbox.new_folder() / "artifacts"
        folder.mkdir()
        (folder / "confusion_matrix.png").write_bytes(confusion.image(matrix, classes))
        table = _table(confusion.columns(matrix, classes))
        (folder / "confusion_matrix.json").write_text(table, encoding="utf-8")
        self._log(folder, None, table="confusion_matrix.json")

    def log_dataset(
        self,
        *,
        name: str,
        digest: str,
        source: str,
        counts: Mapping[str, int],
        shape: Sequence[int],
        classes: int,
        context: str,
    ) -> None:
        """As an input of the run: uint8 images of `shape` (C, H, W) with a label each, `counts` of them by part.

        `context` says what they are used for, such as training. Of `digest` MLflow keeps 36 characters.
        """
        self._append(
            "dataset",
            name=name,
            digest=digest,
            source=self._text(source),
            counts=dict(counts),
            shape=list(shape),
            classes=classes,
            context=context,
        )

    def log_model(self, network: "nn.Module", example: "npt.NDArray[np.uint8]") -> None:
        """As the run's model, with signature and input example, in a format without pickle.

        `network` (on any device, left as it is) takes uint8 pixels [N, C, H, W] and returns logits; `example` are at
        least 2 such images. A network that can't be exported is said to be so, and costs no more.
        """
        from pipeline.exporting import mlflow_model

        folder = self._outbox.new_folder() / "model"
        try:
            mlflow_model.save(network, example, folder)
        except Exception as error:
            shutil.rmtree(folder.parent)
            say(f"The model can't be exported for MLflow, which gets all the rest: {mlflow_model.reason(error)}")
        else:
            self._append("model", path=self._relative(folder))

    def log_saved_model(self, folder: Path) -> None:
        """As the run's model: `folder` is what pipeline.exporter or `tracking.model.save` wrote, and is moved away.

        Once a run, whose later ones MLflow does not get: a process that follows one that was killed may give it again.
        """
        place = self._outbox.new_folder() / "model"
        shutil.move(folder, place)
        self._record(replace(Operation.now("model", path=self._relative(place)), id="saved"))

    def register_model(self, name: str, alias: str) -> None:
        """Makes the run's model a version of the registered model `name`, made if missing, and moves `alias` to it.

        `mlflow.pytorch.load_model(f"models:/{name}@{alias}")` is then this model. To be called after log_model.
        """
        for word, value in (("name", name), ("alias", alias)):
            if not _REGISTERED.fullmatch(value):
                raise ValueError(f"a registered model's {word} must be letters, digits, . _ - and space, got {value!r}")
        self._append("register", name=name, alias=alias)

    def finish(self, ended: str) -> None:
        """Ends the run; nothing more can be recorded unless it is opened again.

        `ended` is finished, diverged, out of memory, crashed, timed out, interrupted or pruned; or paused: then MLflow
        shows the run as scheduled, without an end.
        """
        if ended not in STATUS:
            raise ValueError(f"a run ends as one of {', '.join(STATUS)}, got {ended!r}")
        self._append("finish", ended=ended)
        self.finished = True

    def _log(self, path: Path, folder: str | None, table: str | None = None) -> None:
        """`path` is a file, or a folder for all that is in it; `table` names the one file that MLflow shows as such."""
        for file in path.iterdir() if path.is_dir() else (path,):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        self._append("file", path=self._relative(path), folder=folder, table=table)

    def _append(self, kind: str, **content: Any) -> None:
        self._record(Operation.now(kind, **content))

    def _record(self, operation: Operation) -> None:
        if self.finished:
            raise RuntimeError(f"the run {self.key} is finished: open it again to add to it")
        if self._gathered is None:
            self._sender.append(self._outbox, [operation])
        else:
            self._gathered.append(operation)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._outbox.folder).as_posix()

    def _text(self, value: Scalar) -> str:
        if isinstance(value, str):
            return self._store.redacted(value)
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _table(columns: Mapping[str, Sequence[Any]]) -> str:
    """The JSON that MLflow takes for a table."""
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    # numpy's numbers among others
    return json.dumps({"columns": list(columns), "data": rows}, default=lambda value: value.item())


def is_gone(project: Project) -> bool:
    """Whether the store is a file that is not there: what was recorded in it is lost. Raises TrackingError."""
    database = Store.of(project).database
    return database is not None and not database.exists()
