"""Which images of the training set are trained on and which validate: one split, or one per fold."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError

Positions: TypeAlias = npt.NDArray[np.int64]
"""Positions of images in the whole training set, in ascending order."""


def split(labels: npt.NDArray[np.int64], validation_share: float, seed: int) -> tuple[Positions, Positions]:
    """The training and the validation part, which has the given share of each class, and at least one image of it.

    Raises DataError if a class has a single image.
    """
    random = np.random.default_rng(seed)
    validation = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) < 2:
            raise DataError(f"Class {label} has a single training image: too few to hold one out for validation.")
        count = min(max(round(validation_share * len(positions)), 1), len(positions) - 1)
        validation.append(random.permutation(positions)[:count])
    held_out = np.sort(np.concatenate(validation))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def folds(labels: npt.NDArray[np.int64], count: int, seed: int) -> list[tuple[Positions, Positions]]:
    """The training and the validation part of each of `count` folds.

    Each image validates in one fold. The numbers of images of two folds differ by one at most, in total and per class.
    Raises DataError if a class has fewer images than there are folds.
    """
    random = np.random.default_rng(seed)
    dealt = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) < count:
            raise DataError(
                f"Class {label} has too few training images ({len(positions)}) for {count} folds, each of which "
                "validates on one or more: lower train.folds, or add images of that class."
            )
        dealt.append(random.permutation(positions))
    # Dealt to the folds in turn, all classes after one another, so that classes and totals differ by one at most.
    order = np.concatenate(dealt)
    validation = [np.sort(order[fold::count]) for fold in range(count)]
    return [(np.setdiff1d(np.arange(len(labels)), held_out), held_out) for held_out in validation]
