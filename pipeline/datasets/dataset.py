"""What every source gives: two parts of labelled images, and how a test part is split off."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST_TRAINING = 2  # one to learn from and one for validation
FEWEST_TEST = 1


@dataclass(frozen=True)
class Part:
    """The training or the test part."""

    labels: npt.NDArray[np.int64]
    """[N], positions in the list of classes."""
    chunks: Iterable[npt.NDArray[np.uint8]]
    """The N images in the order of the labels, a few at a time: [n, H, W, C]. They are read once."""


@dataclass(frozen=True)
class DataSet:
    """A data set before it is written."""

    name: str
    classes: list[str]
    shape: tuple[int, int, int]
    """Channels, height, width of an image."""
    training: Part
    test: Part
    source: str
    """The address without user, password and query."""
    archive_sha256: str | None


def test_split(labels: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """[N], true where an image belongs to the test part: of each class `share`, but at least one, and two stay.

    Every class has a random stream of its own, so that one more class leaves the split of the others as it was.
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(share * len(members)), FEWEST_TEST), len(members) - FEWEST_TRAINING)
        chosen[np.random.default_rng([seed, int(label)]).permutation(members)[:count]] = True
    return chosen
