"""An order of the classes in which those that are confused stand together."""

import numpy as np
import numpy.typing as npt

from pipeline.reporting.results import Matrix

MOST = 1200
"""Classes that are ordered; more stay as they are, as the work grows with their cube."""


def together(confusion: Matrix) -> list[int]:
    """The classes as rows of neighbours: the two groups that are confused most are joined, until there is one.

    Groups are joined by the mean of their confusions (average linkage) at the ends that are confused most.
    """
    count = len(confusion)
    if count > MOST or count < 3:
        return list(range(count))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    near: npt.NDArray[np.float64] = shares + shares.T
    np.fill_diagonal(near, 0.0)
    rows: dict[int, list[int]] = {number: [number] for number in range(count)}
    between = near.copy()
    np.fill_diagonal(between, -1.0)
    for _ in range(count - 1):
        kept, gone = sorted(divmod(int(between.argmax()), count))
        first, second = rows[kept], rows.pop(gone)
        weights = len(first), len(second)
        rows[kept] = _joined(first, second, near)
        mean = (weights[0] * between[kept] + weights[1] * between[gone]) / sum(weights)
        mean[[kept, gone]] = -1.0
        mean[between[kept] < 0] = -1.0  # those that are in a group already
        between[kept] = between[:, kept] = mean
        between[gone] = between[:, gone] = -1.0
    return rows.popitem()[1]


def _joined(first: list[int], second: list[int], near: npt.NDArray[np.float64]) -> list[int]:
    """Both, each the right way round: the ends that meet are those that are confused most."""
    ways = [(one, other) for one in (first, first[::-1]) for other in (second, second[::-1])]
    one, other = max(ways, key=lambda way: near[way[0][-1], way[1][0]])
    return one + other
