import math
from dataclasses import replace

import pytest

from pipeline.audit.repeat import COMPARED, compare
from pipeline.records import Epoch

EPOCHS = [Epoch(number, 0.1, 2.0, 0.3, 1.9, 0.4, 1000.0, float(number)) for number in (1, 2, 3)]


def test_times_are_not_compared() -> None:
    again = [replace(epoch, images_per_second=1.0, elapsed_s=99.0) for epoch in EPOCHS]
    found = compare(EPOCHS, again)
    assert (found.epochs, found.first, found.largest, found.where) == (3, None, 0.0, "")


@pytest.mark.parametrize("name", COMPARED)
def test_the_last_bit_of_any_figure_counts(name: str) -> None:
    value = getattr(EPOCHS[1], name)
    again = [EPOCHS[0], replace(EPOCHS[1], **{name: math.nextafter(value, 9)}), EPOCHS[2]]
    found = compare(EPOCHS, again)
    assert found.first == 2
    assert 0 < found.largest < 1e-12
    assert found.where == f"{name} of epoch 2"


def test_the_largest_difference_is_absolute_for_accuracies_and_relative_for_losses() -> None:
    again = [
        replace(EPOCHS[0], validation_accuracy=0.43),
        replace(EPOCHS[1], training_loss=2.1),
        EPOCHS[2],
    ]
    found = compare(EPOCHS, again)
    assert found.first == 1
    assert found.largest == pytest.approx(0.05)
    assert found.where == "training_loss of epoch 2"


def test_an_epoch_that_is_missing_differs_whatever_the_tolerance() -> None:
    for then, now in ((EPOCHS, EPOCHS[:2]), (EPOCHS[:2], EPOCHS)):
        found = compare(then, now)
        assert (found.first, found.largest, found.where) == (3, math.inf, "epoch 3 is missing")
