"""Figures of a search as PNG files: importances of the keys, parallel coordinates of the configurations.

The same input gives the same bytes, as in plots.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.config import Scalar
from pipeline.reporting.plots import FRAME, INK, ROUND_STEPS, STYLE, TRAINING, VALIDATION, png

MOST_BARS = 20
COLOURS = "viridis_r"  # from light to dark, so that it works without the hues
BEST = TRAINING  # vermillion, which is not on that scale
OFF = -0.14
"""Height of configurations without the key, below the axis from 0 to 1."""


@dataclass(frozen=True)
class Coordinate:
    """One of the parallel axes."""

    name: str
    log: bool = False
    choices: Sequence[Scalar] | None = None
    """Its values at equal distances, for choices and ranges with steps; None for a scale of numbers."""


@dataclass(frozen=True)
class Line:
    """A trial as a line across the parallel axes."""

    values: Mapping[str, Scalar]
    """Of the keys that the configuration has."""
    accuracy: float
    """0..1."""


def importances(scores: Mapping[str, float]) -> bytes:
    """Draws one bar per key, the longest first. `scores` are shares that add up to 1."""
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:MOST_BARS]
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(6.4, 0.7 + 0.3 * max(1, len(ranked))), layout="constrained")
        axes = figure.subplots()
        shares = [100 * share for _, share in ranked]
        bars = axes.barh([name for name, _ in ranked], shares, color=VALIDATION, height=0.66)
        axes.bar_label(bars, [f"{share:.0f} %" if share >= 0.5 else "< 1 %" for share in shares], padding=4)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max([*shares, 1]))
        axes.set_title("What mattered: share of the differences in accuracy")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        return png(figure)


def parallel_coordinates(lines: Sequence[Line], coordinates: Sequence[Coordinate]) -> bytes:
    """Draws one axis per key and one line per trial, coloured by accuracy. The best line is thick."""
    ranked = sorted(lines, key=lambda line: line.accuracy)
    accuracies = np.array([100 * line.accuracy for line in ranked] or [0.0])
    # The worst quarter shares one colour, so that the scale shows the differences among the others.
    low = float(np.quantile(accuracies, 0.25))
    norm = Normalize(min(low, accuracies[-1] - 0.1), accuracies[-1])
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(1.5 + 1.35 * max(2, len(coordinates)), 4.2), layout="constrained")
        axes = figure.subplots()
        is_few = len(ranked) <= 150
        heights = np.column_stack([_heights(axis, ranked) for axis in coordinates])
        places = np.broadcast_to(np.arange(float(len(coordinates))), heights.shape)
        if ranked:
            others = len(ranked) - 1
            axes.add_collection(
                LineCollection(
                    list(np.dstack([places, heights])),
                    colors=[*colormaps[COLOURS](norm(accuracies[:-1])), BEST],
                    linewidths=[1.1 if is_few else 0.6] * others + [3.2],
                    alpha=[0.85 if is_few else 0.3] * others + [1],
                    zorder=2,
                )
            )
        has_off = False
        for number, axis in enumerate(coordinates):
            is_partial = any(axis.name not in line.values for line in lines)
            has_off |= is_partial
            _draw_axis(axes, number, axis, _span(axis, lines), is_partial=is_partial)
        axes.set_xlim(-0.6, len(coordinates) - 0.75)
        axes.set_ylim(OFF - 0.06 if has_off else -0.06, 1.06)
        axes.set_axis_off()
        bar = figure.colorbar(
            ScalarMappable(norm, COLOURS),
            ax=axes,
            extend="min" if accuracies[0] < low else "neither",
            shrink=0.85,
            pad=0.01,
        )
        bar.outline.set_edgecolor(FRAME)
        bar.set_label("validation accuracy (%); the best is orange")
        return png(figure)


def _span(axis: Coordinate, lines: Sequence[Line]) -> tuple[float, float]:
    """The lowest and the highest number on an axis, or their logarithms."""
    numbers = [_number(axis, line.values[axis.name]) for line in lines if axis.name in line.values]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _number(axis: Coordinate, value: Scalar) -> float:
    if axis.choices is not None:
        return axis.choices.index(value)
    assert isinstance(value, int | float)
    return math.log10(value) if axis.log else value


def _heights(axis: Coordinate, ranked: Sequence[Line]) -> "np.typing.NDArray[np.float64]":
    """The height of each line on this axis: 0..1, or OFF. Lines of one choice fan out a little, the best on top."""
    low, high = _span(axis, ranked) if axis.choices is None else _span_of_choices(axis.choices)
    fan = np.linspace(-0.025, 0.025, max(1, len(ranked)))
    return np.array(
        [
            (_number(axis, line.values[axis.name]) - low) / (high - low)
            + (fan[rank] if axis.choices is not None else 0)
            if axis.name in line.values
            else OFF + fan[rank]
            for rank, line in enumerate(ranked)
        ]
    )


def _span_of_choices(choices: Sequence[Scalar]) -> tuple[float, float]:
    return (0.0, len(choices) - 1.0) if len(choices) > 1 else (-0.5, 0.5)


def _draw_axis(axes: Axes, number: int, axis: Coordinate, span: tuple[float, float], *, is_partial: bool) -> None:
    axes.plot([number, number], [0, 1], color=INK, linewidth=1, zorder=3)
    section, _, key = axis.name.rpartition(".")
    axes.text(number, 1.09, f"{section}.\n{key}" if section else key, ha="center", va="bottom", fontweight="bold")
    if axis.choices is not None:
        low, high = _span_of_choices(axis.choices)
        ticks = [(float(place), str(choice)) for place, choice in enumerate(axis.choices)]
    else:
        low, high = span
        ticks = [(math.log10(tick) if axis.log else tick, f"{tick:g}") for tick in _ticks(axis, low, high)]
    marks = [((place - low) / (high - low), name) for place, name in ticks]
    for height, name in [*marks, *([(OFF, "not used")] if is_partial else [])]:
        axes.plot([number - 0.025, number], [height, height], color=INK, linewidth=1, zorder=3)
        axes.text(
            number - 0.05,
            height,
            name,
            ha="right",
            va="center",
            fontsize=8,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )


def _ticks(axis: Coordinate, low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`. On a log scale these are 1, 2 and 5 times powers of ten, or the powers."""
    if not axis.log:
        return [tick for tick in MaxNLocator(6, steps=ROUND_STEPS).tick_values(low, high) if low <= tick <= high]
    powers = range(math.floor(low), math.ceil(high) + 1)
    factors = (1, 2, 5) if high - low < 3 else (1,)
    return [tick for power in powers for tick in (f * 10.0**power for f in factors) if low <= math.log10(tick) <= high]
