"""Workers with a fault, for tests: each is what a process of the local engine runs."""

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.search.engines import worker
from pipeline.search.engines.worker import WorkerSpec


def kills_itself_once(owner: Connection, spec: WorkerSpec) -> None:
    """After the second epoch of its first training, as the kernel does it when memory runs out."""
    _with_fault(lambda: os.kill(os.getpid(), signal.SIGKILL), spec)
    worker.main(owner, spec)


def hangs_once(owner: Connection, spec: WorkerSpec) -> None:
    _with_fault(lambda: time.sleep(3600), spec)
    worker.main(owner, spec)


def raises(owner: Connection, spec: WorkerSpec) -> None:
    """In each training, after the second epoch."""

    def fault() -> None:
        raise ZeroDivisionError("a bug in the network")

    _with_fault(fault, spec, always=True)
    worker.main(owner, spec)


def breaks_once(owner: Connection, spec: WorkerSpec) -> None:
    """After the second epoch of its first training, as an illegal access on a GPU breaks it."""

    def fault() -> None:
        import torch

        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    _with_fault(fault, spec)
    worker.main(owner, spec)


def cannot_start(owner: Connection, spec: WorkerSpec) -> None:
    raise SystemExit(3)


def _with_fault(fault: Any, spec: WorkerSpec, *, always: bool = False) -> None:
    from pipeline.training import loop

    fit, happened = loop.fit, Path(f"{spec.log}.happened")

    def faulty(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        for epoch in fit(*arguments, **keywords):
            yield epoch
            if epoch.number == 2 and (always or not happened.exists()):
                happened.touch()
                fault()

    loop.fit = faulty
