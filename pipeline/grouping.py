"""Splits that keep equal images together. Without equal images they are the splits by single images, to the bit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError

Groups: TypeAlias = npt.NDArray[np.int64]
"""[N], for each image the position of the first image that equals it."""
Integers: TypeAlias = npt.NDArray[np.int64]


def groups_of(hashes: Sequence[bytes]) -> Groups | None:
    """The groups of images whose hashes are equal; None if all differ."""
    first: dict[bytes, int] = {}
    groups = np.fromiter((first.setdefault(hash_, place) for place, hash_ in enumerate(hashes)), np.int64, len(hashes))
    return groups if len(first) < len(hashes) else None


def hold_out(
    labels: Integers,
    groups: Groups,
    order: Integers,
    most: Mapping[int, int],
    fewest_left: int,
    classes: Sequence[str] = (),
) -> npt.NDArray[np.bool_]:
    """[N], true for images that are held out: of each class up to `most`, at least one, in whole groups.

    Groups are taken in the `order` of their first members, which has all positions. Of each class at least
    `fewest_left` images are not held out. Raises DataError if a class has too few different images for that.
    """
    members = _members(groups)
    totals = Counter(labels.tolist())
    held: Counter[int] = Counter()
    chosen = np.zeros(len(labels), dtype=np.bool_)

    def fits(added: Counter[int], limits: Mapping[int, int]) -> bool:
        return all(held[label] + count <= limits[label] for label, count in added.items())

    def take(group: int, added: Counter[int]) -> None:
        chosen[members[group]] = True
        held.update(added)

    ordered = list(dict.fromkeys(groups[order].tolist()))
    inside = {group: Counter(labels[members[group]].tolist()) for group in ordered}
    for group in ordered:
        if fits(inside[group], most):
            take(group, inside[group])
    limits = {label: total - fewest_left for label, total in totals.items()}
    for label in sorted(totals):
        if held[label]:
            continue
        possible = [group for group in ordered if inside[group][label] and fits(inside[group], limits)]
        if not possible:
            raise DataError(
                f"Class {class_text(label, classes)} has too few different images ({totals[label]}, of which many are "
                "equal): equal images stay together, so none can be held out. Add other images of that class."
            )
        smallest = min(possible, key=lambda group: sum(inside[group].values()))
        take(smallest, inside[smallest])
    return chosen


def deal(labels: Integers, groups: Groups, order: Integers, count: int, classes: Sequence[str] = ()) -> Integers:
    """[N], the fold of each image, 0 to `count` - 1: whole groups, dealt in the `order` of their first members.

    Each goes to the fold with the fewest images of its class; among these to the one with the fewest images. Raises
    DataError if a class has too few different images for one in each fold.
    """
    members = _members(groups)
    fold_of = np.empty(len(labels), dtype=np.int64)
    totals = [0] * count
    per_class: dict[int, list[int]] = {label: [0] * count for label in np.unique(labels).tolist()}
    first_label: dict[int, int] = {}
    for group, label in zip(groups[order].tolist(), labels[order].tolist(), strict=True):
        first_label.setdefault(group, label)
    for group, label in first_label.items():
        of_class = per_class[label]
        _, _, fold = min(zip(of_class, totals, range(count), strict=True))
        fold_of[members[group]] = fold
        totals[fold] += len(members[group])
        for member in labels[members[group]].tolist():
            per_class[member][fold] += 1
    for label, counts in per_class.items():
        if not all(counts):
            raise DataError(
                f"Class {class_text(label, classes)} has too few different training images for {count} folds, each of "
                "which validates on one or more, since equal images stay together: lower train.folds, or add images of "
                "that class."
            )
    return fold_of


def class_text(label: int, classes: Sequence[str]) -> str:
    """The name of a class for a message; its number where names are not known."""
    return classes[label] if classes else str(label)


def _members(groups: Groups) -> dict[int, Integers]:
    """The positions of each group."""
    order = np.argsort(groups, kind="stable")
    numbers, starts = np.unique(groups[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
