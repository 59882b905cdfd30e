"""What every data set gives: a training and a test part of labelled images. Also the split of a test part."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST_TRAINING = 2  # one to train on and one for validation
FEWEST_TEST = 1


@dataclass(frozen=True)
class Part:
    """The labels and images of the training or of the test part."""

    labels: npt.NDArray[np.int64]
    """[N], indices into the list of classes."""
    chunks: Iterable[npt.NDArray[np.uint8]]
    """The N images in the order of the labels, in chunks [n, H, W, C]. They can be iterated once."""


@dataclass(frozen=True)
class DataSet:
    """A data set before it is written."""

    name: str
    classes: list[str]
    shape: tuple[int, int, int]
    """Of an image: channels, height, width."""
    training: Part
    test: Part
    source: str
    """The address without user, password and query."""
    archive_sha256: str | None


def test_split(labels: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """[N], true for the images of the test part: a `share` of each class.

    At least one image of a class is in the test part, and at least two stay in the training part. Every class has its
    own random generator, so that adding a class does not change the split of the others.
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(share * len(members)), FEWEST_TEST), len(members) - FEWEST_TRAINING)
        chosen[np.random.default_rng([seed, int(label)]).permutation(members)[:count]] = True
    return chosen
