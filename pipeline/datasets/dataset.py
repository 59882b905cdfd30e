"""What every data set gives: labelled images by part. Also the split of a test part."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.datasets.wide import Scale
from pipeline.grouping import Groups, groups_of, hold_out

Labelled = tuple[list[Path], npt.NDArray[np.int64]]
"""Paths of images with their labels [N]."""

FEWEST_TRAINING = 2  # one to train on and one for validation
FEWEST_TEST = 1


@dataclass(frozen=True)
class Part:
    """The labels and images of a part."""

    labels: npt.NDArray[np.int64]
    """[N], indices into the list of classes."""
    chunks: Iterable[npt.NDArray[np.uint8]]
    """The N images in the order of the labels, in chunks [n, H, W, C]. They can be iterated once."""
    names: Sequence[str] | None = None
    """The N names for messages, in the order of the labels; None where images have no names."""

    def name(self, part: str, place: int) -> str:
        """The name of an image for messages; `part` is that of the part."""
        return f"{part} image {place}" if self.names is None else self.names[place]


@dataclass(frozen=True)
class DataSet:
    """A data set before it is written."""

    name: str
    classes: list[str]
    shape: tuple[int, int, int]
    """Of an image: channels, height, width."""
    training: Part
    test: Part
    """Its chunks are iterated last."""
    source: str
    """The address without user, password and query."""
    archive_sha256: str | None
    validation: Part | None = None
    """The data's own validation images, whose chunks are iterated after those of the training part."""
    fingerprint: str | None = None
    """Of a local folder or archive, see fingerprint.py."""
    split_again: Callable[[Sequence[bytes], Sequence[bytes]], "DataSet"] | None = None
    """The data set with a test part that keeps equal images together, from the hashes of its training and test images.

    None if the test part was not split off, but came with the data.
    """
    scale: Scale | None = None
    """Of image files of more than 8 bits: decided when the chunks have been iterated."""


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


@dataclass(frozen=True)
class Split:
    """Image files, of which a share becomes the test part."""

    paths: list[Path]
    labels: npt.NDArray[np.int64]
    share: float
    seed: int

    def parts(self, classes: Sequence[str], groups: Groups | None = None) -> tuple[Labelled, Labelled]:
        """The training and the test part. Raises DataError if a class has too few different images (`test_split`)."""
        in_test = test_split(self.labels, self.share, self.seed, groups, classes)
        return self._selected(~in_test), self._selected(in_test)

    def groups(self, training: Sequence[bytes], test: Sequence[bytes]) -> Groups | None:
        """The groups of equal images, from the hashes of both parts of the split without groups."""
        in_test = test_split(self.labels, self.share, self.seed)
        parts = {False: iter(training), True: iter(test)}
        return groups_of([next(parts[is_test]) for is_test in in_test.tolist()])

    def _selected(self, mask: npt.NDArray[np.bool_]) -> Labelled:
        return [self.paths[index] for index in np.flatnonzero(mask)], self.labels[mask]


class Files(NamedTuple):
    """A data set of image files by part."""

    classes: list[str]
    training: Labelled
    test: Labelled
    validation: Labelled | None = None
    """The data's own validation images."""
    split: Split | None = None
    """What the training and the test part were split from, if the test part did not come with the data."""

    @classmethod
    def splitting(cls, classes: list[str], split: Split, validation: Labelled | None = None) -> "Files":
        """With a test part that is split off. Raises DataError."""
        return cls(classes, *split.parts(classes), validation, split)

    def split_again(self, training: Sequence[bytes], test: Sequence[bytes]) -> "Files":
        """Likewise, with equal images in one part, from the hashes of the images of both.

        Raises DataError if a class has too few different images.
        """
        assert self.split is not None
        parts = self.split.parts(self.classes, self.split.groups(training, test))
        return Files(self.classes, *parts, self.validation, self.split)
