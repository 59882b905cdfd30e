"""An engine that trains nothing: it looks learning curves up and moves a clock. Search methods are compared on it."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.records import Epoch
from pipeline.search.engines.base import Began, EpochDone, Matrix, Message, Order, Paused, TargetReached, WorkerInfo
from pipeline.search.schedulers.base import Values

SETTING = WorkerInfo({"type": "simulated", "threads": 1}, {"training": 0, "validation": 0})


@dataclass
class SimulatedEngine:
    """Workers that take the same simulated time for each epoch."""

    curve: Callable[[Values], Sequence[float]]
    """Validation accuracy, 0..1, after each epoch of a configuration."""
    workers: int = 1
    epoch_s: float = 1.0
    confusion: Matrix = ((1,),)
    """What is told of every trial."""
    epochs_trained: int = 0
    """By all workers, up to the last message taken."""
    _now_s: float = 0.0
    _events: list[tuple[float, int, Message]] = field(default_factory=list)
    """A heap, by time, then by the order of submission."""
    _busy: set[int] = field(default_factory=set)
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def free(self) -> int:
        return self.workers - len(self._busy)

    def submit(self, order: Order) -> None:
        self._busy.add(order.trial)
        accuracies = self.curve(order.values)
        self._say(0, Began(order.trial))
        for number in range(order.known + 1, order.until + 1):
            accuracy = accuracies[number - 1]
            epoch = Epoch(number, 0.0, 0.0, accuracy, 0.0, accuracy, 1.0, number * self.epoch_s)
            self._say(number - order.known, EpochDone(order.trial, epoch))
        self._say(order.until - order.known, TargetReached(order.trial, order.until, self.confusion, SETTING, 0))

    def _say(self, epochs_from_now: int, message: Message) -> None:
        heapq.heappush(self._events, (self._now_s + epochs_from_now * self.epoch_s, next(self._count), message))

    def next(self, timeout_s: float) -> Message | None:
        if not self._events:
            return None
        self._now_s, _, message = heapq.heappop(self._events)
        if isinstance(message, EpochDone):
            self.epochs_trained += 1
        if isinstance(message, TargetReached | Paused):
            self._busy.discard(message.trial)
        return message

    def pause(self) -> None:
        """All stop where they are."""
        self._events = []
        for trial in sorted(self._busy):
            self._say(0, Paused(trial))

    def stop(self, trial: int) -> None:
        self._busy.discard(trial)
        self._events = [event for event in self._events if event[2].trial != trial]
        heapq.heapify(self._events)

    def clock_s(self) -> float:
        return self._now_s

    def close(self) -> None:
        self._events = []
