"""What the confidences of the predictions are worth: the reliability diagram, and accuracy against coverage."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.reporting.statistics import wilson

BINS = 15
"""As many as evaluate.calibration_bins has by default."""
MOST_POINTS = 160


@dataclass(frozen=True)
class Predictions:
    """Of the test images, in their order."""

    actual: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    """Of the predicted class, 0..1."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self.actual == self.predicted
        return found


def reliability(found: Predictions, bins: int = BINS) -> list[dict[str, Any]]:
    """For each bin of confidence that has images: its ends, mean confidence, accuracy with interval, and images."""
    place = np.clip(np.ceil(found.confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for number in np.unique(place):
        inside = place == number
        right, count = int(found.right[inside].sum()), int(inside.sum())
        low, high = wilson(right, count)
        rows.append(
            {
                "from": round(number / bins, 4),
                "to": round((number + 1) / bins, 4),
                "confidence": round(float(found.confidence[inside].mean()), 5),
                "accuracy": round(right / count, 5),
                "low": round(low, 5),
                "high": round(high, 5),
                "count": count,
            }
        )
    return rows


def coverage(found: Predictions) -> list[dict[str, float]]:
    """Accuracy on the images that the network is surest of, over their share, at most MOST_POINTS points."""
    order = np.argsort(-found.confidence, kind="stable")
    right = np.cumsum(found.right[order])
    total = len(order)
    # Equal confidences can't be told apart by a threshold: only the last image of each is a point.
    sorted_ = found.confidence[order]
    last = np.flatnonzero(np.append(sorted_[1:] != sorted_[:-1], True))
    chosen = last[np.unique(np.linspace(0, len(last) - 1, MOST_POINTS).round().astype(int))]
    return [
        {
            "coverage": round((place + 1) / total, 5),
            "accuracy": round(float(right[place]) / (place + 1), 5),
            "threshold": round(float(sorted_[place]), 5),
        }
        for place in chosen
    ]


def share_at(found: Predictions, accuracy: float) -> float | None:
    """The largest share of images, the surest first, on which the accuracy is at least this; None if on no share."""
    points = [point["coverage"] for point in coverage(found) if point["accuracy"] >= accuracy]
    return max(points, default=None)
