"""What an owner and its workers say to each other, whatever carries it: processes, a cluster, a simulated clock."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.records import Epoch
from pipeline.search.schedulers.base import Values

Matrix: TypeAlias = tuple[tuple[int, ...], ...]
"""A row an actual class, a column a predicted one: numbers of validation images."""


class Stuck(PipelineError):
    """Workers can't work here, whatever the values: a full disk, no data, a worker that does not even start."""


@dataclass(frozen=True)
class Order:
    """Train a trial until an epoch, from its checkpoint where it has one."""

    trial: int
    values: Values
    """Those that are searched."""
    config: Config
    """All of them."""
    until: int
    known: int
    """Epochs that the owner has on record; those after them are told, also those trained before."""
    folder: Path
    """Of the trial: checkpoint.pt (of further folds checkpoint-2.pt, ...), and in the end model.safetensors."""
    keep_model: bool = False
    """Whether there is to be a model.safetensors also where it pauses."""


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker trains, and on how many images."""

    device: dict[str, str | int]
    counts: dict[str, int]
    """Images of the training and of the validation part, with folds those of the first one."""


@dataclass(frozen=True)
class Began:
    """A worker has taken the trial up."""

    trial: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a trial is over; its checkpoint is on disk."""

    trial: int
    epoch: Epoch


@dataclass(frozen=True)
class TargetReached:
    """The trial is where its order ends."""

    trial: int
    epoch: int
    confusion: Matrix
    """Of the validation part, with folds of all of them, after the last epoch."""
    setting: WorkerInfo
    peak_memory_bytes: int
    over: bool = False
    """Whether its training is at its end: with early stopping that may be before train.epochs, and before its order's
    end."""


@dataclass(frozen=True)
class Paused:
    """The trial stopped after an epoch, as it was asked to."""

    trial: int


@dataclass(frozen=True)
class Failed:
    """The trial can't reach its epoch."""

    trial: int
    ended: str
    """diverged, out of memory, or crashed"""
    why: str


Message: TypeAlias = Began | EpochDone | TargetReached | Paused | Failed


class Engine(Protocol):
    """Runs orders on workers. An owner submits no more of them than there are free workers."""

    @property
    def workers(self) -> int: ...

    @property
    def free(self) -> int:
        """How many more orders can be taken."""
        ...

    def submit(self, order: Order) -> None: ...

    def next(self, timeout_s: float) -> Message | None:
        """The next message, in the order of a trial's events; None if none came in time. Raises Stuck."""
        ...

    def pause(self) -> None:
        """Asks all workers to stop after the epoch that they are in; each says Paused, or Reached, or Failed."""
        ...

    def stop(self, trial: int) -> None:
        """Ends the training of a trial at once. Nothing more is heard of it; its checkpoint stays."""
        ...

    def clock_s(self) -> float:
        """Seconds since any fixed moment."""
        ...

    def close(self) -> None:
        """Ends all workers, at once."""
        ...
