"""What every data set gives: a training and a test part of labelled images. Also the split of a test part."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.grouping import Groups, hold_out

FEWEST_TRAINING = 2  # one to train on and one for validation
FEWEST_TEST = 1


@dataclass(frozen=True)
class Part:
    """The labels and images of the training or of the test part."""

    labels: npt.NDArray[np.int64]
    """[N], indices into the list of classes."""
    chunks: Iterable[npt.NDArray[np.uint8]]
    """The N images in the order of the labels, in chunks [n, H, W, C]. They can be iterated once."""
    names: Sequence[str] | None = None
    """The N names for messages, in the order of the labels; None where images have no names."""


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
    fingerprint: str | None = None
    """Of a local folder or archive, see fingerprint.py."""
    split_again: Callable[[Sequence[bytes], Sequence[bytes]], "DataSet"] | None = None
    """The data set with a test part that keeps equal images together, from the hashes of its training and test images.

    None if the test part was not split off, but came with the data.
    """


def test_split(
    labels: npt.NDArray[np.int64], share: float, seed: int, groups: Groups | None = None, classes: Sequence[str] = ()
) -> npt.NDArray[np.bool_]:
    """[N], true for the images of the test part: a `share` of each class.

    At least one image of a class is in the test part, and at least two stay in the training part. Every class has its
    own random generator, so that adding a class does not change the split of the others. With `groups` of equal images
    each group is in one part; raises DataError, which names one of `classes`, if a class has too few different images.
    """
    orders, most = [], {}
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        orders.append(np.random.default_rng([seed, label]).permutation(members))
        most[label] = min(max(round(share * len(members)), FEWEST_TEST), len(members) - FEWEST_TRAINING)
    if groups is not None:
        return hold_out(labels, groups, np.concatenate(orders), most, FEWEST_TRAINING, classes)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for order, count in zip(orders, most.values(), strict=True):
        chosen[order[:count]] = True
    return chosen
