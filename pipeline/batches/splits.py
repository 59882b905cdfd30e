"""Which images of the training set are trained on and which validate: one split, or one per fold."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.batches.images import Images
from pipeline.config import Train
from pipeline.errors import DataError
from pipeline.grouping import Groups, class_text, deal, hold_out

Positions: TypeAlias = npt.NDArray[np.int64]
"""Positions of images in the whole training set, in ascending order."""

KEYS = ("validation", "validation_share", "validation_seed")
"""The keys of the section train that `held_out` reads."""


def held_out(images: Images, train: Train, classes: Sequence[str] = ()) -> tuple[Positions, Positions]:
    """The training and the validation part of a training without folds: the data's own, or the split by a share.

    Raises DataError like `split`.
    """
    if images.validation is not None and train.validation == "folder":
        return np.flatnonzero(~images.validation), np.flatnonzero(images.validation)
    return split(images.labels, train.validation_share, train.validation_seed, images.groups, classes)


def split(
    labels: npt.NDArray[np.int64],
    validation_share: float,
    seed: int,
    groups: Groups | None = None,
    classes: Sequence[str] = (),
) -> tuple[Positions, Positions]:
    """The training and the validation part, which has the given share of each class, and at least one image of it.

    Each of the `groups` of equal images is in one part. Raises DataError if a class has a single image, or a single
    different one. `classes` are the names for messages.
    """
    random = np.random.default_rng(seed)
    orders, most = [], {}
    for label in np.unique(labels).tolist():
        positions = np.flatnonzero(labels == label)
        if len(positions) < 2:
            name = class_text(label, classes)
            raise DataError(f"Class {name} has a single training image: too few to hold one out for validation.")
        most[label] = min(max(round(validation_share * len(positions)), 1), len(positions) - 1)
        orders.append(random.permutation(positions))
    if groups is None:
        held_out = np.sort(np.concatenate([order[: most[label]] for label, order in zip(most, orders, strict=True)]))
    else:
        held_out = np.flatnonzero(hold_out(labels, groups, np.concatenate(orders), most, 1, classes))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def folds(
    labels: npt.NDArray[np.int64], count: int, seed: int, groups: Groups | None = None, classes: Sequence[str] = ()
) -> list[tuple[Positions, Positions]]:
    """The training and the validation part of each of `count` folds.

    Each image validates in one fold, and each of the `groups` of equal images is in one fold. Where all images differ,
    the numbers of images of two folds differ by one at most, in total and per class. Raises DataError if a class has
    fewer different images than there are folds. `classes` are the names for messages.
    """
    random = np.random.default_rng(seed)
    dealt = []
    for label in np.unique(labels).tolist():
        positions = np.flatnonzero(labels == label)
        if len(positions) < count:
            raise DataError(
                f"Class {class_text(label, classes)} has too few training images ({len(positions)}) for {count} "
                "folds, each of which validates on one or more: lower train.folds, or add images of that class."
            )
        dealt.append(random.permutation(positions))
    # Dealt to the folds in turn, all classes after one another, so that classes and totals differ by one at most.
    order = np.concatenate(dealt)
    if groups is None:
        validation = [np.sort(order[fold::count]) for fold in range(count)]
    else:
        fold_of = deal(labels, groups, order, count, classes)
        validation = [np.flatnonzero(fold_of == fold) for fold in range(count)]
    return [(np.setdiff1d(np.arange(len(labels)), held_out), held_out) for held_out in validation]
