"""Image files of any size and mode -> uint8 RGB of one size.

An image is rotated according to its EXIF data. Transparent parts become white. Greyscale of more than 8 bits is scaled
to 8 (wide.py).
The largest square in the middle is kept and resized with antialiasing (bilinear). That equals resizing the shorter side
and cropping. Of an animation the first frame is used.
"""

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.datasets.signatures import HEAD_BYTES, READABLE, format_by
from pipeline.datasets.wide import FloatRange, Scale, Seen, UnknownScale, float_range, is_wide

_ENDINGS = ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .heic .heif"
ENDINGS = frozenset(_ENDINGS.split())
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")


class Decoded(NamedTuple):
    """Some images, decoded one after another."""

    images: list[npt.NDArray[np.uint8]]
    """[side, side, 3] each, of those that can be read."""
    problems: dict[Path, str]
    """Why the others can't be read."""
    scale_missing: bool
    """Whether a floating-point image was met before its scale was decided; the images that follow were left out."""
    seen: Seen
    """Of images of more than 8 bits."""


def decode(paths: Sequence[Path], side: int, highest_float: int | None) -> Decoded:
    """Decodes images inside of `strict_warnings`; `highest_float` is that of their `Scale`."""
    scale = Scale(highest_float)
    decoded = Decoded([], {}, False, scale.seen)
    for path in paths:
        try:
            found = read(path, side, scale)
        except UnknownScale:
            return decoded._replace(scale_missing=True)
        if isinstance(found, str):
            decoded.problems[path] = found
        else:
            decoded.images.append(found)
    return decoded


def read(source: Path | IO[bytes], side: int, scale: Scale) -> npt.NDArray[np.uint8] | str:
    """The image as `rgb` gives it, or why it can't be read. To be called inside of `strict_warnings`.

    Raises UnknownScale for a floating-point image if `scale` is not decided.
    """
    try:
        return rgb(source, side, scale)
    except UnknownScale:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which could fill the memory; make it smaller"
    except UnidentifiedImageError:
        return _unidentified(source)
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        return str(error) or type(error).__name__


@contextmanager
def strict_warnings() -> Iterator[None]:
    """Pillow's warnings are silent in the block, but that of an image which could fill the memory is an error.

    Filters apply to the whole process: they are set around threads, not in them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def rgb(source: Path | IO[bytes], side: int, scale: Scale) -> npt.NDArray[np.uint8]:
    """The image as uint8 [side, side, 3]. Raises any exception of Pillow for a damaged file or one of another kind.

    Raises UnknownScale for a floating-point image if `scale` is not decided.
    """
    if isinstance(source, Path) and not source.is_file():
        raise ValueError("it is not a file (a broken link?)")
    with Image.open(source, formats=_formats()) as image:
        # A JPEG decodes faster at 1/2, 1/4 or 1/8 of its size. Twice `side` is left for the antialiasing.
        image.draft(None, (2 * side, 2 * side))
        upright = ImageOps.exif_transpose(image)
        return np.asarray(ImageOps.fit(_eight_bit_rgb(upright, scale), (side, side), Image.Resampling.BILINEAR))


def floats(path: Path) -> FloatRange | None:
    """The values of a floating-point image; None for others, and for those that can't be read."""
    try:
        with Image.open(path, formats=_formats()) as image:
            return float_range(image)
    except Exception:  # as in `decode`, which says what is wrong
        return None


def _unidentified(source: Path | IO[bytes]) -> str:
    """Why no decoder takes a file."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(HEAD_BYTES)
    else:
        source.seek(0)
        head = source.read(HEAD_BYTES)
    if not head:
        return "it is empty"
    form = format_by(head)
    if form is None:
        return "it is not an image of a known format"
    if form in READABLE:
        return f"it begins like {form}, but is damaged, or this installation of Pillow can't read {form}"
    return f"it is {form}, which can't be read here: convert it to JPEG or PNG"


@functools.cache
def _formats() -> list[str]:
    """Formats that an image file may have, whatever its ending. PostScript, say, would start Ghostscript."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _eight_bit_rgb(image: Image.Image, scale: Scale) -> Image.Image:
    if is_wide(image):
        return scale.eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")
