"""What a worker does with an order, whichever engine it belongs to. It knows neither Optuna nor MLflow."""

import errno
import importlib
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline import config
from pipeline.errors import ConfigError, Diverged, OutOfMemory, PipelineError
from pipeline.outcome import Outcome
from pipeline.search.engines.base import (
    Began,
    EpochDone,
    Failed,
    Matrix,
    Message,
    Order,
    Paused,
    TargetReached,
    Unstored,
    WorkerInfo,
)
from pipeline.search.engines.places import Place, Scratch, place
from pipeline.search.engines.sharing import Room
from pipeline.search.engines.store import MODEL

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.batches.images import Images
    from pipeline.batches.loaders import Loader
    from pipeline.records import Meta

LOADED = ("torch._dynamo", "pipeline.batches.images", "pipeline.networks", "pipeline.training.cross_validation")
"""Modules that a worker needs, heavy ones among them. PyTorch's optimisers import _dynamo at their first step although
nothing is compiled, which takes a second."""

# Errors that a retry on another worker would meet too.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class Request(Protocol):
    """Whether the owner has asked for something; threading.Event is one."""

    def is_set(self) -> bool: ...


class _Never:
    def is_set(self) -> bool:
        return False


NEVER = _Never()


@dataclass(frozen=True)
class Unfit:
    """The worker can't work, and says why."""

    why: str


@dataclass(frozen=True)
class Broken:
    """The worker can't use its device any more, and must be replaced; the order that it had crashed."""

    why: str


@dataclass(frozen=True)
class Hardware:
    """What a worker trains on, as params.yaml asks for it."""

    device: str
    threads: int
    precision: str
    memory_share: float = 1.0
    """Of the memory of a GPU, what this worker may count on."""
    visible: str | None = None
    """The only GPU to be seen, as CUDA_VISIBLE_DEVICES names it; None: all that the owner sees."""
    room: Path | None = None
    """Names the GPU among the workers that share it; None: they don't wait for one another."""


