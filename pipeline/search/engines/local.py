"""The engine of one machine: long-lived processes, each on its share of the cores or of a GPU.

A worker ends when its owner ends, in whatever way: the pipe between them closes.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pipeline.outcome import Outcome
from pipeline.processes import ChildProcess, prepare_forks
from pipeline.search.engines import worker
from pipeline.search.engines.base import Failed, Message, Order, Paused, Stuck, TargetReached
from pipeline.search.engines.trainer import LOADED, Broken, Unfit
from pipeline.search.engines.worker import Pause, Ready, WorkerSpec

STARTS = 3
"""How often in a row a worker may die before it is ready."""


@dataclass
class _WorkerHandle:
    """A worker: its process, which is replaced when it dies, and the order that it has."""

    spec: WorkerSpec
    process: ChildProcess
    ready: bool = False
    order: Order | None = None
    pausing: bool = False
    """Whether the order is to end after the current epoch."""
    deaths: int = 0
    """In a row, before it was ready."""


def prepare() -> None:
    """Begins to load what workers need, once for all of them. Returns at once; an engine that starts later is ready."""
    prepare_forks(LOADED)


@dataclass
class LocalEngine:
    """Processes of this machine. They start at once; the first orders wait until they have loaded."""

    specs: Sequence[WorkerSpec]
    main: Callable[[Connection, WorkerSpec], None] = worker.main
    """What a worker does."""
    _handles: list[_WorkerHandle] = field(default_factory=list)
    _messages: deque[Message] = field(default_factory=deque)

    def __post_init__(self) -> None:
        prepare()
        self._handles = [_WorkerHandle(spec, self._start(spec)) for spec in self.specs]

    @property
    def free(self) -> int:
        return sum(handle.order is None for handle in self._handles)

    def submit(self, order: Order) -> None:
        handle = next(
            handle for handle in sorted(self._handles, key=lambda handle: not handle.ready) if handle.order is None
        )
        handle.order, handle.pausing = order, False
        self._send(handle, order)

    def next(self, timeout_s: float) -> Message | None:
        deadline = time.monotonic() + timeout_s
        while not self._messages:
            handles = list(self._handles)
            ready = wait([handle.process.connection for handle in handles], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            for handle in handles:
                if handle.process.connection in ready:
                    self._receive(handle)
        return self._messages.popleft()

    def pause(self) -> None:
        for handle in self._handles:
            if handle.order:
                handle.pausing = True
                self._send(handle, Pause())

    def stop(self, trial: int) -> None:
        self._messages = deque(message for message in self._messages if message.trial != trial)
        for handle in self._handles:
            if handle.order and handle.order.trial == trial:
                handle.order = None
                self._replace(handle)

    def clock_s(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        for handle in self._handles:
            handle.process.kill()
        self._handles = []

    def _send(self, handle: _WorkerHandle, request: Order | Pause) -> None:
        # A worker that has died is noticed in `next`: its connection has ended.
        with suppress(OSError):
            handle.process.connection.send(request)

    def _receive(self, handle: _WorkerHandle) -> None:
        try:
            message = handle.process.connection.recv()
        except (EOFError, OSError):
            self._died(handle)
            return
        if isinstance(message, Ready):
            handle.ready, handle.deaths = True, 0
        elif isinstance(message, Unfit):
            raise Stuck(message.why)
        elif isinstance(message, Broken):
            order, handle.order = handle.order, None
            self._replace(handle)
            if order:
                self._messages.append(Failed(order.trial, Outcome.CRASHED, message.why))
        else:
            if isinstance(message, TargetReached | Paused | Failed):
                handle.order = None
            if isinstance(message, Paused) and message.leaving:
                self._replace(handle)
            self._messages.append(message)

    def _died(self, handle: _WorkerHandle) -> None:
        order, was_ready = handle.order, handle.ready
        how = handle.process.wait()
        if was_ready:
            handle.order = None
            self._replace(handle)
            if order:
                self._messages.append(Failed(order.trial, Outcome.CRASHED, f"The worker {how}."))
            return
        handle.deaths += 1
        if handle.deaths == STARTS:
            raise Stuck(
                f"A worker did not start in {STARTS} attempts: it {how}. "
                + (f"Its last line: {line}\n" if (line := _last_line(handle.spec.log)) else "It printed nothing. ")
                + f"{handle.spec.log} has all that it printed; when that is repaired, the same command resumes."
            )
        self._replace(handle)
        if order:
            self._send(handle, order)
            if handle.pausing:
                self._send(handle, Pause())

    def _replace(self, handle: _WorkerHandle) -> None:
        handle.process.kill()
        handle.process = self._start(handle.spec)
        handle.ready = False

    def _start(self, spec: WorkerSpec) -> ChildProcess:
        return ChildProcess("worker", self.main, spec, fork=True)

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers."""
        return [handle.process.pid for handle in self._handles]


def _last_line(log: Path) -> str:
    """The last line that is not blank; empty if there is none."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
