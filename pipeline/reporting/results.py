"""The result files of a training, its evaluation and of grids, read and checked."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline import records
from pipeline.datasets import fingerprint
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.records import Epoch, Metrics, RunRecord
from pipeline.reporting import slices
from pipeline.reporting.certainty import Predictions

Matrix: TypeAlias = npt.NDArray[np.int64]

COLUMNS = tuple("epoch" if field.name == "number" else field.name for field in fields(Epoch))
"""Of history.csv."""
GRID_FIGURES = ("parameters", "macs", "epochs", "training_error", "validation_error", "test_error", "elapsed_s")


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class; `number` is its label, 0 for the first class."""

    number: int
    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """`count` of the `support` test images of the class `actual` were predicted as `predicted`."""

    actual: str
    predicted: str
    count: int
    support: int


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified test image: uint8 [H, W, 1 or 3], its index in the test set, and the prediction."""

    pixels: npt.NDArray[np.uint8]
    index: int
    actual: str
    predicted: str
    confidence: float
    of_actual: float | None = None
    """The probability of the actual class; None of an earlier version."""


@dataclass(frozen=True)
class GridTrial:
    """A network of a grid. Errors are shares, 0..1, after the last epoch."""

    number: int
    ended: str
    values: Sequence[str]
    """Of the keys that the grid varies."""
    figures: Mapping[str, float | None]
    """See GRID_FIGURES; None where the training failed before."""


@dataclass(frozen=True)
class Grid:
    """The results of `python -m pipeline.study NAME`."""

    name: str
    keys: Sequence[str]
    """Dotted names of what it varies."""
    trials: Sequence[GridTrial]
    figure: bytes | None
    """PNG."""


@dataclass(frozen=True)
class Results:
    """The results of a training and its evaluation, with those of grids."""

    run: RunRecord
    history: Mapping[str, Sequence[float]]
    """By column, see COLUMNS; one value per epoch."""
    metrics: Metrics
    confusion: Matrix
    """int64 [classes, classes], one row per actual class, one column per predicted class."""
    per_class: Sequence[ClassScore]
    mistakes: Sequence[Mistake]
    """The most certain one first."""
    grids: Sequence[Grid]
    source_change: str | None = None
    """A sentence if the folder or archive of the data has changed since the download."""
    predictions: Predictions | None = None
    """Of the test images. None: results of an earlier version, or a clone without DVC's files; `suspects` and
    `appearance` likewise."""
    suspects: Sequence[Mistake] | None = None
    """Images whose label is probably wrong, the most probable one first."""
    appearance: Mapping[str, npt.NDArray[np.float64]] | None = None
    """Brightness, contrast and sharpness of the test images."""

    @property
    def classes(self) -> list[str]:
        return [score.name for score in self.per_class]

    @property
    def test_images(self) -> int:
        """Test images."""
        return int(self.confusion.sum())

    @property
    def wrong(self) -> int:
        """Wrongly classified test images."""
        return int(self.confusion.sum() - self.confusion.trace())

    @property
    def most_frequent(self) -> float:
        """Share of the most frequent class among the test images."""
        return float(self.confusion.sum(axis=1).max() / self.confusion.sum())

    def most_confused(self, number: int) -> list[Confusion]:
        """At most `number` pairs of classes, the most frequently confused one first."""
        wrong = self.confusion * (1 - np.eye(len(self.per_class), dtype=np.int64))
        pairs = [divmod(int(place), len(wrong)) for place in np.argsort(-wrong, axis=None, kind="stable")[:number]]
        return [
            Confusion(self.per_class[row].name, self.per_class[column].name, int(wrong[row, column]), int(total))
            for (row, column), total in ((pair, self.confusion[pair[0]].sum()) for pair in pairs)
            if wrong[row, column] > 0
        ]


def read(project: Project) -> Results:
    """Reads and checks the result files. Raises PipelineError, which names the one that is missing or damaged."""
    run = records.read(RunRecord, project.run, stage="train")
    with _reading(project.history):
        rows = _table(project.history, COLUMNS)
        history = {column: [float(row[column]) for row in rows] for column in COLUMNS}
    metrics = records.read(Metrics, project.metrics, stage="evaluate")
    with _reading(project.per_class):
        per_class = [
            ClassScore(
                number,
                row["class"],
                float(row["precision"]),
                float(row["recall"]),
                float(row["f1"]),
                int(row["support"]),
            )
            for number, row in enumerate(_table(project.per_class, ("class", "precision", "recall", "f1", "support")))
        ]
        classes = [score.name for score in per_class]
        if tuple(classes) != run.data.classes:
            raise ValueError(f"its classes are not those of {project.run.name}")
    with _reading(project.confusion_matrix):
        confusion = _confusion(project.confusion_matrix, classes)
    mistakes = read_mistakes(project.mistakes, classes)
    predictions, suspects, appearance = _beside(project, classes, int(confusion.sum()))
    return Results(
        run=run,
        history=history,
        metrics=metrics,
        confusion=confusion,
        per_class=per_class,
        mistakes=mistakes,
        grids=_grids(project),
        source_change=fingerprint.change(project, run.data),
        predictions=predictions,
        suspects=suspects,
        appearance=appearance,
    )


def _beside(
    project: Project, classes: Sequence[str], images: int
) -> tuple[Predictions | None, list[Mistake] | None, dict[str, npt.NDArray[np.float64]] | None]:
    """What the page can do without: predictions, suspects, appearance; None for a file that is missing."""
    predictions = suspects = appearance = None
    if project.predictions.exists():
        predictions = read_predictions(project.predictions, classes)
        with _reading(project.predictions):
            if len(predictions.actual) != images:
                raise ValueError(f"it has {len(predictions.actual)} rows for {images} test images")
    if project.suspects.exists():
        with _reading(project.suspects):
            suspects = _mistakes(project.suspects, classes)
    if project.appearance.exists():
        with _reading(project.appearance):
            columns = list(slices.ENDS)
            rows = _table(project.appearance, columns)
            if len(rows) != images:
                raise ValueError(f"it has {len(rows)} rows for {images} test images")
            appearance = {name: np.array([float(row[name]) for row in rows]) for name in columns}
    return predictions, suspects, appearance


def read_predictions(path: Path, classes: Sequence[str]) -> Predictions:
    """Raises PipelineError if the file is missing or damaged, or has other classes."""
    number = {name: place for place, name in enumerate(classes)}
    with _reading(path):
        rows = _table(path, ("actual", "predicted", "confidence"))
        if unknown := {row[key] for row in rows for key in ("actual", "predicted")} - set(number):
            raise ValueError(f"{sorted(unknown)[0]!r} is not a class of the data set")
        return Predictions(
            np.array([number[row["actual"]] for row in rows]),
            np.array([number[row["predicted"]] for row in rows]),
            np.array([float(row["confidence"]) for row in rows]),
        )


def read_mistakes(path: Path, classes: Sequence[str]) -> list[Mistake]:
    """Raises PipelineError if the file is missing or damaged."""
    with _reading(path):
        return _mistakes(path, classes)


@contextmanager
def _reading(path: Path, command: str = "dvc repro") -> Iterator[None]:
    """Turns errors in the block into a PipelineError that names the file `path` and the `command` that writes it."""
    try:
        yield
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `{command}`, which writes it.") from error
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise PipelineError(f"{path} is damaged ({error}): run `{command}`, which writes it again.") from error


def _grids(project: Project) -> list[Grid]:
    """All grids that have a table in results/study, by name."""
    found = []
    for table in sorted(project.grids.glob("*/results.csv")):
        name = table.parent.name
        with _reading(table, f"python -m pipeline.study {name}"):
            rows = _table(table, ("trial", "ended", *GRID_FIGURES))
            keys = [column for column in rows[0] if column and "." in column]
            trials = [
                GridTrial(
                    int(row["trial"]),
                    row["ended"],
                    [row[key] for key in keys],
                    {figure: float(row[figure]) if row[figure] else None for figure in GRID_FIGURES},
                )
                for row in rows
            ]
        image = project.grid_figure(name)
        found.append(Grid(name, keys, trials, image.read_bytes() if image.exists() else None))
    return found


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file, each with a value for each of `columns`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    if not rows:
        raise ValueError("it has no rows")
    for column in columns:
        if any(row.get(column) is None for row in rows):
            raise ValueError(f"values of the column {column} are not in it")
    return rows


def _confusion(path: Path, classes: Sequence[str]) -> Matrix:
    # By position: a class may have the name of the first column.
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file, strict=True)) or [[]]
    if header[1:] != classes or [row[0] for row in rows if row] != classes:
        raise ValueError("its rows and columns are not the classes of the data set")
    confusion = np.array([[int(cell) for cell in row[1:]] for row in rows], dtype=np.int64)
    if confusion.shape != (len(classes), len(classes)) or confusion.min() < 0 or not confusion.any():
        raise ValueError("it does not hold counts of test images")
    return confusion


def _mistakes(path: Path, classes: Sequence[str]) -> list[Mistake]:
    names = ("images", "index", "actual", "predicted", "confidence")
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                images, index, actual, predicted, confidence = (arrays[name] for name in names)
                # Those of an earlier version don't have it.
                chances = arrays["of_actual"].tolist() if "of_actual" in arrays else [None] * len(index)
        except Exception as error:  # numpy, zipfile and zlib each have their own
            raise ValueError(f"its arrays can't be read: {error}") from error
    if len(images) and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3)):
        raise ValueError(f"images are {images.dtype} {list(images.shape)} in place of uint8 [M, H, W, 1 or 3]")
    if any(numbers.size and not 0 <= numbers.min() <= numbers.max() < len(classes) for numbers in (actual, predicted)):
        raise ValueError(f"it has numbers of classes outside 0 to {len(classes) - 1}")
    return [
        Mistake(pixels, int(place), classes[label], classes[guess], float(certainty), chance)
        for pixels, place, label, guess, certainty, chance in zip(
            images, index, actual, predicted, confidence, chances, strict=True
        )
    ]
