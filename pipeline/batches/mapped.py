"""Memory maps of large files: advice to the kernel on what will be read and what was read. Other arrays are left alone.

By itself it reads megabytes around each image that is not in its cache. A small file is soon in it as a whole. Of one
that is larger than the memory, images in random order would cost many times the reading, and one wait after another.
"""

import mmap
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

_NEEDED: int | None = getattr(mmap, "MADV_WILLNEED", None)
_READ: int | None = getattr(mmap, "MADV_DONTNEED", None)
"""None under Windows, which has neither."""
_LARGE_BYTES = 1 << 30


def read_ahead(array: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
    """Begins to read rows of a large map from disk, all at once and nothing but them; does not wait."""
    file = _file(array)
    if file is None or _NEEDED is None:
        return
    size = array[:1].nbytes
    first = _offset(array) + rows * size
    pages = first - first % mmap.PAGESIZE
    with suppress(OSError):  # it is advice: where a kernel refuses it, reading works too
        for start, length in zip(pages.tolist(), (first + size - pages).tolist(), strict=True):
            file.madvise(_NEEDED, start, length)


def release(array: npt.NDArray[Any]) -> None:
    """Takes the pages of a large map out of this process; they stay in the kernel's cache while it has room.

    Otherwise all pages that were ever read count as memory of the process, in its peak too.
    """
    file = _file(array)
    if file is not None and _READ is not None:
        with suppress(OSError):
            file.madvise(_READ)


def _file(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The map of a large array that np.load gave as read-only; a writable one would lose what was written to it."""
    base: object = array.base
    if isinstance(array, np.memmap) and isinstance(base, mmap.mmap) and array.mode == "r":
        return base if array.nbytes >= _LARGE_BYTES else None
    return None


def _offset(array: npt.NDArray[Any]) -> int:
    """Of the array in its map, which begins at a multiple of the granularity."""
    offset: int = array.offset  # type: ignore[attr-defined]
    return offset % mmap.ALLOCATIONGRANULARITY
