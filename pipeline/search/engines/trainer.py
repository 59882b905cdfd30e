"""What a worker does with an order, whichever engine it belongs to. It knows neither Optuna nor MLflow."""

import errno
import importlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
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
    WorkerInfo,
)

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.batches.images import Images
    from pipeline.records import Meta

LOADED = ("torch._dynamo", "pipeline.batches.images", "pipeline.networks", "pipeline.training.cross_validation")
"""Modules that a worker needs, heavy ones among them. PyTorch's optimisers import _dynamo at their first step although
nothing is compiled, which takes a second."""

# Errors that a retry on another worker would meet too.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class Request(Protocol):
    """Whether the owner has asked for something; threading.Event is one."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Unfit:
    """The worker can't work, and says why."""

    why: str


@dataclass(frozen=True)
class Hardware:
    """What a worker trains on, as params.yaml asks for it."""

    device: str
    threads: int
    precision: str
    memory_share: float = 1.0
    """Of the memory of a GPU, what this worker may count on."""


class Trainer:
    """What a worker keeps between orders: the device and the images. Workers of a machine share the images' memory."""

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
        device = Device.choose(hardware.device, hardware.precision, hardware.threads, Machine.probe())
        self._device = replace(device, memory_share=hardware.memory_share)

    def answer(self, order: Order, pause: Request) -> Iterator[Message | Unfit]:
        """Carries out an order. The last message is TargetReached, Paused or Failed; or Unfit, if no order would do."""
        try:
            yield from self._work(order, pause)
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
        except Exception:
            yield Failed(order.trial, Outcome.CRASHED, traceback.format_exc())

    def _work(self, order: Order, pause: Request) -> Iterator[Message]:
        """Raises Diverged, OutOfMemory, and OSError if the checkpoint can't be written."""
        from pipeline import networks
        from pipeline.training.cross_validation import Training
        from pipeline.training.loop import memory_errors

        yield Began(order.trial)
        if self._code and config.code_digests(order.config) != self._code:
            raise PipelineError(
                f"The code of {' and '.join(self._code)} has changed since the search began, and its trials don't "
                "compare with new ones: set it back, or search under another --study."
            )
        self._device.prepare()
        with memory_errors(order.config.train, self._device):
            training = Training.of(order.config, self._meta, self._images, self._device, order.folder)
        done = training.done
        for epoch in done[order.known : order.until]:
            yield EpochDone(order.trial, epoch)
        # The epoch may have been reached before the owner, or this worker's predecessor, was killed.
        if len(done) < order.until:
            for epoch in training.fit():
                if epoch.number > order.known:
                    yield EpochDone(order.trial, epoch)
                if epoch.number == order.until or training.over:
                    break
                if pause.is_set():
                    yield Paused(order.trial)
                    return
        logits, labels = training.infer()
        if order.keep_model or training.over:
            training.calibrate(logits, labels)
            networks.save(training.network, order.folder / "model.safetensors")
        yield TargetReached(
            order.trial,
            min(len(training.done), order.until),
            _confusion(logits, labels),
            WorkerInfo(asdict(self._device.described()), training.counts),
            self._device.peak_memory_bytes(),
            over=training.over,
        )


def _confusion(logits: "Tensor", labels: "Tensor") -> Matrix:
    classes = logits.shape[1]
    counts = (labels * classes + logits.argmax(1)).bincount(minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(row) for row in counts.tolist())
