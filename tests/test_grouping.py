"""Equal images stay on one side of a split."""

import numpy as np
import pytest

from pipeline.batches import splits
from pipeline.datasets.dataset import test_split as split_off
from pipeline.errors import DataError
from pipeline.grouping import groups_of

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [103, 51, 7]))
ALONE = np.arange(len(LABELS))


def copied(copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups of 60 different images of 3 classes, each of them `copies` times."""
    return np.tile(np.arange(60) % 3, copies), np.tile(np.arange(60), copies)


def both_sides(groups: np.ndarray, one: np.ndarray, other: np.ndarray) -> set[int]:
    return set(groups[one].tolist()) & set(groups[other].tolist())


def test_groups_name_the_first_of_equal_images() -> None:
    groups = groups_of([b"a", b"b", b"a", b"c", b"b"])
    assert groups is not None
    assert groups.tolist() == [0, 1, 0, 3, 1]
    assert groups_of([b"a", b"b"]) is None


@pytest.mark.parametrize("seed", range(5))
def test_without_equal_images_all_splits_are_those_without_groups(seed: int) -> None:
    for one, other in zip(splits.split(LABELS, 0.2, seed, ALONE), splits.split(LABELS, 0.2, seed), strict=True):
        assert np.array_equal(one, other)
    for fold, plain in zip(splits.folds(LABELS, 5, seed, ALONE), splits.folds(LABELS, 5, seed), strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(fold, plain, strict=True))
    assert np.array_equal(split_off(LABELS, 0.3, seed, ALONE), split_off(LABELS, 0.3, seed))


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_copies_are_on_one_side_of_each_split_and_shares_stay(copies: int) -> None:
    labels, groups = copied(copies)
    training, validation = splits.split(labels, 0.2, 1, groups)
    assert not both_sides(groups, training, validation)
    assert 0.1 <= len(validation) / len(labels) <= 0.2
    in_test = split_off(labels, 0.2, 1, groups)
    assert not both_sides(groups, in_test, ~in_test)
    parts = splits.folds(labels, 5, 1, groups)
    assert sorted(np.concatenate([validation for _, validation in parts])) == list(range(len(labels)))
    for training, validation in parts:
        assert not both_sides(groups, training, validation)
        assert np.bincount(labels[validation]).tolist() == [4 * copies] * 3


def test_a_few_copies_change_a_split_a_little() -> None:
    groups = ALONE.copy()
    groups[50], groups[90] = 3, 4
    plain, kept = splits.split(LABELS, 0.2, 0)[1], splits.split(LABELS, 0.2, 0, groups)[1]
    assert len(set(plain.tolist()) ^ set(kept.tolist())) <= 4


def test_an_image_of_two_classes_is_on_one_side_too() -> None:
    labels = np.repeat([0, 1], 10)
    groups = np.tile(np.arange(10), 2)
    training, validation = splits.split(labels, 0.3, 0, groups)
    assert not both_sides(groups, training, validation)
    assert np.bincount(labels[validation]).tolist() == [3, 3]
    for training, validation in splits.folds(labels, 5, 0, groups):
        assert not both_sides(groups, training, validation)
        assert np.bincount(labels[validation]).tolist() == [2, 2]


def test_a_small_share_still_holds_out_the_smallest_group() -> None:
    labels = np.zeros(12, dtype=np.int64)
    groups = np.array([0] * 7 + [7] * 3 + [10] * 2)
    assert splits.split(labels, 0.05, 0, groups)[1].tolist() == [10, 11]


def test_a_class_of_equal_images_is_an_error_with_its_name() -> None:
    labels, groups = np.array([0] * 9 + [1] * 9), np.array([*range(9), *[9] * 9])
    names = ["cat", "dog"]
    with pytest.raises(DataError, match=r"Class dog has too few different images \(9, of which many are equal\)"):
        splits.split(labels, 0.2, 0, groups, names)
    with pytest.raises(DataError, match="Class dog has too few different training images for 3 folds"):
        splits.folds(labels, 3, 0, groups, names)
    with pytest.raises(DataError, match="Class dog has too few different images"):
        split_off(labels, 0.2, 0, groups, names)
