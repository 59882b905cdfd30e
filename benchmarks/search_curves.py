"""Learning curves on which benchmarks/search.py compares search methods.

LCBench    34 tasks: a surrogate predicts the curve of any configuration
TaskSet    text classifiers, each with 1,000 settings of its optimiser: only those exist
tables     benchmarks/curves/*.csv, trained by this project (curves.py): only their rows exist

Where only some configurations exist, whatever a method proposes becomes the nearest one that was not tried. A method
that knows the space draws its candidates from them.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline import config
from pipeline.config import Axis, Range, Scalar
from pipeline.config.axes import AnyAxis
from pipeline.errors import DataError
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values

Floats = NDArray[np.float64]

TABLES = Path(__file__).parent / "curves"
DEVELOPMENT = (
    *("126026", "146212", "167149", "167161", "167181", "167185", "167200", "168329", "168331", "168868", "168910"),
    *("189862", "189866", "189905", "189908", "34539", "7593"),
)
"""Of LCBench."""
EPOCHS = 52
"""Of LCBench."""
AXES = {
    "batch_size": Range(low=16, high=512, log=True, when={}),
    "learning_rate": Range(low=1e-4, high=1e-1, log=True, when={}),
    "momentum": Range(low=0.1, high=0.99, when={}),
    "weight_decay": Range(low=1e-5, high=1e-1, log=True, when={}),
    "num_layers": Range(low=1, high=5, when={}),
    "max_units": Range(low=64, high=1024, log=True, when={}),
    "max_dropout": Range(low=0.0, high=1.0, when={}),
}
"""Of LCBench, in the order of the surrogate's inputs, after the epoch."""


