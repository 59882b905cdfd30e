"""Test images that look nearly like a training image: recompressed, brighter, cropped a little, taken a moment later.

Each test image is compared with the one training image whose 8x8 grey version correlates best with its own. The pair
counts if the fine detail of their 32x32 grey versions correlates too, at the best of a few shifts.

Digits, faces or X-rays are similar by nature. So some test images are also compared with the best training image of
another class, and if such pairs pass the test too, nothing is counted. docs/data.md has what was measured.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.datasets import progress
from pipeline.records import NearDuplicates

LEAST_SIDE = 32
"""Smaller images are not compared."""
COARSE_CORRELATION = 0.9
DETAIL_CORRELATION = 0.7
FALSE_ALARMS = 0.005
"""Share of test images that look like an image of another class, above which the count is not believed."""
MOST_PAIRS = 10_000_000_000
"""Of images that are compared; of more, a part of the test images is looked at."""

_CONTROLS = 2_000
_COARSE, _FINE = 8, 32  # sides
_SHIFT = 2  # of 32 pixels, in each direction
_BLUR = 5
_SCALE = 4000.0  # coarse values are whole: sums of their products are exact, and equal on every machine
_CHUNK = 500
_BLOCK = 1 << 24  # correlations at a time
_MOST_EXAMPLES = 5

_Images = npt.NDArray[np.uint8]
_Integers = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float32]


class Labelled(NamedTuple):
    """Images with their labels: those of data/train, or those of data/test."""

    images: _Images
    """[N, H, W, C]"""
    labels: _Integers


def find(training: Labelled, test: Labelled, pair_text: Callable[[int, int], str]) -> NearDuplicates | None:
    """Counts the test images that look like one of the training images, but don't equal it.

    `pair_text` names a pair by the positions of both images. None if the images are too small, or similar by nature.
    """
    if min(test.images.shape[1:3]) < LEAST_SIDE:
        return None
    chosen = _spread(len(test.labels), MOST_PAIRS // len(training.labels))
    with progress.image_bar("comparing", len(training.labels) + len(chosen)) as advance:
        learned = _coarse(training.images, np.arange(len(training.labels)), advance)
        tested = _coarse(test.images, chosen, advance)
    control = _spread(len(chosen), _CONTROLS)
    classes = training.labels, test.labels[chosen[control]]
    of_two_classes = _alike(training, test, *_nearest(learned, tested[control], chosen[control], classes))
    if len(of_two_classes) > FALSE_ALARMS * len(control):
        return None
    pairs = _alike(training, test, *_nearest(learned, tested, chosen))
    return NearDuplicates(len(pairs), len(chosen), [pair_text(*pair) for pair in pairs[:_MOST_EXAMPLES]])


def announce(found: NearDuplicates) -> None:
    """Prints the count, if there are any."""
    if found.test:
        print(
            f"{found.test:,} of {found.compared:,} test images look nearly like a training image, such as "
            f"{'; '.join(found.examples)}: the test accuracy flatters (docs/data.md)"
        )


def _spread(count: int, most: int) -> _Integers:
    """Up to `most` of `count` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, max(1, min(count, most))).astype(np.int64))


