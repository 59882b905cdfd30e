"""The engine of one machine: long-lived processes, one to a share of the cores or to a GPU.

A worker ends with its owner, however the owner ends: its end of the pipe closes.
"""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pipeline.search.engines import worker
from pipeline.search.engines.base import Failed, Message, Order, Paused, Reached, Stuck
from pipeline.search.engines.worker import Pause, Post, Ready, Unfit

STARTS = 3
"""So often in a row a worker may die before it is ready."""


@dataclass
class _Seat:
    """A place for a worker, and the process that has it."""

    post: Post
    process: BaseProcess
    connection: Connection
    ready: bool = False
    order: Order | None = None
    pausing: bool = False
    """Whether the order is to end after the epoch that is trained."""
    deaths: int = 0
    """In a row, before it was ready."""


@dataclass
class LocalEngine:
    """Processes of this machine; they start at once, and their first orders may wait for them."""

    posts: Sequence[Post]
    main: Callable[[Connection, Post], None] = worker.main
    """What a worker does."""
    _seats: list[_Seat] = field(default_factory=list)
    _messages: deque[Message] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._seats = [_Seat(post, *self._hired(post)) for post in self.posts]

    @property
    def workers(self) -> int:
        return len(self._seats)

    @property
    def free(self) -> int:
        return sum(seat.order is None for seat in self._seats)

    def submit(self, order: Order) -> None:
        seat = next(seat for seat in sorted(self._seats, key=lambda seat: not seat.ready) if seat.order is None)
        seat.order, seat.pausing = order, False
        self._send(seat, order)

    def next(self, timeout_s: float) -> Message | None:
        deadline = time.monotonic() + timeout_s
        while not self._messages:
            seats = list(self._seats)
            heard = wait([seat.connection for seat in seats], max(0.0, deadline - time.monotonic()))
            if not heard:
                return None
            for seat in seats:
                if seat.connection in heard:
                    self._hear(seat)
        return self._messages.popleft()

    def pause(self) -> None:
        for seat in self._seats:
            if seat.order:
                seat.pausing = True
                self._send(seat, Pause())

    def stop(self, trial: int) -> None:
        self._messages = deque(message for message in self._messages if message.trial != trial)
        for seat in self._seats:
            if seat.order and seat.order.trial == trial:
                seat.order = None
                self._replace(seat)

    def clock_s(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        for seat in self._seats:
            _dismiss(seat)
        self._seats = []

    def _send(self, seat: _Seat, said: Order | Pause) -> None:
        # A worker that died says so by itself: its connection ends.
        with suppress(OSError):
            seat.connection.send(said)

    def _hear(self, seat: _Seat) -> None:
        try:
            said = seat.connection.recv()
        except (EOFError, OSError):
            self._died(seat)
            return
        if isinstance(said, Ready):
            seat.ready, seat.deaths = True, 0
        elif isinstance(said, Unfit):
            raise Stuck(said.why)
        else:
            if isinstance(said, Reached | Paused | Failed):
                seat.order = None
            self._messages.append(said)

    def _died(self, seat: _Seat) -> None:
        order, was_ready = seat.order, seat.ready
        seat.process.join()
        how = _described(seat.process.exitcode)
        if was_ready:
            seat.order = None
            self._replace(seat)
            if order:
                self._messages.append(Failed(order.trial, "crashed", f"The worker {how}."))
            return
        seat.deaths += 1
        if seat.deaths == STARTS:
            raise Stuck(f"A worker {how} {STARTS} times while it started: {seat.post.log} has what it said.")
        self._replace(seat)
        if order:
            self._send(seat, order)
            if seat.pausing:
                self._send(seat, Pause())

    def _replace(self, seat: _Seat) -> None:
        _dismiss(seat)
        seat.process, seat.connection = self._hired(seat.post)
        seat.ready = False

    def _hired(self, post: Post) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=self.main, args=(theirs, post), name="worker", daemon=True)
        with _interrupts_ignored():
            process.start()
        theirs.close()  # so that the worker's death ends the connection
        return process, ours

    @property
    def processes(self) -> list[int]:
        """Of the workers, by their numbers."""
        return [seat.process.pid or 0 for seat in self._seats]


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process that starts inherits it: Ctrl-C must not reach a worker before it says so for itself."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _dismiss(seat: _Seat) -> None:
    seat.process.kill()
    seat.process.join()
    seat.process.close()
    seat.connection.close()


def _described(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            name = signal.Signals(-exit_code).name
            # The usual sender of this one, other than a person, is the kernel when memory runs out.
            return f"was ended by {name}" + (" (was memory short?)" if name == "SIGKILL" else "")
    return f"ended with exit code {exit_code}"