class Task(Protocol):
    """A network on a data set: what a search may try, and the learning curve of each configuration."""

    name: str
    epochs: int
    """Of a full training."""

    @property
    def best(self) -> float:
        """The accuracy of the best configuration known, 0..1: a regret of 0."""
        ...

    @property
    def median(self) -> float:
        """Of a random configuration: a regret of 1."""
        ...

    def space(self, seed: int) -> Space:
        """What a search of this seed searches; its `fixed` is the configuration of trial 0."""
        ...

    def curve(self, values: Values) -> Floats:
        """Validation accuracy, 0..1, [epochs]; shorter if the training diverged."""
        ...


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The learning curves of LCBench."""

    session: Any
    numbers: Mapping[str, int]
    """Of the tasks."""

    @classmethod
    def load(cls, folder: Path) -> "Surrogate":
        """From a folder with lcbench/model.onnx. Raises DataError."""
        try:
            import onnxruntime
        except ImportError:
            raise DataError('The learning curves need onnxruntime: pip install -e ".[bench]"') from None
        found = folder / "lcbench"
        if not (found / "model.onnx").is_file():
            raise DataError(f"There is no lcbench/model.onnx in {folder}.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                str(found / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            numbers = json.loads((found / "encoding.json").read_text())["OpenML_task_id"]
            # The encoding has one more task, on which the surrogate was not trained.
            keys = json.loads((found / "config_space.json").read_text())["hyperparameters"]
            tasks = next(key["choices"] for key in keys if key["name"] == "OpenML_task_id")
            return cls(session, {task: numbers[task] for task in tasks})
        except Exception as error:
            raise DataError(f"{found} can't be read: {error}") from error

    def curves(self, task: str, many: Sequence[Values]) -> Floats:
        """Validation accuracy, 0..1, [n, 52]."""
        values = np.array([[configuration[name] for name in AXES] for configuration in many], dtype=np.float32)
        epochs = np.tile(np.arange(1, EPOCHS + 1, dtype=np.float32), len(many))
        inputs = {
            "x_cat": np.full((len(epochs), 1), self.numbers[task], dtype=np.int32),
            "x_cont": np.column_stack([epochs, np.repeat(values, EPOCHS, axis=0)]),
        }
        outputs: Floats = self.session.run(None, inputs)[0]
        accuracies: Floats = outputs[:, 1].reshape(len(many), EPOCHS).astype(np.float64) / 100
        return accuracies


@dataclass
class SurrogateTask:
    """A task of LCBench. `best` is that of 1,500 random configurations, `median` that of 300."""

    name: str
    surrogate: Surrogate
    epochs: int = EPOCHS

    def space(self, seed: int) -> Space:
        # There is no params.yaml with values of its own: the first spread configuration takes their place.
        (first,) = Space(AXES, {name: axis.low for name, axis in AXES.items()}).spread(1, seed)
        return Space(AXES, first)

    def curve(self, values: Values) -> Floats:
        curve: Floats = self.surrogate.curves(self.name, [values])[0]
        return curve

    @cached_property
    def _ends(self) -> tuple[float, float]:
        generator, space = np.random.default_rng(0), self.space(0)
        best = self.surrogate.curves(self.name, space.random(generator, 1_500))[:, -1].max()
        return float(best), float(np.median(self.surrogate.curves(self.name, space.random(generator, 300))[:, -1]))

    @property
    def best(self) -> float:
        return self._ends[0]

    @property
    def median(self) -> float:
        return self._ends[1]


@dataclass(frozen=True)
class PoolSpace(Space):
    """A space of which only some configurations exist."""

    rows: Sequence[Values] = ()
    _encoded: Floats = field(init=False, repr=False, compare=False, default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_encoded", super().encode(self.rows))

    @property
    def size(self) -> int:
        return len(self.rows)

    def every(self) -> Iterator[dict[str, Scalar]]:
        return (dict(row) for row in self.rows)

    def nearest(self, many: Sequence[Values]) -> list[dict[str, Scalar]]:
        """The rows nearest to configurations, on the scales of the space."""
        features = self.encode(many)
        squares = (features**2).sum(1)[:, None] + (self._encoded**2).sum(1)[None] - 2 * features @ self._encoded.T
        return [dict(self.rows[index]) for index in squares.argmin(1).tolist()]

    def snapped(self, values: Values) -> dict[str, Scalar]:
        return self.nearest([values])[0]

    def random(self, generator: np.random.Generator, count: int) -> list[dict[str, Scalar]]:
        return [dict(self.rows[index]) for index in generator.integers(len(self.rows), size=count).tolist()]

    def spread(self, count: int, seed: int) -> list[dict[str, Scalar]]:
        return self.nearest(super().spread(count, seed)) if count else []

    def mutated(
        self, values: Values, generator: np.random.Generator, count: int, *, share: float = 0.5, sd: float = 0.15
    ) -> list[dict[str, Scalar]]:
        return self.nearest(super().mutated(values, generator, count, share=share, sd=sd))


@dataclass
class Pool:
    """A task of which some configurations were trained. `best` and `median` are those of its rows."""

    name: str
    axes: Mapping[str, Axis]
    rows: Sequence[Values]
    curves: Sequence[Floats]
    """Of each row; one that is shorter than a full training diverged."""
    epochs: int
    own: Values | None = None
    """The configuration of trial 0, and what inactive keys have; None: another one for each seed."""

    def __post_init__(self) -> None:
        # One that diverged has no final accuracy: it counts as nothing.
        ends = np.array([curve[-1] if len(curve) == self.epochs else 0.0 for curve in self.curves])
        self.best, self.median = float(ends.max()), float(np.median(ends))
        self._curves = {_key(row): curve for row, curve in zip(self.rows, self.curves, strict=True)}

    def space(self, seed: int) -> PoolSpace:
        space = PoolSpace(self.axes, self.own or self.rows[0], self.rows)
        return space if self.own else PoolSpace(self.axes, space.spread(1, seed)[0], self.rows)

    def curve(self, values: Values) -> Floats:
        return self._curves[_key(values)]


def _key(values: Values) -> tuple[tuple[str, Scalar], ...]:
    return tuple(values.items())


def _parsed(text: str, axis: Axis) -> Scalar:
    value: Scalar = config.parse_value(text, "a table")
    return float(text) if isinstance(axis, Range) and isinstance(axis.low, float) else value


def taskset(path: Path) -> Pool:
    """A task of TaskSet (Metz et al. 2020), as prepared for DyHPO. Raises DataError.

    Accuracy is 1 - loss, at least 0. A loss of 2 and more, or none, counts as the worst one below 2.
    """
    try:
        with np.load(path) as file:
            names, values, losses = file["names"].tolist(), file["values"], file["validation_loss"].astype(np.float64)
    except Exception as error:
        raise DataError(f"{path} can't be read: {error}") from error
    bounded = np.where(np.isfinite(losses) & (losses < 2), losses, np.nan)
    accuracies = np.clip(1 - np.where(np.isnan(bounded), np.nanmax(bounded), bounded), 0, 1)
    axes = {
        name: Range(low=float(column.min()), high=float(column.max()), log=not name.startswith("beta"), when={})
        for name, column in zip(names, values.T, strict=True)
    }
    space = Space(axes, dict.fromkeys(axes, 0.5))
    rows = [space.snapped(dict(zip(names, row, strict=True))) for row in values.tolist()]
    return Pool(path.stem, axes, rows, list(accuracies), accuracies.shape[1])


def table(path: Path, space: Mapping[str, Any]) -> Pool:
    """A table of curves.py. Its first row has params.yaml's own values."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    epochs = [name for name in lines[0] if re.fullmatch(r"epoch_\d+", name)]
    axes: dict[str, Axis] = TypeAdapter(dict[str, AnyAxis]).validate_python(space)
    parsed = [{key: _parsed(line[key], axis) for key, axis in axes.items() if line[key]} for line in lines]
    own = {key: axis.low if isinstance(axis, Range) else axis.choices[0] for key, axis in axes.items()} | parsed[0]
    snapping = Space(axes, own)
    rows, curves = [], []
    for values, line in zip(parsed, lines, strict=True):
        row = snapping.snapped(values)
        if row not in rows:
            rows.append(row)
            curves.append(np.array([float(line[name]) for name in epochs if line[name]]))
    return Pool(path.stem, axes, rows, curves, len(epochs), own=own)