def _nearest(
    learned: _Floats, tested: _Floats, positions: _Integers, classes: tuple[_Integers, _Integers] | None = None
) -> tuple[_Integers, _Integers]:
    """Candidates: positions of training images, and those of the test images that each is the nearest to.

    `positions` are those of the `tested`. With `classes` of the learned and the tested, those of two classes.
    """
    nearest = np.empty(len(tested), dtype=np.int64)
    correlation = np.empty(len(tested), dtype=np.float32)
    size = max(1, _BLOCK // len(learned))
    for start in range(0, len(tested), size):
        block = slice(start, start + size)
        correlations = tested[block] @ learned.T
        if classes:
            correlations[classes[1][block, None] == classes[0]] = -np.inf
        nearest[block] = correlations.argmax(axis=1)
        correlation[block] = correlations.max(axis=1)
    near = correlation > COARSE_CORRELATION * _SCALE**2
    return nearest[near], positions[near]


def _alike(training: Labelled, test: Labelled, learned: _Integers, tested: _Integers) -> list[tuple[int, int]]:
    """Those of the pairs of positions whose images have alike details, but are not equal."""
    pairs = []
    for start in range(0, len(tested), _CHUNK):
        ours, theirs = learned[start : start + _CHUNK], tested[start : start + _CHUNK]
        one, other = training.images[ours], test.images[theirs]
        alike = _detail_correlation(one, other) > DETAIL_CORRELATION
        alike &= (one != other).any(axis=(1, 2, 3))
        pairs += list(zip(ours[alike].tolist(), theirs[alike].tolist(), strict=True))
    return pairs


def _coarse(images: _Images, positions: _Integers, advance: Callable[[int], None]) -> _Floats:
    """[n, 64], whole numbers of mean 0 and length `_SCALE`, by which images correlate as their products say."""
    rows = np.empty((len(positions), _COARSE**2), dtype=np.float32)
    for start in range(0, len(positions), _CHUNK):
        chunk = images[positions[start : start + _CHUNK]]
        values = _shrunk(chunk, _COARSE).reshape(len(chunk), -1).astype(np.float64)
        values -= values.mean(axis=1, keepdims=True)
        length = np.linalg.norm(values, axis=1, keepdims=True)
        rows[start : start + len(chunk)] = np.rint(values * (_SCALE / np.maximum(length, 1e-9)))
        advance(len(chunk))
    return rows


def _detail_correlation(one: _Images, other: _Images) -> npt.NDArray[np.float64]:
    """[n], of two stacks of images: the best over all shifts."""
    inside = _FINE - 2 * _SHIFT
    fixed = _detail(one)[:, _SHIFT:-_SHIFT, _SHIFT:-_SHIFT]
    moving = _detail(other)
    best = np.zeros(len(one))
    for down in range(2 * _SHIFT + 1):
        for right in range(2 * _SHIFT + 1):
            moved = moving[:, down : down + inside, right : right + inside]
            products = np.einsum("nij,nij->n", fixed, moved)
            lengths = np.sqrt(np.einsum("nij,nij->n", fixed, fixed) * np.einsum("nij,nij->n", moved, moved))
            best = np.maximum(best, products / np.maximum(lengths, 1e-9))
    return best


def _detail(images: _Images) -> npt.NDArray[np.float64]:
    """[n, 32, 32]: grey images without their blurred version, so that a gradient or a horizon counts little."""
    grey = _shrunk(images, _FINE).astype(np.float64)
    edge = _BLUR // 2
    padded = np.pad(grey, ((0, 0), (edge, edge), (edge, edge)), mode="edge")
    windows = [padded[:, down : down + _FINE, right : right + _FINE] for down in range(_BLUR) for right in range(_BLUR)]
    detail: npt.NDArray[np.float64] = grey - sum(windows) / _BLUR**2
    return detail


def _shrunk(images: _Images, side: int) -> _Floats:
    """[n, side, side]: mean values of all channels in a grid of rectangles."""
    count, height, width, channels = images.shape
    down, across = _membership(height, side), np.repeat(_membership(width, side), channels, axis=1)
    # Sums of whole numbers, below 2^24 for images of up to 1024 pixels, and so exact.
    sums = down @ (images.reshape(count * height, -1).astype(np.float32) @ across.T).reshape(count, height, side)
    return np.asarray(sums / np.outer(down.sum(axis=1), across.sum(axis=1)), dtype=np.float32)


def _membership(pixels: int, side: int) -> _Floats:
    """[side, pixels], 1 where a pixel belongs to a cell of the grid."""
    cell = np.arange(pixels) * side // pixels
    belongs: npt.NDArray[np.bool_] = cell == np.arange(side)[:, None]
    return belongs.astype(np.float32)
