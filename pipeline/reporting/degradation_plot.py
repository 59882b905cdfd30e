"""The figure of a grid over depths as a PNG file, after figures 1 and 6 of He et al. 2015 (arXiv 1512.03385).

The left panels show the error over the epochs: one panel per kind of network, one colour per depth. The right panel
shows the error after the last epoch over depth. Training error is thin and dashed, validation and test error are bold.
Where both rise with depth, the cause is not overfitting but degradation. The same input gives the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.reporting.plots import GRID, INK, LEARNING_RATE, ROUND_STEPS, STYLE, TRAINING, VALIDATION, png

MOST_KINDS = 4
"""With more panels or colours the figure is not legible."""
# Of Okabe and Ito (2008), which colour-blind people can tell apart.
KINDS = (TRAINING, VALIDATION, LEARNING_RATE, "#CC79A7")
THIN: Mapping[str, Any] = {"linewidth": 1.1, "linestyle": (0, (3.5, 1.5))}
BOLD: Mapping[str, Any] = {"linewidth": 2.3, "linestyle": "-"}
_POINTS = 30
"""The most epochs that are drawn as dots on the line: a single epoch draws no line."""

Colours: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Network:
    """A network of the grid with its learning curves. Errors are shares of the images, 0..1."""

    kind: str
    """Its other values, such as resnet."""
    depth: int | None
    """Layers; None where the grid does not vary them."""
    training: Sequence[float]
    """Error after each epoch."""
    validation: Sequence[float]
    """Likewise."""
    test: float | None
    """Error after the last epoch; None where the training failed before."""


def degradation(networks: Sequence[Network]) -> bytes:
    """Draws the figure for at most MOST_KINDS kinds of network, each at several depths or at one."""
    networks = [network for network in networks if network.validation]
    kinds = list(dict.fromkeys(network.kind for network in networks))
    depths = sorted({network.depth for network in networks if network.depth is not None})
    kind_colours = dict(zip(kinds, KINDS, strict=False))
    # The deeper, the darker: legible in print without colours too.
    shades = colormaps["viridis_r"](np.linspace(0.15, 0.95, len(depths)))
    depth_colours = {_layers(depth): to_hex(shade) for depth, shade in zip(depths, shades, strict=True)}
    panels = kinds if depths else ["Error over epochs"]
    with style.context(["default", STYLE]):
        count = len(panels) + bool(depths)
        figure = Figure(figsize=(0.6 + max(4.4, 3.0 * count), 3.6), layout="constrained")
        axes = figure.subplots(1, count, squeeze=False)[0]
        ceiling = _ceiling(networks)
        for place, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
            for network in networks:
                if not depths:
                    _draw_epochs(ax, network, kind_colours[network.kind])
                elif network.kind == panel:
                    _draw_epochs(ax, network, depth_colours[_layers(network.depth)])
            _frame(ax, panel, "epoch", "" if place else "training and validation error (%)")
            ax.set_ylim(-0.015 * ceiling, ceiling)  # so that a line at 0 is visible
            ax.tick_params(labelleft=place == 0)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=ROUND_STEPS))
        if depths:
            _draw_depths(axes[-1], networks, kind_colours)
            _frame(axes[-1], "After the last epoch", "layers", "training and test error (%)")
            axes[-1].set_xticks(depths)
        _explain(figure, depth_colours or kind_colours, "validation, test" if depths else "validation")
        return png(figure)


def _draw_epochs(axes: Axes, network: Network, colour: str) -> None:
    for errors, line, size in ((network.training, THIN, 3), (network.validation, BOLD, 4)):
        mark = "." if len(errors) <= _POINTS else ""
        epochs = np.arange(1, len(errors) + 1)
        axes.plot(epochs, 100 * np.asarray(errors), color=colour, marker=mark, markersize=size, **line)


def _draw_depths(axes: Axes, networks: Sequence[Network], colours: Colours) -> None:
    ends: list[tuple[float, str]] = []
    height = 1.0
    ordered = sorted(networks, key=lambda network: network.depth or 0)
    for kind, colour in colours.items():
        those = [(one.depth, one) for one in ordered if one.kind == kind and one.depth is not None]
        training = [(depth, 100 * network.training[-1]) for depth, network in those]
        test = [(depth, 100 * network.test) for depth, network in those if network.test is not None]
        for points, line, inside in ((training, THIN, "white"), (test, BOLD, colour)):
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", ms=5, mfc=inside, **line)
                height = max(height, *(1.08 * error for _, error in points))
        ends += [(error, kind) for _, error in test[-1:]]
    axes.set_ylim(-0.015 * height, height)
    above = -height
    for error, kind in sorted(ends):
        # Labels of lines with close ends are stacked.
        above = max(error, above + 0.06 * height)
        axes.text(1.03, above / height, kind, transform=axes.transAxes, va="center", color=colours[kind], weight="bold")


def _frame(axes: Axes, title: str, below: str, beside: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=ROUND_STEPS))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _explain(figure: Figure, colours: Colours, bold: str) -> None:
    """Draws one legend below all panels."""
    lines = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]
    lines += [Line2D([], [], color=INK, label="training", **THIN), Line2D([], [], color=INK, label=bold, **BOLD)]
    inches = sum(0.32 + 0.075 * len(str(line.get_label())) for line in lines)
    figure.legend(
        handles=lines,
        loc="outside lower center",
        ncols=math.ceil(len(lines) / math.ceil(inches / figure.get_figwidth())),
        frameon=False,
        handlelength=1.5,
        columnspacing=1.2,
    )


def _ceiling(networks: Sequence[Network]) -> float:
    """The upper limit in percent. The first quarter of the epochs is left out: it would squeeze the rest."""
    errors = [100 * np.asarray(part) for network in networks for part in (network.training, network.validation)]
    later = [float(part[min(len(part) - 1, len(part) // 4) :].max()) for part in errors]
    return min(100.0, 1.08 * max(later, default=100.0))


def _layers(depth: int | None) -> str:
    return f"{depth} layers"
