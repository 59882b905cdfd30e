"""A worker of the local engine: a process that trains what it is ordered to, until its owner is gone.

`main` starts the thread that listens to the owner and imports heavy libraries after that: a worker must end also if its
owner is killed while it loads.
"""

import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.search.engines.base import Order, Paused
from pipeline.search.engines.trainer import Broken, Hardware, Trainer, Unfit


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is started with."""

    meta: Path
    training_data: Path
    hardware: Hardware
    log: Path
    """The file for what the worker and its libraries print."""
    code: Mapping[str, str] | None = None
    """The digest of the code of each network of the user's, as it was when the search began; None: not compared."""


@dataclass(frozen=True)
class Ready:
    """The worker has loaded everything and waits for its first order."""


class Pause:
    """The owner asks the worker to stop after the current epoch."""


def main(owner: Connection, spec: WorkerSpec) -> None:
    """The life of a worker: orders come from `owner`, messages go to it."""
    # Ctrl-C in a terminal reaches the whole process group. The owner decides what follows.
    for name in ("SIGINT", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    # The machine is about to be taken away. An owner that is warned too ends its workers at once.
    warned = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: warned.set())
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    pause = threading.Event()
    threading.Thread(target=_listen, args=(owner, orders, pause), name="owner", daemon=True).start()
    with spec.log.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    try:
        trainer = _trainer(spec)
    except PipelineError as error:
        owner.send(Unfit(str(error)))
        return
    owner.send(Ready())
    while True:
        for message in trainer.answer(orders.get(), pause, warned):
            owner.send(message)
            if isinstance(message, Unfit) or (isinstance(message, Paused) and message.leaving):
                return
            if isinstance(message, Broken):
                os._exit(1)  # the libraries' own ending may wait for a GPU that answers no more


def _trainer(spec: WorkerSpec) -> Trainer:
    """Raises DataError and ConfigError."""
    from pipeline.batches.images import load_images
    from pipeline.records import load_meta

    meta = load_meta(spec.meta)
    return Trainer(meta, load_images(spec.training_data, meta), spec.hardware, spec.code)


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
