"""Workers with a fault, for tests: each is what a process of the local engine runs."""

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.search.engines import worker
from pipeline.search.engines.worker import Post


def kills_itself_once(owner: Connection, post: Post) -> None:
    """After the second epoch of its first training, as the kernel does it when memory runs out."""
    _with_fault(lambda: os.kill(os.getpid(), signal.SIGKILL), post)
    worker.main(owner, post)


def hangs_once(owner: Connection, post: Post) -> None:
    _with_fault(lambda: time.sleep(3600), post)
    worker.main(owner, post)


def raises(owner: Connection, post: Post) -> None:
    """In each training, after the second epoch."""

    def fault() -> None:
        raise ZeroDivisionError("a bug in the network")

    _with_fault(fault, post, always=True)
    worker.main(owner, post)


def cannot_start(owner: Connection, post: Post) -> None:
    raise SystemExit(3)


def _with_fault(fault: Any, post: Post, *, always: bool = False) -> None:
    from pipeline.training import loop

    fit, happened = loop.fit, Path(f"{post.log}.happened")

    def faulty(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        for epoch in fit(*arguments, **keywords):
            yield epoch
            if epoch.number == 2 and (always or not happened.exists()):
                happened.touch()
                fault()

    loop.fit = faulty
