"""A worker of the local engine: a process that trains what it is told to, until its owner is gone.

It knows neither Optuna nor MLflow. Heavy libraries are imported inside `main`, after the thread that listens to the
owner has begun: a worker whose owner is killed while it starts must not live on either.
"""

import errno
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import Diverged, DownloadError, OutOfMemory, PipelineError
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

# What no other worker, and no second try, would get past.
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
    """What the worker, and the libraries in it, print."""


@dataclass(frozen=True)
class Ready:
    """The worker has loaded all and waits for its first order."""


@dataclass(frozen=True)
class Unfit:
    """The worker can't work, and says why."""

    why: str


class Pause:
    """The owner's wish that the worker stop after this epoch."""


def main(owner: Connection, spec: WorkerSpec) -> None:
    """The life of a worker: orders come from `owner`, messages go to it."""
    # A terminal's Ctrl-C and a scheduler's SIGTERM reach a whole group; what follows is for the owner to say.
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
                owner.send(Failed(order.trial, "crashed", traceback.format_exc()))
            else:
                owner.send(Unfit(f"{error.filename or order.folder} can't be written: {error.strerror}."))
                return
        except Diverged as error:
            owner.send(Failed(order.trial, "diverged", str(error)))
        except OutOfMemory as error:
            owner.send(Failed(order.trial, "out of memory", str(error)))
        except DownloadError as error:
            owner.send(Unfit(str(error)))
            return
        except PipelineError as error:
            # Of the values: images too small for a family, weights that are another network's.
            owner.send(Failed(order.trial, "crashed", str(error)))
        except Exception:
            owner.send(Failed(order.trial, "crashed", traceback.format_exc()))


def _listen(owner: Connection, orders: "queue.SimpleQueue[Order]", pause: threading.Event) -> None:
    while True:
        try:
            said = owner.recv()
        except (EOFError, OSError):
            os._exit(0)  # the owner is gone, however it went: all that is worth keeping is on disk
        if isinstance(said, Order):
            # Not where the order is taken up: the wish to pause may be here by then.
            pause.clear()
            orders.put(said)
        elif isinstance(said, Pause):
            pause.set()


class _Trainer:
    """What a worker keeps between orders: the device and the images, which all workers of a machine share."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Raises DataError and ConfigError."""
        # What an order needs too, so that its first epoch does not wait for it. PyTorch's optimisers import _dynamo at
        # their first step, though nothing is compiled: two seconds, in which the owner has enough to do at the start.
        import torch._dynamo  # noqa: F401

        from pipeline import networks  # noqa: F401
        from pipeline.batches.images import load_images
        from pipeline.machine import Machine
        from pipeline.records import load_meta
        from pipeline.training import cross_validation  # noqa: F401
        from pipeline.training.device import Device

        self._meta: Meta = load_meta(spec.meta)
        self._images: Images = load_images(spec.training_data, self._meta)
        self._device = Device.choose(spec.device, spec.precision, spec.threads, Machine.probe())

    def work(self, order: Order, pause: threading.Event) -> Iterator[Message]:
        """Raises Diverged, OutOfMemory, and OSError if the checkpoint can't be written."""
        from pipeline import networks
        from pipeline.training.cross_validation import Training
        from pipeline.training.loop import memory_errors

        yield Began(order.trial)
        self._device.prepare()
        with memory_errors(order.config.train, self._device):
            training = Training.of(order.config, self._meta, self._images, self._device, order.folder)
        done = training.done
        for epoch in done[order.known : order.until]:
            yield EpochDone(order.trial, epoch)
        # It may have been reached before the owner, or this worker's predecessor, was killed.
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
