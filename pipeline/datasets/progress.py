"""Progress bars on standard error, with the time that is left; silent where that is no terminal."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def counted_bytes(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar over bytes; the block calls what it gets with each number of bytes that has come."""
    with _bar(DownloadColumn(), TransferSpeedColumn()) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda count: progress.advance(task, count)


@contextmanager
def counted_images(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over images; the block calls what it gets with each number of images that is done."""
    with _bar(MofNCompleteColumn()) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def read_bytes(path: Path, description: str) -> Iterator[IO[bytes]]:
    """`path`, open for reading, with a bar that follows the position in it."""
    with (
        _bar(DownloadColumn(), TransferSpeedColumn()) as progress,
        progress.open(path, "rb", buffering=0, description=description) as file,
    ):
        # Decompressors read a few kilobytes at a time, and each read of `file` moves the bar.
        yield io.BufferedReader(cast(io.RawIOBase, file), 1 << 20)


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    return Progress(
        text,
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
