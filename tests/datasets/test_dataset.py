"""The split of a test part."""

import numpy as np
import pytest

from pipeline.datasets.dataset import test_split as split_off


@pytest.mark.parametrize(("share", "test"), [(0.01, 1), (0.25, 2), (0.5, 5), (0.99, 8)])
def test_a_split_puts_at_least_one_image_in_the_test_part_and_leaves_two_for_training(share, test):
    labels = np.repeat([0, 1], [10, 3])
    in_test = split_off(labels, share, 0)
    assert np.bincount(labels[in_test]).tolist() == [test, 1]
