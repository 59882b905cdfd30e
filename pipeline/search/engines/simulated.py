"""An engine that trains nothing: it looks learning curves up and moves a clock. Search methods are compared on it."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines.base import (
    Began,
    EpochDone,
    Failed,
    Matrix,
    Message,
    Order,
    Paused,
    TargetReached,
    WorkerInfo,
)
from pipeline.search.space.values import Values

WORKER = WorkerInfo({"type": "simulated", "threads": 1}, {"training": 0, "validation": 0})


@dataclass(frozen=True)
class Fault:
    """What happens to an order in place of its end."""

    after: int
    """Epochs of the order that are still trained."""
    outcome: Outcome | None = None
    """How the order fails; None: the worker hangs; INTERRUPTED: it is taken away, with a warning."""
    why: str = ""


Faults: TypeAlias = Callable[[Order], Fault | None]


@dataclass
class SimulatedEngine:
    """Workers that take the same simulated time for each epoch."""

    curve: Callable[[Values], Sequence[float]]
    """Validation accuracy, 0..1, after each epoch of a configuration."""
    workers: int = 1
    epoch_s: float = 1.0
    confusion: Matrix = ((1,),)
    """Reported of every trial."""
    early_stop: int | None = None
    """The epoch at which early stopping ends every training; None: never."""
    fault: Faults = lambda order: None
    """Asked once per order, for tests of what follows a failure."""
    epochs_trained: int = 0
    """By all workers, up to the last message returned."""
    _now_s: float = 0.0
    _events: list[tuple[float, int, Message]] = field(default_factory=list)
    """A heap by time, then by the order of submission."""
    _busy: set[int] = field(default_factory=set)
    """Trials that a worker has."""
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def free(self) -> int:
        return self.workers - len(self._busy)

    def submit(self, order: Order) -> None:
        self._busy.add(order.trial)
        until = min(order.until, self.early_stop or order.until)
        fault = self.fault(order)
        if fault:
            until = min(until, order.known + fault.after)
        self._schedule(0, Began(order.trial))
        accuracies = self.curve(order.values)
        for number in range(order.known + 1, until + 1):
            accuracy = accuracies[number - 1]
            epoch = Epoch(number, 0.0, 0.0, accuracy, 0.0, accuracy, 1.0, number * self.epoch_s)
            self._schedule(number - order.known, EpochDone(order.trial, epoch))
        if fault is None:
            over = until == self.early_stop
            reached = TargetReached(order.trial, until, self.confusion, WORKER, 0, over=over)
            self._schedule(until - order.known, reached)
        elif fault.outcome is Outcome.INTERRUPTED:
            self._schedule(fault.after, Paused(order.trial, leaving=True))
        elif fault.outcome:
            self._schedule(fault.after, Failed(order.trial, fault.outcome, fault.why))

    def _schedule(self, epochs_from_now: int, message: Message) -> None:
        heapq.heappush(self._events, (self._now_s + epochs_from_now * self.epoch_s, next(self._count), message))

    def next(self, timeout_s: float) -> Message | None:
        if not self._events:
            self._now_s += timeout_s
            return None
        self._now_s, _, message = heapq.heappop(self._events)
        if isinstance(message, EpochDone):
            self.epochs_trained += 1
        if isinstance(message, TargetReached | Paused | Failed):
            self._busy.discard(message.trial)
        return message

    def pause(self) -> None:
        """All trials stop where they are."""
        self._events = []
        for trial in sorted(self._busy):
            self._schedule(0, Paused(trial))

    def stop(self, trial: int) -> None:
        self._busy.discard(trial)
        self._events = [event for event in self._events if event[2].trial != trial]
        heapq.heapify(self._events)

    def clock_s(self) -> float:
        return self._now_s

    def close(self) -> None:
        self._events = []
