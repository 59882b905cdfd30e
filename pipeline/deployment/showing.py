"""Predictions as a table, which is out at the end, or as JSON or CSV, whose lines are out as soon as they are known."""

import csv
import json
import sys
from collections.abc import Sequence
from typing import IO, Protocol

from pipeline.deployment.predicting import Prediction


class Display(Protocol):
    """Shows predictions one after another."""

    def add(self, prediction: Prediction, explained: str | None) -> None: ...

    def close(self) -> None: ...


class Lines:
    """JSON: an array with an object an image."""

    def __init__(self, out: IO[str], classes: Sequence[str], top: int) -> None:
        self._out, self._classes, self._top = out, classes, top
        self._before = "[\n"

    def add(self, prediction: Prediction, explained: str | None) -> None:
        content = {
            "image": prediction.name,
            "predictions": [
                {"class": self._classes[label], "probability": round(float(prediction.probabilities[label]), 6)}
                for label in prediction.top(self._top)
            ],
        } | ({"explained": explained} if explained else {})
        self._out.write(f"{self._before}  {json.dumps(content, ensure_ascii=False)}")
        self._before = ",\n"

    def close(self) -> None:
        self._out.write("[]\n" if self._before == "[\n" else "\n]\n")


class Columns:
    """CSV: a row for each image and class."""

    def __init__(self, out: IO[str], classes: Sequence[str], top: int) -> None:
        self._classes, self._top = classes, top
        self._writer = csv.writer(out, lineterminator="\n")
        self._writer.writerow(["image", "rank", "class", "probability"])

    def add(self, prediction: Prediction, explained: str | None) -> None:
        for rank, label in enumerate(prediction.top(self._top), start=1):
            probability = f"{prediction.probabilities[label]:.6f}"
            self._writer.writerow([prediction.name, rank, self._classes[label], probability])

    def close(self) -> None:
        pass


class Rows:
    """A table for people."""

    def __init__(self, out: IO[str], classes: Sequence[str], top: int) -> None:
        from rich.console import Console
        from rich.table import Table

        self._classes, self._top = classes, top
        self._console = Console(file=out, markup=False, width=None if out.isatty() else 160)
        self._table = Table("image", *(f"{place}." for place in range(1, top + 1)), box=None, pad_edge=False)

    def add(self, prediction: Prediction, explained: str | None) -> None:
        self._table.add_row(
            prediction.name,
            *(f"{self._classes[label]} {prediction.probabilities[label]:.1%}" for label in prediction.top(self._top)),
        )

    def close(self) -> None:
        if self._table.row_count:
            self._console.print(self._table)


def display(form: str, classes: Sequence[str], top: int, out: IO[str] | None = None) -> Display:
    """`form` is table, json or csv; of each image the `top` most probable classes are shown."""
    kinds: dict[str, type[Rows] | type[Lines] | type[Columns]] = {"table": Rows, "json": Lines, "csv": Columns}
    return kinds[form](out or sys.stdout, classes, min(top, len(classes)))
