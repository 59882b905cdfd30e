"""Accuracy on parts of the test set that look alike: dark or bright, flat or rich in contrast, blurred or sharp."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.reporting.statistics import wilson

GROUPS = 5
Z = 2.94
"""Of 15 comparisons at once (Bonferroni): one of 15 intervals of 95 % would often miss by chance."""
ENDS = {
    "brightness": ("dark", "bright"),
    "contrast": ("flat", "rich"),
    "sharpness": ("blurred", "sharp"),
}


@dataclass(frozen=True)
class Slice:
    """A fifth of the test images, by one property."""

    name: str
    """brightness, contrast or sharpness"""
    low: float
    high: float
    images: int
    accuracy: float
    interval: tuple[float, float]
    """Of 95 %."""

    def is_below(self, accuracy: float) -> bool:
        """Whether it lies below an accuracy by more than chance, given how many slices there are."""
        return wilson(round(self.accuracy * self.images), self.images, Z)[1] < accuracy


def slices(appearance: Mapping[str, npt.NDArray[np.float64]], right: npt.NDArray[np.bool_]) -> dict[str, list[Slice]]:
    """For each property its groups, from low to high. A property that hardly differs has none."""
    found = {}
    for name, values in appearance.items():
        if len(values) < 2 * GROUPS or np.ptp(values) < 1e-6:
            continue
        edges = np.unique(np.quantile(values, np.linspace(0, 1, GROUPS + 1)))
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        found[name] = [_slice(name, values[place == number], right[place == number]) for number in np.unique(place)]
    return found


def weak(found: Mapping[str, list[Slice]], accuracy: float) -> list[tuple[int, Slice]]:
    """Slices that lie below the accuracy of all images by more than chance, each with its place from 1; worst first."""
    placed = [(place, group) for groups in found.values() for place, group in enumerate(groups, 1)]
    return sorted((one for one in placed if one[1].is_below(accuracy)), key=lambda one: one[1].accuracy)


def as_data(found: Mapping[str, list[Slice]], accuracy: float) -> list[dict[str, Any]]:
    """For the page's pictures."""
    return [
        {
            "name": name,
            "ends": ENDS[name],
            "groups": [
                {
                    "from": round(group.low, 2),
                    "to": round(group.high, 2),
                    "count": group.images,
                    "accuracy": round(group.accuracy, 5),
                    "low": round(group.interval[0], 5),
                    "high": round(group.interval[1], 5),
                    "weak": group.is_below(accuracy),
                }
                for group in groups
            ],
        }
        for name, groups in found.items()
    ]


def _slice(name: str, values: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> Slice:
    count, correct = len(values), int(right.sum())
    return Slice(name, float(values.min()), float(values.max()), count, correct / count, wilson(correct, count))
