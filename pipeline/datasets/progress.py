"""Progress bars on standard error, with the remaining time. Nothing is shown if standard error is not a terminal."""

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
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


@contextmanager
def byte_bar(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar over bytes. The block calls the yielded function with each further number of bytes."""
    with _bar(DownloadColumn(), TransferSpeedColumn()) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda count: progress.advance(task, count)


@contextmanager
def image_bar(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar over images. The block calls the yielded function with each further number of images."""
    with _bar(MofNCompleteColumn(), _ImagesPerSecond()) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda count: progress.advance(task, count)


@contextmanager
def open_with_bar(path: Path, description: str) -> Iterator[IO[bytes]]:
    """`path`, open for reading. The bar follows the position in the file."""
    with (
        _bar(DownloadColumn(), TransferSpeedColumn()) as progress,
        progress.open(path, "rb", buffering=0, description=description) as file,
    ):
        # Each read of `file` redraws the bar, and decompressors read only a few kilobytes at a time: hence the buffer.
        yield io.BufferedReader(cast(io.RawIOBase, file), 1 << 20)


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


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
