"""Free space on the disk, and errors of the disk as sentences for the user."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

from pipeline.errors import DataError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of `folder`. The folder need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require(needed_bytes: int, folder: Path, what: str) -> None:
    """Raises DataError if the disk of `folder` has not enough space for `what`."""
    free = free_bytes(folder)
    if needed_bytes > free:
        raise DataError(
            f"no space left for {what}: {decimal(needed_bytes)} are needed in {folder}, {decimal(free)} are free. "
            "Free some space there, or move the project to a larger disk, and run again."
        )


@contextmanager
def disk_errors(doing: str, folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns an OSError inside the block into a DataError that says what failed, where, and what to do."""
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        if error.errno in _NO_SPACE:
            needed = f"{decimal(needed_bytes)} are needed, " if needed_bytes else ""
            raise DataError(
                f"no space left while {doing} in {folder}: {needed}{decimal(free_bytes(folder))} are free. "
                "Free some space there, or move the project to a larger disk, and run again."
            ) from error
        if error.errno in _NO_PERMISSION:
            raise DataError(
                f"{doing} failed: {place} can't be accessed ({error.strerror}). Correct its permissions and run again."
            ) from error
        raise DataError(f"{doing} failed at {place}: {error.strerror or error}.") from error