class Trainer:
    """What a worker keeps between orders: the device and the images on it.

    On a CPU the workers of a machine share the images' memory. On a GPU each has one copy, for all orders and folds.
    """

    def __init__(
        self, meta: "Meta", images: "Images", hardware: Hardware, code: Mapping[str, str] | None = None
    ) -> None:
        """`code` has the digests of the user's networks when the search began; None: they are not compared.

        Raises ConfigError.
        """
        # Everything that an order needs is imported now, so that no epoch waits for it.
        for module in LOADED:
            importlib.import_module(module)
        from pipeline.machine import Machine
        from pipeline.training.device import Device

        self._meta, self._images, self._code = meta, images, code
        self._loader: Loader | None = None
        self._room = Room(hardware.room)
        self._scratch = Scratch()
        if hardware.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hardware.visible  # CUDA reads it when it is first used
        device = Device.choose(hardware.device, hardware.precision, hardware.threads, Machine.probe())
        self._device = replace(device, memory_share=hardware.memory_share)

    def answer(
        self, order: Order, pause: Request, warned: Request = NEVER, attempt: str | None = None
    ) -> Iterator[Message | Unfit | Broken]:
        """Carries out an order, until it is asked to pause or the worker is `warned`.

        The last message is TargetReached, Paused or Failed; or Unfit, if no order would do; or Broken, if this worker
        can do none. There is no last message if another worker has the trial by now, with another `attempt`.
        """
        try:
            yield from self._work(order, pause, warned, attempt)
        except OSError as error:
            if error.errno in _HOPELESS:
                yield Unfit(f"{error.filename or order.folder} can't be written: {error.strerror}.")
            else:
                yield Failed(order.trial, Outcome.CRASHED, traceback.format_exc())
        except Diverged as error:
            yield Failed(order.trial, Outcome.DIVERGED, str(error))
        except OutOfMemory as error:
            yield Failed(order.trial, Outcome.OUT_OF_MEMORY, str(error))
        except ConfigError as error:
            # Images too small for a family, weights of another network.
            if error.keys.isdisjoint(order.values):
                yield Unfit(str(error))  # no value of the search is to blame: all trials would end so
            else:
                yield Failed(order.trial, Outcome.IMPOSSIBLE, str(error))
        except PipelineError as error:
            yield Unfit(str(error))  # the data, which no search varies, or weights that can't be fetched
        except Exception as error:
            from pipeline.training.failures import has_broken

            why = traceback.format_exc()
            yield Broken(why) if has_broken(self._device, error) else Failed(order.trial, Outcome.CRASHED, why)

    def _work(self, order: Order, pause: Request, warned: Request, attempt: str | None) -> Iterator[Message]:
        """Raises Diverged, OutOfMemory, StoreError, and OSError if the checkpoint can't be written."""
        if warned.is_set():
            yield Paused(order.trial, leaving=True)
            return
        yield Began(order.trial)
        if self._code and config.code_digests(order.config) != self._code:
            raise PipelineError(
                f"The code of {' and '.join(self._code)} has changed since the search began, and its trials don't "
                "compare with new ones: set it back, or search under another --study."
            )
        with place(order.folder, order.store, attempt, self._scratch) as files:
            for _ in files.arrive():
                yield from _troubles(order, files)
            for message in self._turns(order, pause, warned, files):
                if isinstance(message, TargetReached | Paused):
                    for _ in files.leave():
                        yield from _troubles(order, files)
                if files.is_lost():
                    return
                yield message
                if isinstance(message, EpochDone):
                    yield from _troubles(order, files)

    def _turns(self, order: Order, pause: Request, warned: Request, files: Place) -> Iterator[Message]:
        """The messages of an order, whose pieces of work are each done in a turn on the device."""
        alone = False
        pieces = self._pieces(order, pause, warned, files)
        while True:
            try:
                with self._room.turn(alone=alone, clear=self._device.give_back):
                    messages = next(pieces, None)
            except OutOfMemory:
                if alone or self._device.memory_share == 1:
                    raise
                # A neighbour may have had the memory: from the checkpoint on, alone until an epoch is over.
                alone = True
            else:
                if messages is None:
                    break
                yield from messages
                alone = False
                continue
            # Here, as the error that is gone had references to what filled the memory.
            pieces = self._pieces(order, pause, warned, files)
            self._device.give_back()
        if self._device.memory_share < 1:
            del pieces
            self._device.give_back()

    def _pieces(self, order: Order, pause: Request, warned: Request, files: Place) -> Iterator[list[Message]]:
        """The messages of an order, in pieces of work. The first has the start in it, so that it trains an epoch."""
        from pipeline import networks
        from pipeline.training.cross_validation import Training
        from pipeline.training.failures import memory_errors

        with memory_errors(self._device, order.config.train.batch_size):
            self._device.prepare()
            self._loader = self._loader or self._device.loader(self._images)
        training = Training.of(order.config, self._meta, self._images, self._device, files.folder, loader=self._loader)
        done = training.done
        messages: list[Message] = [EpochDone(order.trial, epoch) for epoch in done[order.known : order.until]]
        # The epoch may have been reached before the owner, or this worker's predecessor, was killed.
        if trains := len(done) < order.until:
            for epoch in training.fit():
                files.saved()
                if epoch.number > order.known:
                    messages.append(EpochDone(order.trial, epoch))
                if epoch.number == order.until or training.over:
                    break
                yield messages
                messages = []
                if (leaving := warned.is_set()) or pause.is_set():
                    yield [Paused(order.trial, leaving=leaving)]
                    return
        if trains:
            yield messages
            messages = []
        logits, labels = training.infer()
        if order.keep_model or training.over:
            training.calibrate(logits, labels)
            networks.save(training.network, files.folder / MODEL)
        reached = TargetReached(
            order.trial,
            min(len(training.done), order.until),
            _confusion(logits, labels),
            WorkerInfo(asdict(self._device.described()), training.counts),
            self._device.peak_memory_bytes(),
            over=training.over,
            checkpoint_bytes=sum(path.stat().st_size for path in training.paths) if order.store else 0,
        )
        yield [*messages, reached]


def _troubles(order: Order, files: Place) -> Iterator[Message]:
    if why := files.trouble():
        yield Unstored(order.trial, why)


def _confusion(logits: "Tensor", labels: "Tensor") -> Matrix:
    classes = logits.shape[1]
    counts = (labels * classes + logits.argmax(1)).bincount(minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(row) for row in counts.tolist())
