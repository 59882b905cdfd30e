"""Two results on the same test images side by side: is the difference more than chance, and which images flipped?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config import Scalar
from pipeline.errors import PipelineError
from pipeline.reporting.certainty import Predictions
from pipeline.reporting.statistics import mcnemar

MOST_FLIPPED = 200


@dataclass(frozen=True)
class Flipped:
    """A test image that one of the two results recognises and the other does not."""

    index: int
    actual: str
    then: str
    """What the other result took it for; `now` what this one does."""
    now: str
    confidence: float
    """Of this result."""

    @property
    def is_gained(self) -> bool:
        return self.now == self.actual


@dataclass(frozen=True)
class Comparison:
    """This result beside another one."""

    other: str
    """Its name: a revision, or a folder."""
    images: int
    accuracy_then: float
    accuracy_now: float
    gained: int
    """Images that only this result recognises; `lost`: that only the other one does."""
    lost: int
    p_value: float
    """McNemar's exact test, two-sided."""
    flipped: Sequence[Flipped]
    """The surest first, at most MOST_FLIPPED."""
    changes: Sequence[tuple[str, Scalar, Scalar]] | None
    """The keys whose values differ, then and now; None if those of then are not known."""

    @property
    def verdict(self) -> str:
        change = 100 * (self.accuracy_now - self.accuracy_then)
        if self.gained == self.lost:
            return "Neither is better: each recognises as many images that the other does not."
        better = "This result is better" if change > 0 else f"{self.other} is better"
        chance = f"p = {self.p_value:.2g}" if self.p_value >= 0.0001 else "p < 0.0001"
        size = f"by {abs(change):.2f} percentage points"
        if self.p_value < 0.05:
            return f"{better} {size}, and that is more than chance ({chance}, McNemar's exact test)."
        return f"{better} {size}, but that may be chance ({chance}, McNemar's exact test)."


def values_of(run: bytes | None) -> dict[str, Scalar] | None:
    """The values in the content of run.json; None if there is none or it is of another version."""
    try:
        values = json.loads(run or b"")["values"]
        return dict(values)
    except (ValueError, KeyError, TypeError):
        return None


def changes(then: Mapping[str, Scalar] | None, now: Mapping[str, Scalar]) -> list[tuple[str, Scalar, Scalar]] | None:
    """The keys whose values differ; a key that one of them lacks has None there."""
    if then is None:
        return None
    return [(key, then.get(key), now.get(key)) for key in {**then, **now} if then.get(key) != now.get(key)]


def compare(
    other: str,
    then: Predictions,
    now: Predictions,
    classes: Sequence[str],
    changed: Sequence[tuple[str, Scalar, Scalar]] | None = None,
) -> Comparison:
    """Raises PipelineError if the two were not made on the same test images."""
    if len(then.actual) != len(now.actual) or (then.actual != now.actual).any():
        raise PipelineError(
            f"{other} was evaluated on other test images: only results on the same test set can be compared."
        )
    flipped = np.flatnonzero(then.right != now.right)
    gained, lost = int((now.right & ~then.right).sum()), int((then.right & ~now.right).sum())
    surest = flipped[np.argsort(-now.confidence[flipped], kind="stable")][:MOST_FLIPPED]
    return Comparison(
        other=other,
        images=len(now.actual),
        accuracy_then=float(then.right.mean()),
        accuracy_now=float(now.right.mean()),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
        flipped=[
            Flipped(
                int(place),
                classes[now.actual[place]],
                classes[then.predicted[place]],
                classes[now.predicted[place]],
                float(now.confidence[place]),
            )
            for place in surest
        ],
        changes=changed,
    )
