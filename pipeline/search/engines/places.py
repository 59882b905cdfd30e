"""Where a worker keeps the files of a trial: the trial's folder, or a folder of its own whose files go to a store."""

import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
)

from pipeline.files import atomic_write, is_locked
from pipeline.search.engines import store as stores
from pipeline.search.engines.store import CHECKPOINT, MODEL, Store, StoreError

_ATTEMPT = "attempt"
"""The file in a trial's folder that names the worker that may write there."""


class Place(Protocol):
    """The files of a trial, as its worker has them while it carries out an order."""

    @property
    def folder(self) -> Path:
        """The training's own. It holds the checkpoints that are there."""
        ...

    def arrive(self) -> Iterator[None]:
        """Ends when the trial's checkpoints are in the folder, and yields each second until then. Raises StoreError."""
        ...

    def is_lost(self) -> bool:
        """Whether another worker has the trial by now."""
        ...

    def saved(self) -> None:
        """To be called when new checkpoints are in the folder. Does not wait."""
        ...

    def trouble(self) -> str | None:
        """Why files can't be stored at the moment, told once."""
        ...

    def leave(self) -> Iterator[None]:
        """Ends when all files are where others find them, and yields each second until then. Raises StoreError."""
        ...


@contextmanager
def place(folder: Path, address: str | None, attempt: str | None, scratch: "Scratch") -> Iterator[Place]:
    """The files of a trial: in `folder`, or at `address`.

    `attempt` names the worker's hold on the trial; None: no other worker can have it.
    """
    if address is None:
        yield SharedFolder(folder, attempt)
        return
    with scratch.folder() as own, StoredFolder(own, Store(address), attempt or uuid.uuid4().hex) as stored:
        yield stored


class SharedFolder:
    """The trial's folder itself, which the owner sees too."""

    def __init__(self, folder: Path, attempt: str | None) -> None:
        self.folder = folder
        self._attempt = attempt
        if attempt is not None:
            with atomic_write(folder / _ATTEMPT) as aside:
                aside.write_text(attempt)

    def arrive(self) -> Iterator[None]:
        return iter(())

    def is_lost(self) -> bool:
        if self._attempt is None:
            return False
        with suppress(OSError):
            return (self.folder / _ATTEMPT).read_text() != self._attempt
        return True

    def saved(self) -> None:
        pass

    def trouble(self) -> str | None:
        return None

    def leave(self) -> Iterator[None]:
        return iter(())


class StoredFolder:
    """A folder of the worker's. Its files are stored beside the training, one upload at a time.

    If checkpoints come faster than they are stored, the newest waits and older ones are skipped.
    """

    def __init__(self, folder: Path, store: Store, attempt: str) -> None:
        self.folder = folder
        self._store, self._attempt = store, attempt
        self._count = 0
        self._waiting: dict[str, Path] = {}
        """What is to be stored, or is being stored: copies, by name."""
        self._sending: dict[str, Path] = {}
        self._changed = threading.Condition()
        self._is_here = False
        self._gone = threading.Event()
        self._lost = self._told = False
        self._trouble: str | None = None
        threading.Thread(target=self._work, name="uploads", daemon=True).start()

    def __enter__(self) -> "StoredFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._gone.set()
        with self._changed:
            self._changed.notify_all()

    def arrive(self) -> Iterator[None]:
        return self._wait(lambda: self._is_here)

    def is_lost(self) -> bool:
        return self._lost

    def saved(self) -> None:
        for path in self.folder.glob(f"{CHECKPOINT}*.pt"):
            self._offer(path)

    def trouble(self) -> str | None:
        with self._changed:
            if self._trouble is None or self._told:
                return None
            self._told = True
            return self._trouble

    def leave(self) -> Iterator[None]:
        model = self.folder / MODEL
        if model.exists():
            self._offer(model)
        return self._wait(lambda: not self._waiting or self._lost)

    def _wait(self, until: Callable[[], bool]) -> Iterator[None]:
        deadline = time.monotonic() + stores.PATIENCE_S
        while True:
            with self._changed:
                if self._changed.wait_for(until, 1.0):
                    return
                if time.monotonic() > deadline:
                    raise StoreError(self._trouble or f"tune.checkpoints: {self._store} is too slow.")
            yield

    def _offer(self, path: Path) -> None:
        """Keeps the file as it is now, for the next upload: training replaces it meanwhile."""
        self._count += 1
        kept = self.folder / f"upload-{self._count}"
        _link(path, kept)
        with self._changed:
            older = self._waiting.get(path.name)
            if older and older not in self._sending.values():
                older.unlink()
            self._waiting[path.name] = kept
            self._changed.notify_all()

    def _work(self) -> None:
        retrying = Retrying(
            wait=stores.PAUSES,
            stop=stop_when_event_set(self._gone),
            sleep=sleep_using_event(self._gone),
            retry=retry_if_exception_type(StoreError),
            before_sleep=self._note,
        )
        with suppress(RetryError):  # the worker has left, without waiting for it
            retrying(self._fetch)
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._gone.is_set())
                if self._gone.is_set():
                    return
                retrying(self._store_newest)

    def _fetch(self) -> None:
        """Begins the attempt. Raises StoreError."""
        self._store.claim(self._attempt, self.folder)
        with self._changed:
            self._is_here, self._trouble, self._told = True, None, False
            self._changed.notify_all()

    def _store_newest(self) -> None:
        """Stores what waits as it begins. Raises StoreError."""
        with self._changed:
            self._sending = dict(self._waiting)
        is_stored = self._store.put(self._attempt, self._sending)
        with self._changed:
            self._trouble, self._told, self._lost = None, False, not is_stored
            for name, kept in self._sending.items():
                kept.unlink(missing_ok=True)
                if self._waiting[name] == kept:
                    del self._waiting[name]
            self._sending = {}
            self._changed.notify_all()

    def _note(self, state: RetryCallState) -> None:
        """Between two tries."""
        with self._changed:
            for name, kept in self._sending.items():
                if self._waiting[name] != kept:
                    kept.unlink(missing_ok=True)
            self._sending = {}
            self._trouble = str(state.outcome.exception()) if state.outcome else None


class Scratch:
    """Folders of this worker for trials whose files go to a store; its own are gone when it is, in whatever way."""

    def __init__(self) -> None:
        self._own: Path | None = None
        self._lock: FileLock | None = None

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder, deleted after the block."""
        own = self._own = self._own or self._new()
        folder = Path(tempfile.mkdtemp(dir=own))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _new(self) -> Path:
        """A folder that this process has a lock in. Those of processes that were killed are deleted."""
        root = Path(tempfile.gettempdir()) / f"pipeline-trials-{os.getuid() if hasattr(os, 'getuid') else 0}"
        root.mkdir(mode=0o700, exist_ok=True)
        with FileLock(root / "lock"):
            for other in root.glob("worker-*"):
                if not is_locked(other / "lock"):
                    shutil.rmtree(other, ignore_errors=True)
            own = Path(tempfile.mkdtemp(prefix="worker-", dir=root))
            self._lock = FileLock(own / "lock")
            self._lock.acquire()
        return own


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
