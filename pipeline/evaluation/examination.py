"""What the images of the test set say beside the figures: labels that are probably wrong, and how the images look."""

import numpy as np

from pipeline.batches.images import Images
from pipeline.evaluation.metrics import Floats, Ints

BLOCK = 1024
"""Images that are looked at together: an image of a memory map is read once and let go."""

APPEARANCE = ("brightness", "contrast", "sharpness")
"""The columns of `appearance`."""


def suspects(probabilities: Floats, labels: Ints) -> Ints:
    """Positions of images whose label is probably wrong, the most probable first (Northcutt et al. 2021, section 3).

    A class's threshold is the mean probability that its own images have of it. An image is suspect if it is over the
    threshold of another class, and of none more than of that one. The order is that of the normalised margin between
    the two probabilities.
    """
    count, classes = probabilities.shape
    own = probabilities[np.arange(count), labels]
    support = np.bincount(labels, minlength=classes)
    # A class without images has no threshold, so that no image is thought to be of it.
    thresholds = np.where(
        support > 0, np.bincount(labels, weights=own, minlength=classes) / np.maximum(support, 1), np.inf
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    guess = confident.argmax(axis=1)
    found = np.flatnonzero((confident.max(axis=1) >= 0) & (guess != labels))
    margin = probabilities[found, guess[found]] - own[found]
    return found[np.argsort(-margin, kind="stable")][: int((margin > 0).sum())]


def appearance(images: Images) -> Floats:
    """float64 [N, 3]: brightness and contrast (mean and standard deviation of the luma, 0..255), and sharpness.

    Sharpness is the standard deviation of the luma's Laplacian (Pech-Pacheco et al. 2000): low for a blurred image.
    """
    found = [_looks(images.gather(block)) for block in _blocks(len(images.labels))]
    return np.concatenate(found) if found else np.empty((0, len(APPEARANCE)))


def _blocks(count: int) -> list[Ints]:
    return [np.arange(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]


def _looks(pixels: "np.typing.NDArray[np.uint8]") -> Floats:
    """Of uint8 [B, H, W, C]."""
    weights = np.array([0.299, 0.587, 0.114] if pixels.shape[3] == 3 else [1.0], dtype=np.float32)
    luma = pixels.astype(np.float32) @ weights
    inner = luma[:, 1:-1, 1:-1]
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4 * inner
    return np.stack(
        [luma.mean(axis=(1, 2)), luma.std(axis=(1, 2)), laplacian.std(axis=(1, 2))], axis=1, dtype=np.float64
    )
