"""Greyscale images of more than 8 bits: one scale for a data set, and a warning for a small range."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError
from pipeline.records import load_meta

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """`write("cat/0.tiff", values)`: an image of these values."""

    def write(name: str, values: Any) -> None:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(values)).save(path)

    return write


@pytest.fixture
def pixels(tmp_path: Path) -> Callable[[], list[int]]:
    """`pixels()`: the highest value of each image of the data set, the lowest first."""

    def pixels() -> list[int]:
        parts = [np.load(tmp_path / "project" / "data" / part / "images.npy") for part in ("train", "test")]
        return sorted(int(image.max()) for part in parts for image in part)

    return pixels


def ramp(low: float, high: float, index: int = 0, kind: Any = np.float32) -> np.ndarray:
    """8 x 8 values from `low` to `high`; those of different `index` differ."""
    return np.roll(np.linspace(low, high, 64), index).astype(kind).reshape(8, 8)


def test_a_dark_floating_point_image_stays_dark_among_those_of_0_to_255(
    run: Run, write: Callable[..., None], pixels: Callable[[], list[int]], tmp_path: Path
) -> None:
    for index in range(4):
        write(f"cat/{index}.tiff", ramp(0, 255, index))
        write(f"dog/{index}.tiff", ramp(0, 200, index))
    write("dog/black.tiff", np.zeros((8, 8), np.float32))
    write("dog/one.tiff", np.ones((8, 8), np.float32))
    run()
    assert pixels() == [0, 1, *[200] * 4, *[255] * 4]
    meta = load_meta(tmp_path / "project" / "data" / "meta.json")
    assert meta.highest_float == 255, "images from outside are to be scaled alike"


def test_floating_point_images_of_0_to_1_are_scaled_by_255(
    run: Run, write: Callable[..., None], pixels: Callable[[], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(4):
        write(f"cat/{index}.tiff", ramp(0, 1, index))
        write(f"dog/{index}.tiff", ramp(0, 0.2, index))
        write(f"dog/{index}.png", ramp(0, 250, index, np.uint8))
    run()
    assert pixels() == [*[51] * 4, *[250] * 4, *[255] * 4]
    assert capsys.readouterr().err == ""


def test_floating_point_images_of_two_ranges_are_refused_by_name(run: Run, write: Callable[..., None]) -> None:
    for index in range(4):
        write(f"cat/{index}.tiff", ramp(0, 255, index))
        write(f"dog/{index}.tiff", ramp(0, 1, index))
    with pytest.raises(DataError) as error:
        run()
    assert "4 floating-point images have values from 0 to 1, such as" in str(error.value)
    assert "dog/0.tiff" in str(error.value)
    assert "and 4 have larger ones" in str(error.value)


@pytest.mark.parametrize("value", [-1.0, 300.0, np.nan, np.inf])
def test_a_floating_point_image_outside_of_the_range_is_named(
    run: Run, write: Callable[..., None], value: float
) -> None:
    for index in range(4):
        write(f"cat/{index}.tiff", ramp(0, 255, index))
        write(f"dog/{index}.tiff", ramp(0, 200, index))
    write("dog/bad.tiff", np.where(np.eye(8) > 0, value, 100).astype(np.float32))
    with pytest.raises(DataError, match=r"one image can't be read.*\n.*dog/bad\.tiff: its values go from"):
        run()


@pytest.mark.parametrize(
    ("low", "high", "kind", "ending", "warns"),
    [
        (0, 4095, np.uint16, "png", True),
        (0, 4095, np.int32, "tiff", True),
        (0, 255, np.int32, "tiff", True),
        (30_000, 34_000, np.uint16, "tiff", True),
        (0, 60_000, np.uint16, "png", False),
        (0, 0.01, np.float32, "tiff", True),
        (0, 200, np.uint8, "png", False),
        (0, 9, np.uint8, "png", False),
    ],
)
def test_wide_images_that_fill_a_small_part_of_their_range_get_a_warning(
    run: Run,
    write: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    low: float,
    high: float,
    kind: Any,
    ending: str,
    warns: bool,
) -> None:
    for index in range(4):
        write(f"cat/{index}.{ending}", ramp(low, high, index, kind))
        write(f"dog/{index}.{ending}", ramp(low, (low + high) / 2, index, kind))
    with suppress(DataError) if high == 255 else nullcontext():  # in 8 bits these are equal
        run(image_size=8)
    errors = capsys.readouterr().err
    assert (f"the values of 8 images of more than 8 bits go from {low:g} to {high:g} only" in errors) == warns
