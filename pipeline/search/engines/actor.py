"""A worker of the Ray engine: a process on some node, which Ray starts and calls. It does not import Ray."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.provenance import code_digest
from pipeline.search.engines.base import Message, Order
from pipeline.search.engines.store import Store, StoreError, patiently
from pipeline.search.engines.trainer import Broken, Hardware, Trainer, Unfit

SHARED = "shared"
"""The file in the study's folder, or in its store, by which a worker knows that it sees what the owner sees."""

_FIRST_S = 60.0
"""Seconds that a worker waits for a store that it has never seen: its credentials may be wrong."""


class Actor:
    """The worker. Ray makes it in the main thread of its process and calls the methods in others."""

    def __init__(
        self,
        meta: Any,
        images: tuple[Any, ...],
        hardware: Hardware,
        code: dict[str, str],
        digest: str,
        token: str,
        is_draining: Callable[[], bool],
        setup: Callable[[], None] | None,
    ) -> None:
        self._given = meta, images, hardware, code
        self._digest, self._token = digest, token
        self._trainer: Trainer | None = None
        self._is_met = False
        self._pauses: set[str] = set()
        self._lock = threading.Lock()
        self._warned = _Warned(is_draining)
        signal.signal(signal.SIGTERM, lambda number, frame: self._warned.signalled.set())
        if setup:
            setup()

    def pid(self) -> int:
        return os.getpid()

    def pause(self, attempt: str) -> None:
        self._pauses.add(attempt)

    def answer(self, order: Order, attempt: str, folder: str, store: str | None) -> Iterator[Message | Unfit | Broken]:
        if why := self._unfit(Path(folder), store):
            yield Unfit(why)
            return
        with self._lock:
            try:
                self._trainer = self._trainer or self._new_trainer()
            except PipelineError as error:
                yield Unfit(str(error))
                return
        yield from self._trainer.answer(order, _Asked(self._pauses, attempt), self._warned, attempt)

    def _unfit(self, folder: Path, store: str | None) -> str:
        """Why this node can't work for the study; empty if it can."""
        node = socket.gethostname()
        if not self._is_met:
            try:
                found = _content(folder, store)
            except StoreError as error:
                return f"On the node {node}: {error} Its environment needs the credentials too."
            if found != self._token.encode():
                return (
                    f"The node {node} does not see {store or folder}: all nodes need the project's folder at the same "
                    "path, on shared storage, or tune.checkpoints at an address that all reach."
                )
            self._is_met = True
        if code_digest("train") != self._digest:
            return f"The node {node} has other training code than here: use the same commit."
        return ""

    def _new_trainer(self) -> Trainer:
        from pipeline.batches.images import Images

        meta, images, hardware, code = self._given
        return Trainer(meta, Images(*images), hardware, code)


@dataclass(frozen=True)
class _Asked:
    """Whether an attempt was asked to pause."""

    pauses: set[str]
    attempt: str

    def is_set(self) -> bool:
        return self.attempt in self.pauses


@dataclass(frozen=True)
class _Warned:
    """Whether this worker, or its node, is being taken away."""

    is_draining: Callable[[], bool]
    signalled: threading.Event = field(default_factory=threading.Event)

    def is_set(self) -> bool:
        return self.signalled.is_set() or self.is_draining()


def _content(folder: Path, store: str | None) -> bytes | None:
    """What the owner has left for the workers; None if it is not seen from here. Raises StoreError."""
    if store:
        return patiently((Store(store) / SHARED).read, _FIRST_S)
    with suppress(OSError):
        return (folder / SHARED).read_bytes()
    return None
