"""Image files of any size and mode -> uint8 RGB of one size.

An image is rotated according to its EXIF data. Transparent parts become white. Greyscale of more than 8 bits is scaled
to 8 (wide.py).
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
from pipeline.datasets.wide import FloatRange, Scale, UnknownScale, float_range, is_wide
from pipeline.errors import DataError
from pipeline.files import atomic_write
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

    list_file: Path
    """Gets the names of all unreadable images if they are too many for a message."""
    scale: Scale
    """Of images of more than 8 bits."""

    def chunks(
        self, paths: Sequence[Path], *, earlier: Sequence[Path] = (), later: Sequence[Path] = ()
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Chunks of images [n, side, side, 3] in the order of `paths`.

        `earlier` and `later` are the other images of the data set, those that were decoded and those that will be.
        Raises DataError if an image is unreadable: it names all unreadable ones among the rest of `paths` and `later`.
        """
        size = max(1, min(4 * granted_cores(), _CHUNK_BYTES // (3 * self.side**2)))
        for start in range(0, len(paths), size):
            decoded = self._decode(paths[start : start + size])
            if any(isinstance(image, UnknownScale) for image in decoded):
                self._decide_scale([*earlier, *paths, *later])
                decoded = self._decode(paths[start : start + size])
            if any(isinstance(image, str) for image in decoded):
                raise self._unreadable([*paths[start:], *later], size)
            self.advance(len(decoded))
            yield np.stack([image for image in decoded if isinstance(image, np.ndarray)])

    def _unreadable(self, rest: Sequence[Path], size: int) -> DataError:
        problems: list[str] = []
        for start in range(0, len(rest), size):
            group = rest[start : start + size]
            decoded = zip(group, self._decode(group), strict=True)
            problems += [f"  {self.name_of(path)}: {found}" for path, found in decoded if isinstance(found, str)]
            self.advance(len(group))
        count = "one image" if len(problems) == 1 else "some images"
        if len(problems) > _MOST_LISTED:
            with atomic_write(self.list_file) as aside:
                aside.write_text("\n".join(problem.strip() for problem in problems) + "\n", encoding="utf-8")
            more = f"  and {len(problems) - _MOST_LISTED:,} more; {self.list_file} has all {len(problems):,}"
            problems[_MOST_LISTED:] = [more]
        listed = "\n".join(problems)
        return DataError(f"{count} can't be read; repair or remove what is named here and run again:\n{listed}")

    def _decide_scale(self, paths: Sequence[Path]) -> None:
        """Raises DataError if the floating-point images among all images of the data set have two scales."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = zip(paths, self.pool.map(_float_range, paths), strict=True)
            self.scale.decide([(path, values) for path, values in found if values is not None], self.name_of)

    def _decode(self, paths: Sequence[Path]) -> list[npt.NDArray[np.uint8] | str | UnknownScale]:
        """For each path the image, or the reason why it can't be read."""
        # Warning filters apply to the whole process, so they are set here and not in the threads.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return list(self.pool.map(self._decode_one, paths))

    def _decode_one(self, path: Path) -> npt.NDArray[np.uint8] | str | UnknownScale:
        try:
            return rgb(path, self.side, self.scale)
        except UnknownScale as unknown:
            return unknown
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which could fill the memory; make it smaller"
        except UnidentifiedImageError:
            return _unidentified(path)
        except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
            return str(error) or type(error).__name__


def rgb(path: Path, side: int, scale: Scale) -> npt.NDArray[np.uint8]:
    """The image as uint8 [side, side, 3]. Raises any exception of Pillow for a damaged file or one of another kind.

    Raises UnknownScale for a floating-point image if `scale` is not decided.
    """
    if not path.is_file():
        raise ValueError("it is not a file (a broken link?)")
    with Image.open(path, formats=_formats()) as image:
        # A JPEG decodes faster at 1/2, 1/4 or 1/8 of its size. Twice `side` is left for the antialiasing.
        image.draft(None, (2 * side, 2 * side))
        upright = ImageOps.exif_transpose(image)
        return np.asarray(ImageOps.fit(_eight_bit_rgb(upright, scale), (side, side), Image.Resampling.BILINEAR))


def _float_range(path: Path) -> FloatRange | None:
    """The values of a floating-point image; None for others, and for those that can't be read."""
    try:
        with Image.open(path, formats=_formats()) as image:
            return float_range(image)
    except Exception:  # as in `_decode_one`, which says what is wrong
        return None


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


def _eight_bit_rgb(image: Image.Image, scale: Scale) -> Image.Image:
    if is_wide(image):
        return scale.eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")
