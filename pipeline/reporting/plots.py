"""The figures of a training as PNG files: learning curves and the confusion matrix.

The same input gives the same bytes, whatever a user's matplotlibrc says. A figure has two pixels per CSS pixel, so that
it is sharp on every screen.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib import font_manager, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline import fonts
from pipeline.reporting.results import Matrix

PANELS = ("accuracy", "loss", "learning_rate")
WITH_COUNTS = 20
"""The most classes for which the cells of a confusion matrix show their counts."""

PIXELS_AN_INCH = 192
INK, FRAME, GRID = "#1b1f24", "#8a929b", "#e3e6e9"
FONT = "DejaVu Sans"  # ships inside matplotlib, so that a figure does not depend on the machine's fonts
STYLE = {
    "font.family": FONT,
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FRAME,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#4b535c",
    "ytick.color": "#4b535c",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
# Blue, vermillion and bluish green of Okabe and Ito (2008), which colour-blind people can tell apart.
VALIDATION, TRAINING, LEARNING_RATE = "#0072B2", "#D55E00", "#009E73"
ROUND_STEPS = [1, 2, 5, 10]


def learning_curves(history: Mapping[str, Sequence[float]], panels: Sequence[str] = PANELS) -> bytes:
    """Draws `panels` side by side over the epochs. `history` holds the columns of history.csv."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(3.6 * len(panels), 2.8), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            if panel == "learning_rate":
                _draw_learning_rate(axes, history)
            else:
                _draw_training_and_validation(axes, history, panel)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=ROUND_STEPS))
            axes.yaxis.set_major_locator(MaxNLocator(7, steps=ROUND_STEPS))
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        return png(figure)


def confusion_matrix(counts: Matrix, classes: Sequence[str]) -> bytes:
    """Draws int64 [classes, classes], one row per actual class. Colours are shares of the row, cells show counts."""
    number = len(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = _cell_inches(number)
    side = number * cell
    # The square root lets a share of 1 % be seen beside one of 95 %.
    norm, colours = PowerNorm(0.5, 0, 1), "Blues"
    with style.context(["default", STYLE]):
        # The matrix fills the figure; labels and colour bar stand outside it, and saving cuts to what is drawn.
        figure = Figure(figsize=(side, side))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(shares, cmap=colours, norm=norm, interpolation="none")
        # Lines between the cells lead the eye from a label to its row; thick ones would hide tiny cells.
        axes.set_xticks(np.arange(1, number) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, number) - 0.5, minor=True)
        axes.grid(which="minor", color=GRID, linewidth=1 if number <= WITH_COUNTS else 0.4)
        axes.tick_params(which="both", length=0)
        if number <= WITH_COUNTS:
            for row, column in zip(*np.nonzero(counts), strict=True):
                ink = "white" if shares[row, column] > 0.36 else INK  # as the colour turns dark
                text = f"{counts[row, column]:,}"
                axes.text(column, row, text, ha="center", va="center", fontsize=_font_size(cell / 2), color=ink)
        _name_classes(axes, classes, cell)
        title = max(10, min(13, 1.2 * side))
        axes.set_ylabel("actual class", fontsize=title, fontweight="bold", labelpad=8)
        axes.set_xlabel("predicted class", fontsize=title, fontweight="bold", labelpad=8)
        height = min(side, 5) / side
        _draw_scale(figure.add_axes((1 + 0.2 / side, 1 - height, 0.16 / side, height)), ScalarMappable(norm, colours))
        return png(figure, bbox="tight")


