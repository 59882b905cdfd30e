"""Optuna's journal on disk, safe from writers that are killed: no lock stays held, no incomplete line stays."""

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

if sys.platform != "win32":
    import fcntl


class _KernelLock(JournalFileOpenLock):
    """A lock that the kernel releases when its process dies. Optuna's own lock would keep the next process waiting.

    It is acquired for each line, about twenty times per trial. FileLock is used on Windows only, since it takes longer
    than writing the line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        lock = path.with_name(f"{path.name}.lock")
        self._file_lock = FileLock(lock)
        self._file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, self._file)

    def acquire(self) -> bool:
        if sys.platform == "win32":
            self._file_lock.acquire()
        else:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        if sys.platform == "win32":
            self._file_lock.release()
        else:
            fcntl.flock(self._file, fcntl.LOCK_UN)


class _Journal(JournalFileBackend):
    """Optuna's journal without incomplete lines: a line that is appended to one would make the journal unreadable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kernel_lock = _KernelLock(path)
        super().__init__(str(path), self._kernel_lock)
        with _held(self._kernel_lock):
            mend(path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError:
            with _held(self._kernel_lock):
                mend(self._path)
            raise


@contextmanager
def _held(lock: JournalFileOpenLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def journal(path: Path) -> optuna.storages.JournalStorage:
    """The storage in the journal at `path`. An incomplete last line is cut off."""
    return optuna.storages.JournalStorage(_Journal(path))


def mend(path: Path) -> None:
    """Cuts off the incomplete last line that a killed writer may have left."""
    with path.open("rb+") as file:
        content_end = file.seek(0, os.SEEK_END)
        position = content_end
        while position:
            start = max(0, position - 65_536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < content_end:
            file.truncate(position)
