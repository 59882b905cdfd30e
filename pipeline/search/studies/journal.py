"""Optuna's journal on disk, safe from writers that are killed: no lock stays held, no incomplete line stays.

A damaged line at the end is cut off. One in the middle makes the studies unusable that it may be of.
"""

import json
import os
import re
import sys
import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import optuna
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from pipeline.errors import PipelineError

if sys.platform != "win32":
    import fcntl

_OP_CODE = re.compile(rb'^{"op_code": ?(\d+),')
_SUBJECT = re.compile(rb'"(study|trial)_id": ?(\d+)[,}]')
_WITHOUT_NEW_IDS = {1, 2, 3, 5, 6, 7, 8, 9}
"""The op codes that create neither a study (0) nor a trial (4). Optuna counts these to give the next one its id."""


class Damaged(PipelineError):
    """A line in the middle of the journal can't be read."""


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
        self.damaged: dict[int, tuple[str, int]] = {}
        """Damaged lines by their number, from 1: whether each is of a study or a trial, and the id of that."""
        self._offset = self._lines = 0
        """Of what was read: its bytes, its lines."""
        self._end: int | None = None
        """Where to stop reading; None: at the end of the file."""
        self.collected: list[dict[str, Any]] | None = None
        """What is appended later, in one go; None: everything is appended at once."""
        self._open()

    def _open(self) -> None:
        self._kernel_lock = _KernelLock(self._path)
        super().__init__(str(self._path), self._kernel_lock)
        with _held(self._kernel_lock):
            mend(self._path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self.collected is not None:
            self.collected += logs
            return
        try:
            super().append_logs(logs)
        except OSError:
            with _held(self._kernel_lock):
                mend(self._path)
            raise

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The lines that were not read before, of which the storage always asks for the first. Raises Damaged."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if self._offset == self._end:
                    return
                if not line.endswith(b"\n"):
                    return  # another process is writing it
                if (operation := _operation(line)) is None or "op_code" not in operation:
                    self._note_damage(line, self._lines + 1)
                self._offset += len(line)
                self._lines += 1
                if self._lines not in self.damaged:
                    yield operation or {}

    def _note_damage(self, line: bytes, number: int) -> None:
        code, subject = _OP_CODE.match(line), _SUBJECT.search(line)
        glued = line.count(b'"op_code"') > 1  # an incomplete line and the one that was appended to it
        if code is None or subject is None or glued or int(code[1]) not in _WITHOUT_NEW_IDS:
            # Optuna numbers studies and trials in the order of the lines. Without this one each later line might be
            # taken for that of another trial.
            raise Damaged(
                f"Line {number} of {self._path} is damaged, and no study can be read without it: put a copy of the "
                f"file from before in its place. Without one, move it away (`mv {self._path.name} "
                f"{self._path.name}.damaged`) and search again; MLflow and results/ keep what they have."
            )
        self.damaged[number] = (subject[1].decode(), int(subject[2]))


class _Reading(_Journal):
    """A journal that is only read, up to its damaged end if it has one. No file changes, no lock is made."""

    def _open(self) -> None:
        with self._path.open("rb") as file:
            self._end = _sound_end(file)
        JournalFileBackend.__init__(self, str(self._path), _NoLock(str(self._path)))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise RuntimeError(f"{self._path} is only read")


class _NoLock(JournalFileOpenLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


@contextmanager
def _held(lock: JournalFileOpenLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Storage(optuna.storages.JournalStorage):
    """Optuna's storage in a journal."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Cuts off an incomplete or damaged end, unless `read_only`.

        Raises Damaged for a line that all studies depend on.
        """
        self._path = path
        self._journal = _Reading(path) if read_only else _Journal(path)
        super().__init__(self._journal)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Appends what the block writes with one fsync, when it ends; nothing if it raises. It can't create trials."""
        collected: list[dict[str, Any]] = []
        self._journal.collected = collected
        try:
            yield
        finally:
            self._journal.collected = None
        self._journal.append_logs(collected)
        with self._thread_lock:
            self._sync_with_backend()

    def damaged_line(self, study_id: int) -> int | None:
        """The number of the first damaged line of a study, from 1; None if it has none."""
        trials = {trial._trial_id for trial in self.get_all_trials(study_id, deepcopy=False)}
        for number, (subject, id) in self._journal.damaged.items():
            if id == study_id if subject == "study" else id in trials:
                return number
        return None


def journal(path: Path) -> Storage:
    """The storage in the journal at `path`. An incomplete or damaged end is cut off. Raises Damaged."""
    return Storage(path)


def mend(path: Path) -> None:
    """Cuts off the incomplete or damaged lines that a killed writer may have left at the end.

    A file without any sound line is left as it is, except for an incomplete last line.
    """
    with path.open("rb+") as file:
        end = _sound_end(file)
        if end < file.seek(0, os.SEEK_END):
            file.truncate(end)


def damaged_bytes(path: Path) -> int:
    """The bytes at the end that `mend` would cut off."""
    with path.open("rb") as file:
        return path.stat().st_size - _sound_end(file)


def _sound_end(file: IO[bytes]) -> int:
    end = complete = _line_start(file, file.seek(0, os.SEEK_END) + 1)
    while end:
        start = _line_start(file, end)
        file.seek(start)
        if _operation(file.read(end - start)) is not None:
            break
        end = start
    return end or complete


def _line_start(file: IO[bytes], end: int) -> int:
    """Where the line begins whose newline is the byte before `end`."""
    position = end - 1
    while position > 0:
        start = max(0, position - 65_536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _operation(line: bytes) -> dict[str, Any] | None:
    """The content of a line; None if it is damaged."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
