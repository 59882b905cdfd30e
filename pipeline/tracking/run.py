"""What can be recorded in a run."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.config import Model, Scalar
from pipeline.exporting import trained
from pipeline.outcome import Outcome
from pipeline.records import Meta
from pipeline.tracking.outbox import Operation, Outbox
from pipeline.tracking.parts import Parts
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_REGISTERED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")


class Run:
    """A run in MLflow. Its methods return when the record is on disk, and raise TrackingError if that fails."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox | Parts,
        append: Callable[[Sequence[Operation]], None],
        on_finished: Callable[["Run"], object],
    ) -> None:
        """`append` records operations in `outbox`."""
        self._store, self._outbox, self._append_all, self._on_finished = store, outbox, append, on_finished
        self._batch: list[Operation] | None = None
        self.finished = False

    @property
    def key(self) -> str:
        return self._outbox.key

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Writes the records of the block to disk when the block ends, all with one fsync.

        If the block raises, the records before the error are written all the same. Batches can't be nested.
        """
        if self._batch is not None:
            raise RuntimeError("batch() can't be nested")
        self._batch = []
        try:
            yield
        finally:
            operations, self._batch = self._batch, None
            if operations:
                self._append_all(operations)

    def log_params(self, values: Mapping[str, Scalar]) -> None:
        """Logs params under their dotted names, with values written as in YAML. MLflow keeps a param's first value."""
        self._append("params", values={name: self._text(value) for name, value in values.items()})

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics at one step, the number of the epoch. Without a step MLflow shows them at 0."""
        self._append("metrics", values={name: float(value) for name, value in values.items()}, step=step)

    def set_tags(self, values: Mapping[str, Scalar]) -> None:
        self._append("tags", values={name: self._text(value) for name, value in values.items()})

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Logs a copy of the file as an artifact, in the run's `folder`. The file may change or go afterwards."""
        copy = self._outbox.new_folder() / path.name
        shutil.copyfile(path, copy)
        self._log(copy, folder)

    def log_bytes(self, content: bytes, name: str) -> None:
        """Logs the artifact `name`, which may contain folders: `plots/curves.png`."""
        path = PurePosixPath(name)
        file = self._outbox.new_folder() / path.name
        file.write_bytes(content)
        self._log(file, None if len(path.parts) == 1 else str(path.parent))

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Logs the artifact `name` (.json), which MLflow shows as a table. The columns are of equal length."""
        file = self._outbox.new_folder() / name
        file.write_text(_table(columns), encoding="utf-8")
        self._log(file, None, table=name)

    def log_confusion_matrix(self, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
        """Logs confusion_matrix.png and the table confusion_matrix.json, which replace the run's earlier ones.

        `matrix` holds numbers of images: a row for each actual class, a column for each predicted class.
        """
        from pipeline.tracking import confusion

        folder = self._outbox.new_folder() / "artifacts"
        folder.mkdir()
        (folder / "confusion_matrix.png").write_bytes(confusion.image(matrix, classes))
        table = _table(confusion.columns(matrix, classes))
        (folder / "confusion_matrix.json").write_text(table, encoding="utf-8")
        self._log(folder, None, table="confusion_matrix.json")

    def log_dataset(self, meta: Meta, counts: Mapping[str, int], context: str) -> None:
        """Logs the data set as an input of the run.

        `counts` is the number of images in each part, `context` what they are used for, such as training. MLflow keeps
        36 characters of the digest.
        """
        self._append(
            "dataset",
            name=meta.name,
            digest=meta.digest,
            source=self._text(meta.source),
            counts=dict(counts),
            shape=list(meta.shape),
            classes=len(meta.classes),
            context=context,
        )

    def log_weights(self, weights: Path, meta: Path, model: Model, example: "npt.NDArray[np.uint8]") -> None:
        """Logs the run's model, which who sends the record makes: with signature and input example, without pickle.

        `weights` is a file of pipeline.networks.save, of the network that `model` and the data set of `meta` (a
        meta.json) describe. `example` holds at least 2 images, uint8 [N, C, H, W]. All are copied. If the network can't
        be exported, the tag model.error says why. As of log_saved_model, MLflow gets the first model of a run only.
        """
        folder = self._outbox.new_folder() / "weights"
        trained.keep(folder, weights, meta, model, example)
        self._record(replace(Operation.now("weights", path=self._relative(folder)), id="saved"))

    def log_saved_model(self, folder: Path) -> None:
        """Logs the run's model. `folder` holds an MLflow model, as pipeline.exporting writes it, and is moved away.

        MLflow gets the first one of a run only: a process that resumes the run of a killed one may log it again.
        """
        target = self._outbox.new_folder() / "model"
        shutil.move(folder, target)
        self._record(replace(Operation.now("model", path=self._relative(target)), id="saved"))

    def register_model(self, name: str, alias: str) -> None:
        """Registers the run's model as a version of the registered model `name`, and moves `alias` to that version.

        The registered model is created if it is missing. `mlflow.pytorch.load_model(f"models:/{name}@{alias}")` then
        loads the version. Call it after the model was logged.
        """
        for word, value in (("name", name), ("alias", alias)):
            if not _REGISTERED.fullmatch(value):
                raise ValueError(f"a registered model's {word} must be letters, digits, . _ - and space, got {value!r}")
        self._append("register", name=name, alias=alias)

    def finish(self, outcome: Outcome) -> None:
        """Ends the run. Nothing more can be recorded unless it is opened again.

        A run that is PAUSED has not ended for MLflow, which shows it as scheduled.
        """
        self._append("finish", ended=outcome.value)
        self.finished = True
        self._on_finished(self)

    def _log(self, path: Path, folder: str | None, table: str | None = None) -> None:
        """`path` is a file, or a folder of which all files are logged; `table` names the one that is a table."""
        for file in path.iterdir() if path.is_dir() else (path,):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        self._append("file", path=self._relative(path), folder=folder, table=table)

    def _append(self, kind: str, **content: Any) -> None:
        self._record(Operation.now(kind, **content))

    def _record(self, operation: Operation) -> None:
        if self.finished:
            raise RuntimeError(f"the run {self.key} is finished: open it again to add to it")
        if self._batch is None:
            self._append_all([operation])
        else:
            self._batch.append(operation)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._outbox.folder).as_posix()

    def _text(self, value: Scalar) -> str:
        if isinstance(value, str):
            return self._store.redacted(value)
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _table(columns: Mapping[str, Sequence[Any]]) -> str:
    """The JSON of a table in MLflow's format."""
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    # The values may be numpy's numbers.
    return json.dumps({"columns": list(columns), "data": rows}, default=lambda value: value.item())