def _draw_learning_rate(axes: Axes, history: Mapping[str, Sequence[float]]) -> None:
    axes.plot(history["epoch"], history["learning_rate"], _mark(history) + "-", color=LEARNING_RATE)
    axes.set_title("Learning rate")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def _draw_training_and_validation(axes: Axes, history: Mapping[str, Sequence[float]], figure: str) -> None:
    """`figure` is accuracy or loss."""
    scale = 100 if figure == "accuracy" else 1
    for part, colour, line in (("training", TRAINING, "--"), ("validation", VALIDATION, "-")):
        values = scale * np.asarray(history[f"{part}_{figure}"])
        axes.plot(history["epoch"], values, _mark(history) + line, color=colour, label=part)
    axes.set_title(figure.capitalize())
    axes.set_ylabel("accuracy (%)" if figure == "accuracy" else "cross-entropy (nats)")
    legend = axes.legend(
        loc="lower right", bbox_to_anchor=(1.03, 0.98), ncols=2, frameon=False, handlelength=2.4, columnspacing=1
    )
    # It stands beside the title; with it in the layout, panels without a legend would be taller.
    legend.set_in_layout(False)


def _mark(history: Mapping[str, Sequence[float]]) -> str:
    """A dot per epoch where there are few: a single epoch draws no line."""
    return "." if len(history["epoch"]) <= 30 else ""


def _name_classes(axes: Axes, classes: Sequence[str], cell: float) -> None:
    """Labels rows and columns. A label that is wider than its column is slanted; `cell` is the width in inches."""
    step = math.ceil(len(classes) / 120)
    size = _font_size(step * cell)
    shown = range(0, len(classes), step)
    file = _font_file(classes)
    labels = [_label(classes[index], index, file) for index in shown]
    font = font_manager.FontProperties(family=FONT, fname=file, size=size)
    axes.set_yticks(shown, labels, fontproperties=font)
    axes.set_xticks(shown, labels, fontproperties=font)
    letter = 0.65 * size / 72
    for text in axes.get_xticklabels():
        if len(classes) > WITH_COUNTS:
            text.set(rotation=90)
        elif letter * max(map(len, labels)) > cell:
            text.set(rotation=45, ha="right", rotation_mode="anchor")


def _draw_scale(axes: Axes, colours: ScalarMappable) -> None:
    shares = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1]
    bar = axes.figure.colorbar(colours, cax=axes, ticks=shares)
    bar.minorticks_off()
    bar.set_ticklabels([f"{100 * share:g}" for share in shares], fontsize=8)
    bar.set_label("share of the actual class (%)", fontsize=9)


def _cell_inches(number: int) -> float:
    """Side of a cell. Labels stay legible up to about a hundred classes."""
    if number <= WITH_COUNTS:
        return min(1.2, max(0.42, 6 / number))
    return min(0.42, max(0.125, 9 / number), 15 / number)


def _font_size(inches: float) -> float:
    """The font size in points that fits a height, 10 at most."""
    return min(10, 0.75 * 72 * inches)


def _font_file(classes: Sequence[str]) -> str | None:
    """The file of an installed font for class names that FONT lacks letters of; None for FONT."""
    letters = frozenset("".join(classes)) - set("\n\t")
    charmap = font_manager.get_font(font_manager.findfont(FONT)).get_charmap()
    return None if all(ord(letter) in charmap for letter in letters) else fonts.covering(letters)


def _label(name: str, index: int, file: str | None) -> str:
    """A class name, shortened to 24 letters, or the number of the class where the font lacks a letter of the name."""
    name = " ".join(name.split())
    charmap = font_manager.get_font(file or font_manager.findfont(FONT)).get_charmap()
    if any(ord(letter) not in charmap for letter in name):
        return f"class {index}"
    return name if len(name) <= 24 else name[:23] + "…"


def png(figure: Figure, bbox: Literal["tight"] | None = None) -> bytes:
    """The figure as a PNG file. With `bbox` tight it is cut to what is drawn."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # matplotlib's version is no part of the image.
    metadata = {"Software": None}
    figure.savefig(buffer, format="png", dpi=PIXELS_AN_INCH, metadata=metadata, bbox_inches=bbox, pad_inches=0.1)
    return buffer.getvalue()
