"""The records of a stage's run: outboxes in a row, each handed over while the next one is written.

A process that sends takes an outbox when nobody holds it. So the sending process has what was recorded more than a
second ago, and the stage never waits for it.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.tracking.outbox import PART, Held, Operation, Outbox, lock_path

PART_S = 1.0
"""Seconds after which what was recorded is handed over."""


class Parts:
    """Looks like an `Outbox` to a `Run`. No other process can record the run until `close`."""

    def __init__(self, folder: Path, wait_s: float, **opening: Any) -> None:
        """`folder` is that of the run's outbox, `opening` the content of each part's operation `open`.

        Raises Held if another process still records the run after `wait_s` seconds, and TrackingError.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder, self._wait_s, self._opening = folder, wait_s, opening
        self._lock = FileLock(lock_path(folder), thread_local=False)
        try:
            self._lock.acquire(timeout=wait_s, poll_interval=0.1)
        except Timeout:
            raise Held(f"The run {opening['key']} is recorded by another process: wait until it ends.") from None
        self._part = self._new()
        # What is recorded first, the values of the run, goes to MLflow before its first epoch ends.
        self._due_s = 0.0

    @property
    def key(self) -> str:
        return self._part.key

    @property
    def folder(self) -> Path:
        """Of the part that is written now."""
        return self._part.folder

    def new_folder(self) -> Path:
        """For the files of the next operation."""
        return self._part.new_folder()

    def append_all(self, operations: Sequence[Operation]) -> None:
        """Records operations, which then survive a crash. Raises TrackingError if the disk is full."""
        self._part.append_all(operations)
        if not self._part.ended and time.monotonic() >= self._due_s:
            # The next part is there before this one ends: after a crash the last part always lacks its end.
            done, self._part = self._part, self._new()
            done.append("continued")
            done.close()
            self._due_s = time.monotonic() + PART_S

    def close(self) -> None:
        """Hands over the last part."""
        self._part.close()
        self._lock.release()

    def _new(self) -> Outbox:
        # The sending process may take a lock file that it sees before it is locked for the remains of a killed process.
        outbox = Outbox(self._folder.with_name(f"{self._folder.name}{PART}{time.time_ns()}"), self._wait_s)
        outbox.append("open", **self._opening)
        return outbox
