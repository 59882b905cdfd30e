"""The page's pictures of a result as PNG files for MLflow, drawn from the data that the page's script draws.

The script needs a browser, which the machine that trains may lack: docs/decisions/0015. Learning curves and the
confusion matrix have plots.py. All of them are in English, whatever the page's language is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.reporting.plots import FRAME, GRID, INK, LEARNING_RATE, STYLE, TRAINING, VALIDATION, png

Data: TypeAlias = Mapping[str, Any]
QUIET = "#c9d0d7"
ALARM = "#c62828"


def of_result(data: Data) -> dict[str, bytes]:
    """PNG images by name, of `answers.pictures`. One that lacks data is missing."""
    drawn: dict[str, Callable[[Data], bytes]] = {
        "before": accuracies,
        "reliability": reliability,
        "coverage": coverage,
        "slices": slices,
    }
    found = {name: draw(data) for name, draw in drawn.items() if data.get(name)}
    return {"training_speed": speed(data)} | {
        ("accuracies" if name == "before" else name): found[name] for name in found
    }


def accuracies(data: Data) -> bytes:
    """Draws the test accuracy beside that of the last commit and of guessing, each with its 95 % interval."""
    rows = list(data["before"])
    with style.context(["default", STYLE]):
        figure, axes = canvas(6.4, 0.8 + 0.42 * len(rows))
        for place, row in enumerate(rows):
            axes.barh(place, row["accuracy"], 0.5, color=VALIDATION if place == 0 else FRAME)
            low, high = row.get("low", row["accuracy"]), row.get("high", row["accuracy"])
            if "low" in row:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.4, marker="|")
            axes.annotate(f"{row['accuracy']:.2%}", (high, place), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.invert_yaxis()
        as_percent(axes.xaxis, 0, 1.12 * max(row.get("high", row["accuracy"]) for row in rows))
        axes.set_title("Test accuracy, with 95 % intervals")
        return png(figure)


def reliability(data: Data) -> bytes:
    """Draws the accuracy over the confidence, bin by bin, and how many images each bin has."""
    bins = data["reliability"]
    with style.context(["default", STYLE]):
        figure, axes = canvas(4.4, 3.6)
        most = max(one["count"] for one in bins)
        axes.bar(
            [one["from"] for one in bins],
            [0.3 * one["count"] / most for one in bins],
            [one["to"] - one["from"] for one in bins],
            align="edge",
            color=QUIET,
        )
        axes.plot([0, 1], [0, 1], "--", color=FRAME, linewidth=1)
        whiskers(axes, [one["confidence"] for one in bins], bins, VALIDATION)
        axes.set_title("Accuracy over confidence")
        as_percent(axes.xaxis, 0, 1)
        as_percent(axes.yaxis, 0, 1)
        axes.set_xlabel("confidence (columns: images in the bin)")
        axes.set_ylabel("accuracy")
        return png(figure)


def coverage(data: Data) -> bytes:
    """Draws the accuracy on the images that the network is surest of, over their share."""
    points = data["coverage"]
    with style.context(["default", STYLE]):
        figure, axes = canvas(4.4, 3.6)
        heights = [point["accuracy"] for point in points]
        axes.plot([point["coverage"] for point in points], heights, color=VALIDATION, linewidth=2)
        axes.set_title("Accuracy against coverage")
        as_percent(axes.xaxis, 0, 1)
        as_percent(axes.yaxis, min(heights) - 0.01, max(heights) + 0.01)
        axes.set_xlabel("share of the images, the surest first")
        axes.set_ylabel("accuracy on them")
        return png(figure)


def slices(data: Data) -> bytes:
    """Draws the accuracy on fifths of the images by brightness, contrast and sharpness."""
    groups = data["slices"]
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.6 * len(groups) + 0.6, 2.8), layout="constrained")
        for axes, one in zip(figure.subplots(1, len(groups), squeeze=False, sharey=True)[0], groups, strict=True):
            dress(axes)
            parts = one["groups"]
            axes.axhline(data["accuracy"], color=FRAME, linestyle="--", linewidth=1)
            for place, part in enumerate(parts):
                whiskers(axes, [place], [part], TRAINING if part["weak"] else VALIDATION)
            axes.set_xticks([0, len(parts) - 1], one["ends"])
            axes.set_title(one["title"])
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return png(figure)


def speed(data: Data) -> bytes:
    """Draws images per second over the epochs."""
    history = data["history"]
    with style.context(["default", STYLE]):
        figure, axes = canvas(3.6, 2.8)
        numbers = [number if number is not None else np.nan for number in history["images_per_second"]]
        axes.plot(history["epoch"], numbers, ".-", color=LEARNING_RATE)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.set_title("Training speed")
        axes.set_xlabel("epoch")
        axes.set_ylabel("images a second")
        return png(figure)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def as_percent(axis: Any, low: float, high: float) -> None:
    """An axis of shares, 0..1, from `low` to `high`."""
    axis.set_major_formatter(PercentFormatter(1, decimals=1 if high - low < 0.05 else 0))
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(low, high)


def whiskers(axes: Axes, places: Sequence[float], parts: Sequence[Data], colour: str) -> None:
    """Dots at their accuracy with their 95 % interval."""
    heights = np.array([part["accuracy"] for part in parts])
    ends = np.array([[part["low"] for part in parts], [part["high"] for part in parts]])
    axes.errorbar(places, heights, np.abs(ends - heights), fmt="o", markersize=5, color=colour, elinewidth=1.2)
