"""A worker of the local engine: a process that trains what it is ordered to, until its owner is gone.

It knows neither Optuna nor MLflow. `main` starts the thread that listens to the owner and imports heavy libraries
after that: a worker must end also if its owner is killed while it loads.
"""

import errno
import importlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is started with."""

    meta: Path
    training_data: Path
    device: str
    threads: int
    precision: str
    log: Path
    """The file for what the worker and its libraries print."""
    code: Mapping[str, str] | None = None
    """The digest of the code of each network of the user's, as it was when the search began; None: not compared."""
    memory_share: float = 1.0
    """Of the memory of a GPU, what this worker may count on."""


@dataclass(frozen=True)
class Ready:
    """The worker has loaded everything and waits for its first order."""


@dataclass(frozen=True)
class Unfit:
    """The worker can't work, and says why."""

    why: str


class Pause:
    """The owner asks the worker to stop after the current epoch."""


def main(owner: Connection, spec: WorkerSpec) -> None:
    """The life of a worker: orders come from `owner`, messages go to it."""
    # Ctrl-C in a terminal and a cluster's SIGTERM reach the whole process group. The owner decides what follows.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    pause = threading.Event()
    threading.Thread(target=_listen, args=(owner, orders, pause), name="owner", daemon=True).start()
    with spec.log.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    try:
        trainer = _Trainer(spec)
    except PipelineError as error:
        owner.send(Unfit(str(error)))
        return
    owner.send(Ready())
    while True:
        order = orders.get()
        try:
            for message in trainer.work(order, pause):
                owner.send(message)
        except OSError as error:
            if error.errno not in _HOPELESS:
                owner.send(Failed(order.trial, Outcome.CRASHED, traceback.format_exc()))
            else:
                owner.send(Unfit(f"{error.filename or order.folder} can't be written: {error.strerror}."))
                return
        except Diverged as error:
            owner.send(Failed(order.trial, Outcome.DIVERGED, str(error)))
        except OutOfMemory as error:
            owner.send(Failed(order.trial, Outcome.OUT_OF_MEMORY, str(error)))
        except ConfigError as error:
            # Images too small for a family, weights of another network.
            if error.keys.isdisjoint(order.values):
                owner.send(Unfit(str(error)))  # no value of the search is to blame: all trials would end so
                return
            owner.send(Failed(order.trial, Outcome.IMPOSSIBLE, str(error)))
        except PipelineError as error:
            owner.send(Unfit(str(error)))  # the data, which no search varies, or weights that can't be fetched
            return
        except Exception:
            owner.send(Failed(order.trial, Outcome.CRASHED, traceback.format_exc()))


def _listen(owner: Connection, orders: "queue.SimpleQueue[Order]", pause: threading.Event) -> None:
    while True:
        try:
            request = owner.recv()
        except (EOFError, OSError):
            os._exit(0)  # the owner is gone; everything worth keeping is on disk
        if isinstance(request, Order):
            # Cleared here and not when the order is started: by then a request to pause it may have come.
            pause.clear()
            orders.put(request)
        elif isinstance(request, Pause):
            pause.set()


class _Trainer:
    """What a worker keeps between orders: the device and the images. Workers of a machine share the images' memory."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Raises DataError and ConfigError."""
        # Everything that an order needs is imported now, so that no epoch waits for it.
        for module in LOADED:
            importlib.import_module(module)
        from pipeline.batches.images import load_images
        from pipeline.machine import Machine
        from pipeline.records import load_meta
        from pipeline.training.device import Device

        self._meta: Meta = load_meta(spec.meta)
        self._images: Images = load_images(spec.training_data, self._meta)
        self._code = spec.code
        device = Device.choose(spec.device, spec.precision, spec.threads, Machine.probe())
        self._device = replace(device, memory_share=spec.memory_share)

    def work(self, order: Order, pause: threading.Event) -> Iterator[Message]:
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
