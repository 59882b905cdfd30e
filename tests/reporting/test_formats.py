from collections.abc import Callable
from typing import Any

import pytest

from pipeline.reporting import formats
from pipeline.reporting.language import ENGLISH


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (formats.percent, 0.9012, "90.1 %"),
        (ENGLISH.certainty, 0.9996, "over 99.9 %"),
        (ENGLISH.certainty, 0.99949, "99.9 %"),
        (ENGLISH.certainty, 1.0, "100.0 %"),
        (formats.magnitude, 269_722, "0.27 M"),
        (formats.magnitude, 40_550_000, "41 M"),
        (formats.magnitude, 410_300_000, "410 M"),
        (formats.magnitude, 4_100_000_000, "4.1 G"),
        (formats.magnitude, 12_345, "12 k"),
        (formats.magnitude, 4_321, "4,321"),
        (ENGLISH.speed, 3120.5, "3,120 images/s"),
        (ENGLISH.speed, 0, "0 images/s"),
        (formats.memory, 812 * 2**20, "812 MiB"),
        (formats.memory, 1.25 * 2**30, "1.2 GiB"),
        (formats.moment, "2026-10-03T14:41:07+02:00", "2026-10-03 12:41 UTC"),
        (formats.as_yaml, None, "null"),
        (formats.as_yaml, 0.0005, "0.0005"),
        (formats.as_yaml, "sgd", "sgd"),
    ],
)
def test_numbers_are_written_for_people(write: Callable[[Any], str], value: Any, text: str) -> None:
    assert write(value).replace("\u00a0", " ") == text
