"""The decoded images of a data set on disk, until they are in its arrays. They outlive a kill, and decoding resumes.

    data/.decoded/images.bin      the images one after another, uint8 [side, side, 3] each
    data/.decoded/progress.json   how many of them are whole, and of which images

The folder is no output of the stage, so DVC leaves it when it runs the stage again.
"""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.datasets.wide import Scale
from pipeline.files import Project, atomic_write

SAVE_EVERY_S = 5.0


class Store:
    """A growing file of decoded images. To be used as a context, whose end saves it."""

    def __init__(self, project: Project, key: str, side: int, scale: Scale) -> None:
        """`key` stands for the images and how they are decoded. What was kept under another key is deleted.

        `scale` is set to what it was when the images were decoded that are kept.
        """
        self._folder, self._key, self._shape, self._scale = _folder(project), key, (side, side, 3), scale
        self._file = self._folder / "images.bin"
        self._progress = self._folder / "progress.json"
        self._saved_at = time.monotonic()
        self.count = 0
        """Images that are whole."""
        self._resume()

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        with self._file.open("ab") as file:
            file.truncate(self.count * self._image_bytes)
        self._open = self._file.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is not None or self._progress.exists():
                self._save()

    def append(self, images: Sequence[npt.NDArray[np.uint8]]) -> None:
        for image in images:
            self._open.write(image.data)
        self.count += len(images)
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self._save()

    def images(self) -> npt.NDArray[np.uint8]:
        """[count, side, side, 3], memory-mapped."""
        return np.memmap(self._file, np.uint8, "r", shape=(self.count, *self._shape))

    @property
    def _image_bytes(self) -> int:
        return int(np.prod(self._shape))

    def _save(self) -> None:
        """The order matters: the images that progress.json counts are on the disk before it is."""
        self._open.flush()
        os.fsync(self._open.fileno())
        content = {
            "key": self._key,
            "count": self.count,
            "highest_float": self._scale.highest_float,
            "seen": list(self._scale.seen.items()),
        }
        with atomic_write(self._progress) as aside:
            aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
        self._saved_at = time.monotonic()

    def _resume(self) -> None:
        content = self._read()
        if content.get("key") != self._key:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        self.count = content["count"]
        self._scale.highest_float = content["highest_float"]
        self._scale.add({highest: tuple(seen) for highest, seen in content["seen"]})

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._progress.read_text(encoding="utf-8"))
            whole = self._file.stat().st_size >= content["count"] * self._image_bytes
        except (OSError, ValueError, KeyError):
            return {}
        return content if whole else {}


def discard(project: Project) -> None:
    """Deletes the decoded images."""
    shutil.rmtree(_folder(project), ignore_errors=True)


def _folder(project: Project) -> Path:
    return project.data / ".decoded"
