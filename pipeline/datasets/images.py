"""Image files of any size and mode -> uint8 RGB of one size.

An image is turned as its EXIF data says, transparency is laid on white, greyscale of 16 bits is scaled to 8. The
largest square in its middle is kept and resized with antialiasing (bilinear), which equals resizing the shorter side
and cropping. Of an animation it is the first frame.
"""

import functools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import DataError

_ENDINGS = ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .heic .heif"
ENDINGS = frozenset(_ENDINGS.split())
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
_MOST_TOLD = 20
_GROUP_BYTES = 64 << 20  # decoded images that wait to be written


@dataclass(frozen=True)
class ImageReader:
    """Decodes images on all cores, in the order that is asked for."""

    side: int
    """Pixels of the result."""
    pool: ThreadPoolExecutor
    name_of: Callable[[Path], str]
    """How an image is called in errors."""
    advance: Callable[[int], None]
    """Is told how many images more are done."""

    def chunks(self, paths: Sequence[Path], later: Sequence[Path] = ()) -> Iterator[npt.NDArray[np.uint8]]:
        """Images [n, side, side, 3] in the order of `paths`.

        Raises DataError that names up to 20 unreadable ones; those among `later` are looked for too before it does.
        """
        size = max(1, min(4 * (os.cpu_count() or 1), _GROUP_BYTES // (3 * self.side**2)))
        for start in range(0, len(paths), size):
            decoded = self._decode(paths[start : start + size])
            if any(isinstance(image, str) for image in decoded):
                raise self._unreadable(paths[start:], later, size)
            yield np.stack([image for image in decoded if not isinstance(image, str)])

    def _unreadable(self, paths: Sequence[Path], later: Sequence[Path], size: int) -> DataError:
        rest = [*paths, *later]
        problems: list[str] = []
        for start in range(0, len(rest), size):
            group = rest[start : start + size]
            answers = zip(group, self._decode(group), strict=True)
            problems += [f"  {self.name_of(path)}: {answer}" for path, answer in answers if isinstance(answer, str)]
            if len(problems) > _MOST_TOLD:
                problems[_MOST_TOLD:] = ["  and more"]
                break
        count = "one image" if len(problems) == 1 else "some images"
        listed = "\n".join(problems)
        return DataError(f"{count} can't be read; mend or remove what is named here and run again:\n{listed}")

    def _decode(self, paths: Sequence[Path]) -> list[npt.NDArray[np.uint8] | str]:
        """Each image, or why it can't be read."""
        # Filters belong to the whole process, so they are set here and not in the threads.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            decoded = list(self.pool.map(self._decode_one, paths))
        self.advance(len(paths))
        return decoded

    def _decode_one(self, path: Path) -> npt.NDArray[np.uint8] | str:
        try:
            return rgb(path, self.side)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which could fill the memory; make it smaller"
        except UnidentifiedImageError:
            return "it is no image in a known format" if path.stat().st_size else "it is empty"
        except Exception as error:  # on damaged files the decoders of Pillow raise nearly anything
            return str(error) or type(error).__name__


def rgb(path: Path, side: int) -> npt.NDArray[np.uint8]:
    """The image as uint8 [side, side, 3]. Raises whatever Pillow does for a file that is no whole image."""
    if not path.is_file():
        raise ValueError("it is no file (a link that leads nowhere?)")
    with Image.open(path, formats=_formats()) as image:
        # JPEG can be decoded at a half, a quarter or an eighth of its size; twice the result keeps the antialiasing.
        image.draft(None, (2 * side, 2 * side))
        upright = ImageOps.exif_transpose(image)
        return np.asarray(ImageOps.fit(_eight_bit_rgb(upright), (side, side), Image.Resampling.BILINEAR))


@functools.cache
def _formats() -> list[str]:
    """What may be inside an image file, whatever its ending: PostScript in a .png would start Ghostscript."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _from_wide_values(image).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _from_wide_values(image: Image.Image) -> Image.Image:
    """Greyscale with whole values 0..65535, or with fractions 0..1 or 0..255, as greyscale of 8 bits."""
    values = np.asarray(image).astype(np.float64)
    highest = 65535 if image.mode != "F" else 1 if values.max() <= 1 else 255
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= highest):
        raise ValueError(f"its values go from {values.min():g} to {values.max():g}, where 0 to {highest} are allowed")
    return Image.fromarray(np.rint(values * (255 / highest)).astype(np.uint8))
