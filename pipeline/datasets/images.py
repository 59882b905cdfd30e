"""Image files of any size and mode -> uint8 RGB of one size.

An image is rotated according to its EXIF data. Transparent parts become white, and greyscale of 16 bits is scaled to 8.
The largest square in the middle is kept and resized with antialiasing (bilinear). That equals resizing the shorter side
and cropping. Of an animation the first frame is used.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.datasets.signatures import READABLE, format_of
from pipeline.errors import DataError
from pipeline.machine import granted_cores

_ENDINGS = ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .heic .heif"
ENDINGS = frozenset(_ENDINGS.split())
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
_MOST_LISTED = 20
_CHUNK_BYTES = 64 << 20  # of decoded images in memory


@dataclass(frozen=True)
class ImageReader:
    """Decodes images on all cores and keeps their order."""

    side: int
    """Side of the results, in pixels."""
    pool: ThreadPoolExecutor
    name_of: Callable[[Path], str]
    """The name of an image in errors."""
    advance: Callable[[int], None]
    """Called with the number of images decoded since the last call."""

    def chunks(self, paths: Sequence[Path], later: Sequence[Path] = ()) -> Iterator[npt.NDArray[np.uint8]]:
        """Chunks of images [n, side, side, 3] in the order of `paths`.

        Raises DataError if an image is unreadable. It names up to 20 unreadable images among the rest of `paths` and
        `later`.
        """
        size = max(1, min(4 * granted_cores(), _CHUNK_BYTES // (3 * self.side**2)))
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
            decoded = zip(group, self._decode(group), strict=True)
            problems += [f"  {self.name_of(path)}: {found}" for path, found in decoded if isinstance(found, str)]
            if len(problems) > _MOST_LISTED:
                problems[_MOST_LISTED:] = ["  and more"]
                break
        count = "one image" if len(problems) == 1 else "some images"
        listed = "\n".join(problems)
        return DataError(f"{count} can't be read; repair or remove what is named here and run again:\n{listed}")

    def _decode(self, paths: Sequence[Path]) -> list[npt.NDArray[np.uint8] | str]:
        """For each path the image, or the reason why it can't be read."""
        # Warning filters apply to the whole process, so they are set here and not in the threads.
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
            return _unidentified(path)
        except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
            return str(error) or type(error).__name__


def rgb(path: Path, side: int) -> npt.NDArray[np.uint8]:
    """The image as uint8 [side, side, 3]. Raises any exception of Pillow for a damaged file or one of another kind."""
    if not path.is_file():
        raise ValueError("it is not a file (a broken link?)")
    with Image.open(path, formats=_formats()) as image:
        # A JPEG decodes faster at 1/2, 1/4 or 1/8 of its size. Twice `side` is left for the antialiasing.
        image.draft(None, (2 * side, 2 * side))
        upright = ImageOps.exif_transpose(image)
        return np.asarray(ImageOps.fit(_eight_bit_rgb(upright), (side, side), Image.Resampling.BILINEAR))


def _unidentified(path: Path) -> str:
    """Why no decoder takes a file."""
    if not path.stat().st_size:
        return "it is empty"
    form = format_of(path)
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


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _from_wide_values(image).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _from_wide_values(image: Image.Image) -> Image.Image:
    """Greyscale of 8 bits, from integer values 0..65535 or from floating-point values 0..1 or 0..255."""
    values = np.asarray(image).astype(np.float64)
    highest = 65535 if image.mode != "F" else 1 if values.max() <= 1 else 255
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= highest):
        raise ValueError(f"its values go from {values.min():g} to {values.max():g}, where 0 to {highest} are allowed")
    return Image.fromarray(np.rint(values * (255 / highest)).astype(np.uint8))
