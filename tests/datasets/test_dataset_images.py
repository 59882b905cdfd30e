"""Image files of any size and mode become RGB of one size."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import images
from pipeline.datasets.wide import Scale

RED, GREY, WHITE = (200, 30, 30), (90, 90, 90), (255, 255, 255)


def rgb(path: Path, side: int, highest_float: int = 255) -> np.ndarray:
    return images.rgb(path, side, Scale(highest_float))


def colour_of(path: Path, side: int = 8, highest_float: int = 255) -> tuple[int, ...]:
    """The one colour that all pixels have."""
    pixels = rgb(path, side, highest_float)
    assert (pixels.shape, pixels.dtype) == ((side, side, 3), np.uint8)
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colours) == 1
    return tuple(int(value) for value in colours[0])


@pytest.mark.parametrize(
    ("image", "ending", "expected"),
    [
        (Image.new("RGB", (20, 30), RED), "png", RED),
        (Image.new("RGB", (20, 30), RED), "webp", RED),
        (Image.new("RGB", (20, 30), RED), "tiff", RED),
        (Image.new("L", (9, 5), 90), "png", GREY),
        (Image.new("L", (9, 5), 90), "pgm", GREY),
        (Image.new("1", (9, 5), 1), "png", WHITE),
        (Image.new("1", (9, 5), 1), "pbm", WHITE),
        (Image.new("RGB", (30, 20), RED).quantize(4), "gif", RED),
        (Image.new("RGB", (30, 20), RED).quantize(4), "png", RED),
        (Image.new("RGBA", (30, 20), (*RED, 0)), "png", WHITE),
        (Image.new("RGBA", (30, 20), (*RED, 255)), "png", RED),
        (Image.new("RGBA", (30, 20), (0, 0, 0, 51)), "png", (204, 204, 204)),
        (Image.new("LA", (30, 20), (90, 0)), "png", WHITE),
        (Image.new("CMYK", (30, 20), (0, 255, 255, 0)), "tiff", (255, 0, 0)),
        (Image.new("YCbCr", (30, 20), (90, 128, 128)), "tiff", GREY),
        (Image.fromarray(np.full((20, 30), 90 * 257, dtype=np.uint16)), "png", GREY),
        (Image.fromarray(np.full((20, 30), 90 * 257, dtype=np.uint16)), "tiff", GREY),
        (Image.fromarray(np.full((20, 30), 90 * 257, dtype=np.int32)), "tiff", GREY),
        (Image.fromarray(np.full((20, 30), 90 / 255, dtype=np.float32)), "tiff", GREY),
        (Image.fromarray(np.full((20, 30), 90, dtype=np.float32)), "tiff", GREY),
        (Image.new("RGB", (1, 1), RED), "bmp", RED),
        (Image.new("RGB", (1, 300), RED), "png", RED),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_each_mode_and_format_gives_the_colour_that_a_person_sees(tmp_path, image, ending, expected):
    path = tmp_path / f"image.{ending}"
    image.save(path, **({"lossless": True} if ending == "webp" else {}))
    floats_to_1 = image.mode == "F" and np.asarray(image).max() <= 1
    assert colour_of(path, highest_float=1 if floats_to_1 else 255) == expected


def test_a_transparent_entry_of_a_palette_becomes_white(tmp_path):
    image = Image.new("P", (10, 10), 0)
    image.putpalette([*RED, 0, 0, 0])
    image.save(tmp_path / "a.png", transparency=b"\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert colour_of(tmp_path / "a.png") == WHITE


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_an_image_is_rotated_according_to_its_exif_data(tmp_path, ending):
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8] = 255  # the upper half is bright; orientation 3 rotates by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / f"a.{ending}", exif=exif)
    turned = rgb(tmp_path / f"a.{ending}", 16)
    assert turned[:7].max() < 20
    assert turned[9:].min() > 235


@pytest.mark.parametrize("size", [(60, 20), (20, 60)])
def test_the_middle_square_is_kept(tmp_path, size):
    image = Image.new("RGB", size, RED)
    # Two more pixels on each side, because the antialiasing of the edge uses them too.
    image.paste(GREY, ((size[0] - 24) // 2, (size[1] - 24) // 2, (size[0] + 24) // 2, (size[1] + 24) // 2))
    image.save(tmp_path / "a.png")
    assert colour_of(tmp_path / "a.png", side=10) == GREY


def test_shrinking_averages_instead_of_dropping_pixels(tmp_path):
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    inner = rgb(tmp_path / "a.png", 8)[:, 1:-1]
    assert 120 <= inner.min() <= inner.max() <= 135


def test_a_large_jpeg_gives_nearly_what_a_lossless_image_gives(tmp_path):
    slope = np.linspace(0, 255, 800)
    pixels = np.stack([np.tile(slope, (600, 1)), np.tile(slope[:600, None], (1, 800)), np.full((600, 800), 90)], axis=2)
    image = Image.fromarray(pixels.astype(np.uint8))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    difference = rgb(tmp_path / "a.png", 32).astype(int) - rgb(tmp_path / "a.jpg", 32)
    assert abs(difference).max() <= 4


def test_an_image_of_the_right_size_keeps_every_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(rgb(tmp_path / "a.png", 8), pixels)


def test_values_beyond_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="its values go from 0 to 70000, where 0 to 65535 are allowed"):
        rgb(tmp_path / "a.tiff", 8)


def test_postscript_with_the_ending_of_an_image_is_not_executed(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError, match="cannot identify image file"):
        rgb(tmp_path / "a.png", 8)
