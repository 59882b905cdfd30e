"""Nearly equal images: counted where they are, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageEnhance
from sklearn.datasets import load_digits

from pipeline.datasets import near_duplicates
from pipeline.datasets.near_duplicates import Labelled


def scene(seed: int, side: int = 64) -> Image.Image:
    """Random blobs of many sizes, as different from one seed to the next as photographs are."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((side, side), 3))
        for cells in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def stack(images: list[Image.Image], labels: list[int] | None = None) -> Labelled:
    pixels = np.stack([np.asarray(image) for image in images])
    return Labelled(pixels, np.array(labels or [0, 1] * (len(images) // 2), dtype=np.int64))


def text(one: int, other: int) -> str:
    return f"{one} ~ {other}"


def test_images_that_were_changed_a_little_are_counted_and_different_or_equal_ones_are_not(tmp_path: Path) -> None:
    training = [scene(seed) for seed in range(40)]
    training[3].save(tmp_path / "again.jpg", quality=40)
    changed = [
        Image.open(tmp_path / "again.jpg"),
        ImageEnhance.Brightness(training[10]).enhance(1.3),
        ImageChops.offset(training[21], 2, 0),
        ImageEnhance.Color(training[30]).enhance(0.5),
    ]
    test = stack([*changed, training[5], *(scene(seed) for seed in range(100, 121))], [1, 0, 1, 0, 1, *[0, 1, 0] * 7])
    found = near_duplicates.find(stack(training), test, text)
    assert found is not None
    assert (found.test, found.compared) == (4, 26)
    assert found.examples == ["3 ~ 0", "10 ~ 1", "21 ~ 2", "30 ~ 3"]


def test_digits_which_are_alike_by_nature_are_not_counted() -> None:
    bunch = load_digits()
    images = [Image.fromarray(np.uint8(image * 15.9)).resize((32, 32)) for image in bunch.images[:1200]]
    pixels = np.stack([np.asarray(image) for image in images])[..., None]
    parts = [Labelled(pixels[start::4], bunch.target[:1200][start::4]) for start in range(4)]
    learned = Labelled(*(np.concatenate(both) for both in zip(*parts[1:], strict=True)))
    assert near_duplicates.find(learned, parts[0], text) is None


def test_small_images_are_not_compared() -> None:
    small = stack([scene(seed, 28) for seed in range(4)])
    assert near_duplicates.find(small, small, text) is None


def test_of_too_many_images_a_part_of_the_test_images_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST_PAIRS", 100)
    training, test = (stack([scene(seed) for seed in range(start, start + 20)]) for start in (0, 50))
    found = near_duplicates.find(training, test, text)
    assert found is not None
    assert (found.test, found.compared) == (0, 5)
