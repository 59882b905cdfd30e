import numpy as np
import pytest

from pipeline.batches.images import Images
from pipeline.evaluation import examination


def test_images_that_look_more_like_another_class_are_suspect() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    probabilities = np.full((300, 3), 0.1)
    probabilities[np.arange(300), labels] = 0.8
    given = labels.copy()
    given[[7, 42]] = (labels[[7, 42]] + 1) % 3
    probabilities[42] = [0.02, 0.02, 0.02]
    probabilities[42, labels[42]] = 0.96
    probabilities[99] = [0.34, 0.33, 0.33]  # a doubtful image is none of them
    assert examination.suspects(probabilities, given).tolist() == [42, 7]


def test_right_labels_and_classes_without_images_are_not_suspect() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.2, 0.8, 0.0]])
    assert examination.suspects(probabilities, np.array([0, 0, 1])).tolist() == []
    probabilities[0] = [0.1, 0.1, 0.8]
    assert examination.suspects(probabilities, np.array([0, 0, 1])).tolist() == []


@pytest.mark.parametrize("channels", [1, 3])
def test_the_looks_of_images_are_told_apart(channels: int) -> None:
    dark, bright = np.full((8, 8, channels), 10), np.full((8, 8, channels), 240)
    board = np.indices((8, 8)).sum(axis=0)[..., None] % 2 * np.full(channels, 255)
    ramp = np.linspace(0, 255, 8)[None, :, None] * np.ones((8, 1, channels))
    pixels = np.stack([dark, bright, board, ramp]).astype(np.uint8)
    found = examination.appearance(Images(pixels, np.zeros(4, np.int64)))
    brightness, contrast, sharpness = found.T
    assert brightness[0] == pytest.approx(10, abs=0.1)
    assert brightness[1] == pytest.approx(240, abs=0.1)
    assert contrast[:2] == pytest.approx([0, 0], abs=1e-3)
    assert sharpness[2] > 10 * sharpness[3]


def test_many_images_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (50, 8, 8, 3), np.uint8), np.zeros(50, np.int64))
    whole = examination.appearance(images)
    monkeypatch.setattr(examination, "BLOCK", 7)
    assert examination.appearance(images) == pytest.approx(whole)
    assert examination.appearance(Images(images.pixels[:0], images.labels[:0])).shape == (0, 3)
