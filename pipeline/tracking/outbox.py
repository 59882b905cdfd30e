"""What a run records, on disk first: an append-only journal of operations, and copies of the files they speak of.

.outbox/<key>@<store>/journal.jsonl    an operation a line
                     /sent             how many of its lines MLflow has
                     /files/           what is to be uploaded
                     /holder.json      who records, or sends, the run
.outbox/<key>@<store>.lock             locked by that process
"""

import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import TrackingError

_AHEAD = 256
"""How many operations are read from the journal at most before they are sent."""


@dataclass(frozen=True)
class Operation:
    """One thing to do in MLflow. Done twice it has the effect of once: its time and `id` are part of the record."""

    kind: str
    """open, params, metrics, tags, file, dataset, model, register, finish"""
    time_ms: int
    """When it was recorded: milliseconds since 1970, UTC."""
    id: str
    content: dict[str, Any]

    @classmethod
    def now(cls, kind: str, **content: Any) -> "Operation":
        return cls(kind, time.time_ns() // 1_000_000, uuid.uuid4().hex, content)

    def line(self) -> bytes:
        """As it stands in the journal."""
        return json.dumps(vars(self), separators=(",", ":")).encode() + b"\n"


class Held(TrackingError):
    """Another process records or sends this run."""


class Outbox:
    """The outbox of one run, held by this process until `remove` or `close`. One thread appends, one sends."""

    def __init__(self, folder: Path, wait_s: float) -> None:
        """Opens or makes `folder`. Raises Held if another process still has it after `wait_s` seconds."""
        self.folder = folder
        self.steps: set[int] = set()
        """Steps of all the metrics in the journal."""
        self.opening: Operation | None = None
        """The operation that opened the run for the first time."""
        self.ended = False
        """Whether the last operation is `finish`."""
        self.is_new = False
        """Whether MLflow certainly has no run of this key yet."""
        self.recorded_count = 0
        self.sent_count = 0
        self._journal = folder / "journal.jsonl"
        self._note = folder / "sent"
        self._appending = threading.Lock()
        self._ahead: deque[Operation] = deque()
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Of the process, not of a thread: the sender's is often the one that lets go of it.
        self._lock = FileLock(_lock_path(folder), thread_local=False)
        try:
            self._lock.acquire(timeout=wait_s, poll_interval=0.1)
        except Timeout:
            raise Held(f"The run {self.key} is held by {_holder(folder)}: wait until it ends, or stop it.") from None
        try:
            self._take_up()
        except BaseException:
            self._lock.release()
            raise

    @property
    def is_held(self) -> bool:
        """False after `close` and `remove`."""
        return bool(self._lock.is_locked)

    def _take_up(self) -> None:
        if not self._journal.is_file():
            # Whatever else is there belongs to an outbox whose removal was cut short.
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        (self.folder / "holder.json").write_text(json.dumps(holder), encoding="utf-8")
        whole = 0
        self._journal.touch()
        for operation, end in _read(self._journal):
            whole = end
            self._count([operation])
        # A line that a crash tore would make the next one unreadable too.
        os.truncate(self._journal, whole)
        self._writer = self._journal.open("ab", buffering=0)
        self._reader = self._journal.open("rb")
        for _ in range(_sent_count(self.folder)):
            self.sent_count += bool(self._reader.readline())

    @property
    def key(self) -> str:
        return _key(self.folder)

    def append(self, kind: str, **content: Any) -> None:
        """Records an operation: when this returns it outlives the process. Raises TrackingError if the disk is full."""
        self.append_all([Operation.now(kind, **content)])

    def append_all(self, operations: Sequence[Operation]) -> None:
        """Records several operations for the price of one, all of them or, on an error or Ctrl-C, none."""
        lines = b"".join(operation.line() for operation in operations)
        with self._appending:
            size = self._journal.stat().st_size
            try:
                self._write(lines)
                self._count(operations)
            except BaseException:
                with suppress(OSError):
                    os.truncate(self._journal, size)
                raise

    def _write(self, lines: bytes) -> None:
        reason = "the disk is full"
        try:
            if self._writer.write(lines) == len(lines):
                os.fsync(self._writer.fileno())
                return
        except OSError as error:
            reason = str(error)
        raise TrackingError(f"{self._journal} can't be written: {reason}.")

    def _count(self, operations: Sequence[Operation]) -> None:
        opening, ended = self.opening or operations[0], operations[-1].kind == "finish"
        recorded_count = self.recorded_count + len(operations)
        steps = {operation.content["step"] for operation in operations if operation.kind == "metrics"} - {None}
        # No call from here on: Ctrl-C comes between calls, and what the sender saw counted can't be taken back.
        self.steps |= steps
        self.opening, self.ended, self.recorded_count = opening, ended, recorded_count

    def new_folder(self) -> Path:
        """An empty folder for the files of one operation, whose content names it as `path`, relative to the outbox."""
        folder = self.folder / "files" / uuid.uuid4().hex[:12]
        folder.mkdir(parents=True)
        return folder

    @property
    def waiting(self) -> int:
        """How many operations MLflow does not have yet."""
        return self.recorded_count - self.sent_count

    def peek(self) -> Sequence[Operation]:
        """The next operations that MLflow does not have, in order, at least one of them if there are any."""
        # Never beyond what was counted: it may be an append that is about to fail.
        while len(self._ahead) < min(self.waiting, _AHEAD):
            self._ahead.append(Operation(**json.loads(self._reader.readline())))
        return self._ahead

    def sent(self, count: int) -> None:
        """Notes that MLflow has the first `count` operations of `peek`, and lets go of their files."""
        done = [self._ahead.popleft() for _ in range(count)]
        self.sent_count += count
        # Not fsynced: a note that is behind costs an operation sent twice, which does no harm. But never half-written:
        # what was sent long ago has its files no more.
        aside = self._note.with_name("sent.new")
        aside.write_text(str(self.sent_count), encoding="ascii")
        aside.replace(self._note)
        for operation in done:
            if "path" in operation.content:
                shutil.rmtree((self.folder / operation.content["path"]).parent, ignore_errors=True)

    def remove(self) -> None:
        """Deletes the outbox and lets go of it."""
        self._writer.close()
        self._reader.close()
        # First of all: without it the rest means nothing.
        self._journal.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        # While it is locked, so that a process that waits for it finds it gone and makes a new one.
        _lock_path(self.folder).unlink(missing_ok=True)
        self._lock.release()

    def close(self) -> None:
        """Lets go of the outbox, which stays on disk; its counts can still be asked for."""
        self._ahead.clear()
        self._writer.close()
        self._reader.close()
        self._lock.release()


@dataclass(frozen=True)
class Kept:
    """An outbox on disk, looked at without its lock."""

    folder: Path
    opening: Operation
    waiting: int
    """How many operations MLflow does not have yet."""

    @property
    def key(self) -> str:
        return _key(self.folder)

    @property
    def holder(self) -> str:
        """The process that opened it last, in words."""
        return _holder(self.folder)


def kept(root: Path, store_id: str | None = None) -> list[Kept]:
    """The outboxes in `root`, of one store or of all, in the order in which their runs were opened."""
    found = []
    for folder in root.glob(f"*@{store_id or '*'}"):
        # Another process may remove it meanwhile.
        with suppress(OSError):
            operations = [operation for operation, _ in _read(folder / "journal.jsonl")]
            if operations:
                found.append(Kept(folder, operations[0], max(0, len(operations) - _sent_count(folder))))
    return sorted(found, key=lambda outbox: outbox.opening.time_ms)


def sweep(root: Path) -> None:
    """Deletes what is left of outboxes that a kill met while they were made or removed."""
    for lock in root.glob("*@*.lock"):
        folder = lock.with_name(lock.name.removesuffix(".lock"))
        if _is_empty(folder):
            with suppress(Held):
                outbox = Outbox(folder, wait_s=0)
                if outbox.opening:  # another process was about to use it
                    outbox.close()
                else:
                    outbox.remove()


def _is_empty(folder: Path) -> bool:
    try:
        return next(_read(folder / "journal.jsonl"), None) is None
    except OSError:
        return True


def _read(journal: Path) -> Iterator[tuple[Operation, int]]:
    """The operations of a journal, each with the offset of its end, up to the first line that is not whole."""
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


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _key(folder: Path) -> str:
    return folder.name.partition("@")[0]


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / "holder.json").read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
