"""The contract between the owner of a study and an engine: what an engine does, and the messages it returns.

An engine runs orders on workers and carries messages: processes of one machine, a cluster, a simulated clock. The owner
does not know which engine it has; `building.py` builds it by tune.engine, when the first order is to be given.

- Files. An order names the trial's folder, which lies on storage that owner and workers share. The worker leaves a
  checkpoint there after each epoch, before it reports the epoch, and resumes from it. It creates the folder if needed.
  If the order names a store, the files are there instead. Checkpoints go there beside the training, so the last one may
  be of an earlier epoch than the last report; before the message that ends the order it is there.
- Messages of one order come in this sequence: Began, an EpochDone per epoch, and at last TargetReached, Paused or
  Failed, after which the worker is free. Unstored may come in between. Orders of several workers interleave.
- Began means that the worker has started the order. Time limits of trial and epoch apply from then on: before that the
  worker may still be loading.
- Epochs after `Order.known` are reported, also those that were trained for an earlier order: an owner that was killed
  may not have recorded them. Epochs that the owner has on record may be reported again; the owner drops duplicates.
- A worker that is lost while it has an order yields Failed with Outcome.CRASHED, and is replaced. The owner decides
  whether the trial is retried. A worker that can't work whatever the trial raises Stuck from `next`.
- A worker that is warned (SIGTERM; a node that is being taken away) stops after its current epoch and yields Paused,
  without having been asked. It is replaced, and the owner gives the trial to another one.
- `pause` asks each worker that has an order to stop after its current epoch. A request can cross the worker's last
  message: an order that is submitted later is not paused by it, and a worker may answer TargetReached or Failed
  instead of Paused. An order whose worker is still loading is paused after its first epoch.
- `stop` ends an order at once. No message of it follows, also none that has arrived but was not returned yet.
- `next` waits no longer than its timeout, even if workers die meanwhile.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.space.values import Values

Matrix: TypeAlias = tuple[tuple[int, ...], ...]
"""Confusion matrix: a row per actual class, a column per predicted class, numbers of validation images."""


class Stuck(PipelineError):
    """Workers can't work here, whatever the trial: the disk is full, data is missing, or no worker starts."""


@dataclass(frozen=True)
class Order:
    """Train a trial until an epoch, from its checkpoint if it has one."""

    trial: int
    values: Values
    """Of the searched keys."""
    config: Config
    """Of all keys."""
    until: int
    known: int
    """Epochs that the owner has on record. Later ones are reported, also if they were trained before."""
    folder: Path
    """Of the trial. It holds checkpoint.pt (further folds: checkpoint-2.pt, ...), and in the end model.safetensors."""
    keep_model: bool = False
    """Whether model.safetensors is also written where the trial pauses."""
    store: str | None = None
    """The address of the trial's files in place of `folder` (`store.Store`); None: they are in the folder."""


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker trains, and on how many images."""

    device: dict[str, str | int]
    """Its type, name, threads and precision."""
    counts: dict[str, int]
    """Images in `training` and in `validation`; with folds, those of the first fold."""


@dataclass(frozen=True)
class Began:
    """A worker has started the order."""

    trial: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a trial is over; its checkpoint is on disk."""

    trial: int
    epoch: Epoch


@dataclass(frozen=True)
class Unstored:
    """The trial's files can't be stored at the moment. It trains on, and they are stored later. Told once."""

    trial: int
    why: str


@dataclass(frozen=True)
class TargetReached:
    """The trial has trained until its order's epoch, or its training is over."""

    trial: int
    epoch: int
    confusion: Matrix
    """Of the validation part after the last epoch; with folds, of all of them."""
    worker: WorkerInfo
    peak_memory_bytes: int
    over: bool = False
    """Whether the training is over. Early stopping may end it before the order's epoch."""
    checkpoint_bytes: int = 0
    """Of all checkpoints of the trial in its store; 0 without one."""


@dataclass(frozen=True)
class Paused:
    """The trial stopped after an epoch because of `Engine.pause`, or because its worker was warned."""

    trial: int
    leaving: bool = False
    """Whether the worker takes no more orders."""


@dataclass(frozen=True)
class Failed:
    """The trial can't reach its order's epoch."""

    trial: int
    outcome: Outcome
    why: str


Message: TypeAlias = Began | EpochDone | Unstored | TargetReached | Paused | Failed


class Engine(Protocol):
    """Runs orders on workers. See the module's docstring for the contract."""

    @property
    def free(self) -> int:
        """How many more orders it takes."""
        ...

    def submit(self, order: Order) -> None:
        """Gives the order to a free worker. Only to be called while `free` is at least 1."""
        ...

    def next(self, timeout_s: float) -> Message | None:
        """The next message; None if none came within `timeout_s`. Raises Stuck."""
        ...

    def pause(self) -> None:
        """Asks all workers to stop after their current epoch."""
        ...

    def stop(self, trial: int) -> None:
        """Ends the training of a trial at once. Its checkpoint stays."""
        ...

    def clock_s(self) -> float:
        """Seconds since a fixed moment. Time limits are measured on this clock."""
        ...

    def close(self) -> None:
        """Ends all workers, at once."""
        ...
