"""Greyscale images of more than 8 bits. What their values are scaled by is decided for a data set as a whole.

Integers go from 0 to 65535. Floating-point values go from 0 to 1 or from 0 to 255: whichever all images of the data set
fit into.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import DataError

HIGHEST_INTEGER = 65535
Seen = dict[int, tuple[float, float, int]]
"""By highest possible value: lowest and highest value of wide images, their number."""

_SMALL_PART = 1 / 4  # of the range: 14 bits in 16
_MOST_LISTED = 5


class UnknownScale(Exception):
    """A floating-point image was met before `Scale.decide`."""


@dataclass(frozen=True)
class FloatRange:
    """The values of a floating-point image."""

    highest: float
    whole: bool
    """Whether all values are whole numbers."""


class Scale:
    """The scale of wide images, and what was seen of them."""

    def __init__(self, highest_float: int | None = None) -> None:
        self.highest_float = highest_float
        """1 or 255; None until it is decided."""
        self.seen: Seen = {}

    def eight_bits(self, image: Image.Image) -> Image.Image:
        """An image of 8 bits. Raises UnknownScale, and ValueError for values outside of the range."""
        values = np.asarray(image).astype(np.float64)
        highest = HIGHEST_INTEGER if image.mode != "F" else self.highest_float
        if highest is None:
            raise UnknownScale
        low, high = values.min(), values.max()
        if not (np.isfinite(values).all() and low >= 0 and high <= highest):
            raise ValueError(f"its values go from {low:g} to {high:g}, where 0 to {highest} are allowed")
        self.add({highest: (float(low), float(high), 1)})
        return Image.fromarray(np.rint(values * (255 / highest)).astype(np.uint8))

    def add(self, seen: Seen) -> None:
        """Adds what was seen elsewhere."""
        for highest, (low, high, count) in seen.items():
            lowest, largest, before = self.seen.get(highest, (low, high, 0))
            self.seen[highest] = min(lowest, low), max(largest, high), before + count

    def decide(self, found: Iterable[tuple[Path, FloatRange]], name_of: Callable[[Path], str]) -> None:
        """Decides the scale of floating-point images by all of them. Raises DataError if they seem to have two."""
        ranges = list(found)
        over_1 = [path for path, values in ranges if values.highest > 1]
        fractions = [path for path, values in ranges if 0 < values.highest <= 1 and not values.whole]
        if over_1 and fractions:
            raise DataError(
                f"{len(fractions)} floating-point images have values from 0 to 1, such as "
                f"{', '.join(map(name_of, fractions[:_MOST_LISTED]))}, and {len(over_1)} have larger ones, such as "
                f"{', '.join(map(name_of, over_1[:_MOST_LISTED]))}. All must have one range, 0 to 1 or 0 to 255: scale "
                "them alike, or save them with 8 or 16 bits."
            )
        self.highest_float = 255 if over_1 else 1

    def warnings(self) -> list[str]:
        """A sentence for each kind of wide images whose values fill a small part of their range."""
        return [
            f"the values of {count:,} image{'s' if count > 1 else ''} of more than 8 bits go from {low:g} to {high:g} "
            f"only, where 0 to {highest} are possible, so little contrast is left in 8 bits. If that is not meant, "
            "scale the images to the full range"
            for highest, (low, high, count) in self.seen.items()
            if high - low <= _SMALL_PART * highest
        ]


def is_wide(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def float_range(image: Image.Image) -> FloatRange | None:
    """The values of a floating-point image; None for other images."""
    if image.mode != "F":
        return None
    values: npt.NDArray[np.float32] = np.asarray(image)
    finite = values[np.isfinite(values)]
    return FloatRange(float(finite.max(initial=0)), bool((finite == np.rint(finite)).all()))
