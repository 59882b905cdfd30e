"""An image from outside, as a trained network takes it: decoded and resized as `download` does it.

A copy of this module, and of those that it imports, travels with each MLflow model: it uses the standard library, NumPy
and Pillow alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.datasets.images import read
from pipeline.datasets.wide import Scale, UnknownScale


def pixels(source: Path | IO[bytes], shape: Sequence[int], highest_float: int | None) -> npt.NDArray[np.uint8] | str:
    """The image as uint8 [C, H, W], or why it can't be read. To be called inside of `images.strict_warnings`.

    `shape` is that of the training images, [C, H, W] with H = W, `highest_float` their scale. An image of another size
    is cut to its centre square and resized, whether or not the training images were: they are at that size. For
    networks of one channel it becomes its luminance.
    """
    channels, side, _ = shape
    try:
        found = read(source, side, Scale(highest_float))
    except UnknownScale:
        return "it has floating-point values, which the network was trained without: save it with 8 or 16 bits"
    if isinstance(found, str):
        return found
    if channels == 1:
        found = np.asarray(Image.fromarray(found).convert("L"))[..., np.newaxis]
    return np.ascontiguousarray(found.transpose(2, 0, 1))
