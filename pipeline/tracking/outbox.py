"""The records of a run on disk: an append-only journal of operations, and copies of the files to upload.

.outbox/<key>@<store>/journal.jsonl    one operation per line
                     /sent             the number of lines that MLflow has
                     /files/           the files to upload
                     /holder.json      the process that records or sends the run
.outbox/<key>@<store>.lock             locked by that process

A run of a stage has several in a row, <key>@<store>+<time> (parts.py).
"""

import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import TrackingError

PART = "+"
"""Precedes, in the name of a folder, the time at which a part of a stage's records was begun."""
ENDINGS = ("finish", "continued")
"""The kinds of an outbox's last operation: the run ends, or another outbox continues it."""
_AHEAD = 256
"""The most operations that are read from the journal in advance."""


@dataclass(frozen=True)
class Operation:
    """One change in MLflow. Sending it twice has the effect of once, as its time and `id` are recorded with it."""

    kind: str
    """open, params, metrics, tags, file, dataset, weights, model, register, finish, continued"""
    time_ms: int
    """When it was recorded: milliseconds since 1970, UTC."""
    id: str
    content: dict[str, Any]

    @classmethod
    def now(cls, kind: str, **content: Any) -> "Operation":
        return cls(kind, time.time_ns() // 1_000_000, uuid.uuid4().hex, content)

    def line(self) -> bytes:
        """The line of the journal."""
        return json.dumps(vars(self), separators=(",", ":")).encode() + b"\n"


class Held(TrackingError):
    """Another process records or sends this run."""


class Outbox:
    """The outbox of one run, held by this process until `remove` or `close`. One thread appends, another sends."""

    def __init__(self, folder: Path, wait_s: float) -> None:
        """Opens or creates `folder`. Raises Held if another process still has it after `wait_s` seconds."""
        self.folder = folder
        self.journal = folder / "journal.jsonl"
        self.opening: Operation | None = None
        """The first operation; None in a new outbox."""
        self.ended = False
        """Whether the last operation is one of ENDINGS."""
        self.is_new = False
        """Whether MLflow is sure to have no run of this key."""
        self.recorded_count = 0
        self.sent_count = 0
        self._unsynced = False
        self._sent_file = folder / "sent"
        self._appending = threading.Lock()
        self._ahead: deque[Operation] = deque()
        folder.parent.mkdir(parents=True, exist_ok=True)
        # For all threads of the process: the sender's thread may release what the main thread acquired.
        self._lock = FileLock(lock_path(folder), thread_local=False)
        try:
            self._lock.acquire(timeout=wait_s, poll_interval=0.1)
        except Timeout:
            raise Held(f"The run {self.key} is held by {_holder(folder)}: wait until it ends, or stop it.") from None
        try:
            self._load()
        except BaseException:
            self._lock.release()
            raise

    @property
    def is_held(self) -> bool:
        """False after `close` and `remove`."""
        return bool(self._lock.is_locked)

    def _load(self) -> None:
        if not self.journal.is_file():
            # Other files are those of an outbox whose removal was interrupted.
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        (self.folder / "holder.json").write_text(json.dumps(holder), encoding="utf-8")
        whole = 0
        self.journal.touch()
        for operation, end in _read(self.journal):
            whole = end
            self._count([operation])
        # A partial line, left by a crash, would make the next one unreadable too.
        os.truncate(self.journal, whole)
        self._writer = self.journal.open("ab", buffering=0)
        self._reader = self.journal.open("rb")
        for _ in range(_sent_count(self.folder)):
            self.sent_count += bool(self._reader.readline())

    @property
    def key(self) -> str:
        return _key(self.folder)

    def append(self, kind: str, *, durable: bool = True, **content: Any) -> None:
        """Records an operation, which then survives a crash. Raises TrackingError if the disk is full."""
        self.append_all([Operation.now(kind, **content)], durable=durable)

    def append_all(self, operations: Sequence[Operation], *, durable: bool = True) -> None:
        """Records several operations with one fsync: all of them or, after an error or Ctrl-C, none.

        Without `durable` they survive the end of the process, but a power cut only after `sync`.
        """
        lines = b"".join(operation.line() for operation in operations)
        with self._appending:
            size = self.journal.stat().st_size
            try:
                self._write(lines, durable)
                self._count(operations)
            except BaseException:
                with suppress(OSError):
                    os.truncate(self.journal, size)
                raise

    def sync(self) -> None:
        """Makes all that was recorded survive a power cut. Raises TrackingError."""
        with self._appending:
            if self._unsynced and not self._writer.closed:
                self._write(b"", True)

    def _write(self, lines: bytes, durable: bool) -> None:
        reason = "the disk is full"
        try:
            if self._writer.write(lines) == len(lines):
                if durable:
                    os.fsync(self._writer.fileno())
                self._unsynced = not durable
                return
        except OSError as error:
            reason = str(error)
        raise TrackingError(f"{self.journal} can't be written: {reason}.")

    def _count(self, operations: Sequence[Operation]) -> None:
        opening, ended = self.opening or operations[0], operations[-1].kind in ENDINGS
        recorded_count = self.recorded_count + len(operations)
        # Python raises KeyboardInterrupt between calls. There is none below: what the sender saw counted must stay so.
        self.opening, self.ended, self.recorded_count = opening, ended, recorded_count

    def new_folder(self) -> Path:
        """Creates an empty folder for the files of one operation, whose `path` is relative to the outbox."""
        folder = self.folder / "files" / uuid.uuid4().hex[:12]
        folder.mkdir(parents=True)
        return folder

    @property
    def waiting(self) -> int:
        """The number of operations that MLflow does not have yet."""
        return self.recorded_count - self.sent_count

    def peek(self) -> Sequence[Operation]:
        """The next operations that MLflow does not have, in order; at least one if there are any."""
        # Only those that are counted: an append that is not counted yet may still fail.
        while len(self._ahead) < min(self.waiting, _AHEAD):
            self._ahead.append(Operation(**json.loads(self._reader.readline())))
        return self._ahead

    def sent(self, count: int) -> None:
        """Notes that MLflow has the first `count` operations of `peek`, and deletes their files."""
        done = [self._ahead.popleft() for _ in range(count)]
        self.sent_count += count
        # Without fsync: an old number means that operations are sent twice, which does no harm. But never half-written:
        # 0 would send operations whose files are deleted.
        aside = self._sent_file.with_name("sent.new")
        aside.write_text(str(self.sent_count), encoding="ascii")
        aside.replace(self._sent_file)
        for operation in done:
            if "path" in operation.content:
                shutil.rmtree((self.folder / operation.content["path"]).parent, ignore_errors=True)

    def remove(self) -> None:
        """Deletes the outbox and releases it."""
        self._writer.close()
        self._reader.close()
        # First: without it the other files are ignored.
        self.journal.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        # Before the release, so that a waiting process finds the folder gone and makes a new one.
        lock_path(self.folder).unlink(missing_ok=True)
        self._lock.release()

    def close(self) -> None:
        """Releases the outbox, which stays on disk. Its counts remain readable."""
        self.sync()
        self._ahead.clear()
        self._writer.close()
        self._reader.close()
        self._lock.release()


@dataclass(frozen=True)
class Kept:
    """An outbox on disk, read without its lock."""

    folder: Path
    opening: Operation
    waiting: int
    """The number of operations that MLflow does not have yet."""
    ended: bool
    """Whether nothing more is recorded in it."""

    @property
    def is_handed_over(self) -> bool:
        """Whether it is a part of a stage's records that the stage has ended."""
        return self.ended and PART in self.folder.name

    @property
    def key(self) -> str:
        return _key(self.folder)

    @property
    def holder(self) -> str:
        """The last process that opened it, in words."""
        return _holder(self.folder)


def kept(root: Path, store_id: str = "", parts: bool = False, known: Container[Path] = ()) -> list[Kept]:
    """The outboxes in `root`, of one store or of all, in the order in which their runs were opened first.

    With `parts` only those of stages; those whose folders are `known` are left out.
    """
    found = []
    for folder in root.glob(f"*@{store_id}*{f'{PART}*' if parts else ''}"):
        if folder in known:
            continue
        # Another process may remove it at any moment.
        with suppress(OSError):
            operations = [operation for operation, _ in _read(folder / "journal.jsonl")]
            if operations:
                waiting = max(0, len(operations) - _sent_count(folder))
                found.append(Kept(folder, operations[0], waiting, operations[-1].kind in ENDINGS))
    return sorted(found, key=lambda outbox: (outbox.opening.time_ms, outbox.folder.name))


def sweep(root: Path) -> None:
    """Deletes the remains of outboxes whose process was killed while it created or removed them."""
    for lock in root.glob("*@*.lock"):
        folder = lock.with_name(lock.name.removesuffix(".lock"))
        if _is_empty(folder):
            with suppress(Held):
                outbox = Outbox(folder, wait_s=0)
                if outbox.opening:  # another process has used it since
                    outbox.close()
                else:
                    outbox.remove()


def _is_empty(folder: Path) -> bool:
    try:
        return next(_read(folder / "journal.jsonl"), None) is None
    except OSError:
        return True


def _read(journal: Path) -> Iterator[tuple[Operation, int]]:
    """The operations of a journal up to the first damaged line, each with the offset of its end in bytes."""
    with journal.open("rb") as file:
        for line in iter(file.readline, b""):
            try:
                operation = Operation(**json.loads(line)) if line.endswith(b"\n") else None
            except (ValueError, TypeError):
                operation = None
            if operation is None:
                return
            yield operation, file.tell()


def _sent_count(folder: Path) -> int:
    try:
        return int((folder / "sent").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def lock_path(folder: Path) -> Path:
    """The lock of the outbox in `folder`."""
    return folder.with_name(f"{folder.name}.lock")


def _key(folder: Path) -> str:
    return folder.name.partition("@")[0]


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / "holder.json").read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
