"""Two results on the same test images side by side: is the difference more than chance, and which images flipped?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.config import Scalar
from pipeline.errors import PipelineError
from pipeline.reporting.certainty import Predictions
from pipeline.reporting.language import ENGLISH, Language
from pipeline.reporting.results import Mistake
from pipeline.reporting.statistics import mcnemar

MOST_FLIPPED = 200
MOST_IMAGES = 24
"""Of each direction."""
_CHANCE = "({chance}, McNemar's exact test)"
VERDICTS = {
    (True, True): f"This result is better by {{points}} percentage points, and that is more than chance {_CHANCE}.",
    (True, False): f"This result is better by {{points}} percentage points, but that may be chance {_CHANCE}.",
    (False, True): f"{{other}} is better by {{points}} percentage points, and that is more than chance {_CHANCE}.",
    (False, False): f"{{other}} is better by {{points}} percentage points, but that may be chance {_CHANCE}.",
}
"""By whether this result is better, and whether by more than chance."""


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
    confidence_then: float = 0.0

    @property
    def is_gained(self) -> bool:
        return self.now == self.actual


@dataclass(frozen=True)
class FlippedImage:
    """uint8 [H, W, 1 or 3], and how the two results saw it."""

    pixels: npt.NDArray[np.uint8]
    flipped: Flipped


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
    all_flipped: Mapping[int, Flipped]
    """By the number of the image, the surest first."""
    changes: Sequence[tuple[str, Scalar, Scalar]] | None
    """The keys whose values differ, then and now; None if those of then are not known."""
    images_gained: Sequence[FlippedImage] | None = None
    """That only this result recognises, those first of which the other one was surest; None: it has no images."""
    images_lost: Sequence[FlippedImage] = ()

    @property
    def flipped(self) -> list[Flipped]:
        """The surest first, at most MOST_FLIPPED."""
        return list(self.all_flipped.values())[:MOST_FLIPPED]

    def verdict(self, say: Language = ENGLISH) -> str:
        if self.gained == self.lost:
            return say("Neither is better: each recognises as many images that the other does not.")
        values = {
            "other": self.other,
            "points": f"{100 * abs(self.accuracy_now - self.accuracy_then):.2f}",
            "chance": f"p = {self.p_value:.2g}" if self.p_value >= 0.0001 else "p < 0.0001",
        }
        is_better, is_sure = self.accuracy_now > self.accuracy_then, self.p_value < 0.05
        return say(VERDICTS[is_better, is_sure], **values)


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
    surest = flipped[np.argsort(-now.confidence[flipped], kind="stable")]
    return Comparison(
        other=other,
        images=len(now.actual),
        accuracy_then=float(then.right.mean()),
        accuracy_now=float(now.right.mean()),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
        all_flipped={
            int(place): Flipped(
                int(place),
                classes[now.actual[place]],
                classes[then.predicted[place]],
                classes[now.predicted[place]],
                float(now.confidence[place]),
                float(then.confidence[place]),
            )
            for place in surest
        },
        changes=changed,
    )


def with_images(
    found: Comparison, then: Sequence[Mistake] | None, now: Sequence[Mistake], most: int = MOST_IMAGES
) -> Comparison:
    """With the images of flips. Each is a mistake of one of the two, whose surest mistakes `evaluate` keeps."""
    return replace(
        found,
        images_gained=None if then is None else _images(then, found.all_flipped, is_gained=True)[:most],
        images_lost=_images(now, found.all_flipped, is_gained=False)[:most],
    )


def _images(mistakes: Sequence[Mistake], flipped: Mapping[int, Flipped], *, is_gained: bool) -> list[FlippedImage]:
    surest = sorted(mistakes, key=lambda mistake: -mistake.confidence)
    pairs = [(mistake.pixels, flipped.get(mistake.index)) for mistake in surest]
    return [FlippedImage(pixels, one) for pixels, one in pairs if one and one.is_gained == is_gained]
