import numpy as np
import pytest

from pipeline.batches import splits
from pipeline.batches.images import Images
from pipeline.config import Train
from pipeline.errors import DataError


def test_a_split_takes_its_share_of_each_class_and_every_image_once() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    training, validation = splits.split(labels, 0.2, seed=0)
    assert np.bincount(labels[validation]).tolist() == [20, 10, 2]
    assert sorted([*training, *validation]) == list(range(160))


def test_a_split_depends_on_its_seed_alone() -> None:
    labels = np.arange(100) % 3
    assert np.array_equal(splits.split(labels, 0.2, 1)[1], splits.split(labels, 0.2, 1)[1])
    assert not np.array_equal(splits.split(labels, 0.2, 1)[1], splits.split(labels, 0.2, 2)[1])


def test_every_class_is_in_both_parts_of_a_split_however_small() -> None:
    labels = np.array([0] * 100 + [1] * 2)
    for share in (0.01, 0.5):
        training, validation = splits.split(labels, share, 0)
        assert set(labels[training]) == set(labels[validation]) == {0, 1}
    with pytest.raises(DataError, match="Class 1 has a single training image"):
        splits.split(np.array([0, 0, 1]), 0.1, 0)


def test_images_that_came_as_validation_images_validate_unless_a_share_is_asked_for() -> None:
    labels = np.repeat([0, 1], [30, 20])
    own = np.arange(50) % 10 == 3
    images = Images(np.zeros((50, 1, 1, 1), dtype=np.uint8), labels, validation=own)
    training, validation = splits.held_out(images, Train())
    assert validation.tolist() == [3, 13, 23, 33, 43]
    assert sorted([*training, *validation]) == list(range(50))
    by_share = splits.held_out(images, Train(validation="share", validation_share=0.2))
    for given, expected in zip(by_share, splits.split(labels, 0.2, seed=0), strict=True):
        assert np.array_equal(given, expected)
    without = splits.held_out(images._replace(validation=None), Train(validation_share=0.2))
    assert np.array_equal(without[1], by_share[1])


def test_folds_validate_each_image_once_with_classes_as_even_as_can_be() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [103, 51, 7]))
    parts = splits.folds(labels, 5, seed=0)
    assert len(parts) == 5
    assert sorted(np.concatenate([validation for _, validation in parts])) == list(range(161))
    for training, validation in parts:
        assert sorted([*training, *validation]) == list(range(161))
        assert len(validation) in (32, 33)
        for label, count in enumerate(np.bincount(labels)):
            assert np.sum(labels[validation] == label) in (count // 5, count // 5 + 1)
        assert (training.dtype, validation.dtype) == (np.int64, np.int64)


def test_folds_depend_on_their_seed_alone() -> None:
    labels = np.arange(100) % 3
    one, same, other = (splits.folds(labels, 4, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0][1], other[0][1])


def test_a_class_with_fewer_images_than_folds_is_reported() -> None:
    labels = np.array([0] * 20 + [7] * 3)
    assert all(np.sum(labels[validation] == 7) == 1 for _, validation in splits.folds(labels, 3, 0))
    with pytest.raises(DataError, match=r"Class 7 has too few training images \(3\) for 4 folds.*lower train\.folds"):
        splits.folds(labels, 4, 0)
