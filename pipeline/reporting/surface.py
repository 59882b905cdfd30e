"""The surface of a search as a picture: filled contours of two keys that are scales, else a cell for each value pair.

The areas are computed here, so that the page's script and the PNG file draw the same ones.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Scalar
from pipeline.reporting import formats
from pipeline.reporting.language import Language
from pipeline.reporting.search_history import Key, SearchHistory

LEVELS = 7
"""About as many colours."""
LEAST_STEPS = 5
"""Values of a key, for contours."""
ROUND = 1000
"""Areas have whole coordinates, 0..ROUND on both axes."""

Floats = npt.NDArray[np.float64]


def as_data(history: SearchHistory) -> dict[str, Any] | None:
    """For the picture. `areas` belong to the levels, from the lowest one on; each is a list of closed rings."""
    if (found := history.surface) is None:
        return None
    accuracies, sds = np.array(found.accuracies), np.array(found.sds)
    # The worst quarter shares one colour, so that the scale shows the differences among the others.
    low, high = float(np.quantile(accuracies, 0.25)), float(accuracies.max())
    levels, limit = _levels(low, high), max(0.001, (high - low) / 4)
    keys = [_axis(name, values, history.keys) for name, values in zip(found.keys, found.values, strict=True)]
    is_contour = all(key["is_scale"] for key in keys)
    areas: list[list[list[list[int]]]] = []
    unsure: list[list[list[int]]] = []
    if is_contour:
        edges = [float(accuracies.min()) - 1, *levels[1:-1], high + 1]
        areas = [_rings(accuracies, below, above) for below, above in pairwise(edges)]
        unsure = _rings(sds, limit, float(sds.max()) + 1)
    return {
        "keys": keys,
        "accuracies": found.accuracies,
        "sds": found.sds,
        "levels": [round(level, 6) for level in levels],
        "limit": round(limit, 5),
        "contour": is_contour,
        "areas": areas,
        "unsure": unsure,
    }


def sentences(history: SearchHistory, say: Language) -> dict[str, str]:
    """The words of the picture: what it shows, and how to read it. Without a surface, why there is none."""
    if (found := history.surface) is None:
        why = (
            say("The model's belief is computed at the end of a search.")
            if history.is_running
            else say("Too few trials or keys, or a study of an earlier version: there is no model of two keys to show.")
        )
        return {"surface_alt": "", "surface_note": "", "surface_missing": why}
    accuracies = np.array(found.accuracies)
    row, column = divmod(int(accuracies.argmax()), accuracies.shape[1])
    across, up = found.keys
    limit = (as_data(history) or {})["limit"]
    best = say(
        "The model expects most at {across} {x} and {up} {y}: {accuracy} ± {sd}.",
        across=across,
        up=up,
        x=_short(found.values[0][column]),
        y=_short(found.values[1][row]),
        accuracy=say.percent(found.accuracies[row][column], 2),
        sd=f"{100 * found.sds[row][column]:.2f}",
    )
    held = ", ".join(f"{name} {_short(value)}" for name, value in found.held.items()) or say("there is none")
    note = say(
        "Colour: validation accuracy of a full training as the model of learning curves predicts it from all trials. "
        "Hatched: it is unsure, by more than ± {limit} points (one sd). Dots are trials, hollow if stopped early; the "
        "winner is orange. Other keys have the winner's values: {held}.",
        limit=f"{100 * limit:.1f}",
        held=held,
    )
    return {"surface_alt": best, "surface_note": f"{best} {note}", "surface_missing": ""}


def _axis(name: str, values: Sequence[Scalar], keys: Sequence[Key]) -> dict[str, Any]:
    key = next((key for key in keys if key.name == name), Key(name))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    rises = len(numbers) == len(values) and all(a < b for a, b in pairwise(numbers))
    return {
        "name": name,
        "short": name.rpartition(".")[2],
        "log": key.log,
        "is_listed": key.choices is not None,
        "values": list(values),
        "is_scale": rises and len(values) >= LEAST_STEPS,
    }


def _levels(low: float, high: float) -> list[float]:
    """Round accuracies, from one that is at most `low` to one that is at least `high`."""
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-4:
        low, high = low - 1e-4, high + 1e-4
    return [float(level) for level in MaxNLocator(LEVELS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _rings(heights: Floats, low: float, high: float) -> list[list[list[int]]]:
    """The areas between two heights as closed rings of points [x, y]; a ring in a ring is a hole."""
    from contourpy import FillType, contour_generator

    rows, columns = heights.shape
    generator = contour_generator(
        np.linspace(0, ROUND, columns), np.linspace(0, ROUND, rows), heights, fill_type=FillType.OuterOffset
    )
    points, offsets = generator.filled(low, high)[:2]
    return [
        np.asarray(part)[start:end].round().astype(int).tolist()
        for part, ends in zip(points, offsets, strict=True)
        for start, end in pairwise(np.asarray(ends).tolist())
    ]


def _short(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else formats.as_yaml(value)
