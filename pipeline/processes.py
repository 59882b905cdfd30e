"""Child processes, each with a pipe to its parent: the workers of a search, and the exporter of models.

    child = ChildProcess("worker", main, spec)     (runs main(connection, spec))
    child.connection.send(order)
    how = child.wait()                             ("ended with exit code 0")

A child ignores Ctrl-C and the other signals that ask a program to end, unless `main` does something with them: a
terminal and a job scheduler send them to the parent too, which decides what they mean. It ends with its parent, however
that ends: the pipe closes, and `main` must return when `recv` raises EOFError.

Children that need the same heavy modules can be forked from a server that imports them once: see `prepare_forks`.
"""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import TypeVarTuple

Arguments = TypeVarTuple("Arguments")

_IGNORED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


_spawns = multiprocessing.get_context("spawn")
CAN_FORK = sys.platform == "linux"
"""Whether children can be forked. Apple's libraries don't survive a fork, Windows has none."""


def prepare_forks(modules: Sequence[str]) -> None:
    """Starts the server of this process that `modules` are imported in, and returns at once.

    It imports them before it has any thread, and uses nothing of them: what must not be forked, such as CUDA, begins in
    the children. Where nothing can be forked this does nothing.
    """
    if not CAN_FORK:
        return
    forkserver.set_forkserver_preload(list(modules))
    # numpy's OpenBLAS starts threads when it is imported, unless it may have one only.
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        with _signals_held():
            forkserver.ensure_running()
    finally:
        os.environ.pop("OPENBLAS_NUM_THREADS")
        if before is not None:
            os.environ["OPENBLAS_NUM_THREADS"] = before


class ChildProcess:
    """A running child process. Its parent talks to it over `connection`, which ends when the child does."""

    def __init__(
        self, name: str, main: Callable[[Connection, *Arguments], None], *arguments: *Arguments, fork: bool = False
    ) -> None:
        """Starts an interpreter that calls `main(connection, *arguments)`; all of them must be picklable.

        With `fork` it comes from the server of `prepare_forks`, where that is possible.
        """
        self.connection, theirs = multiprocessing.Pipe()
        start = multiprocessing.get_context("forkserver").Process if fork and CAN_FORK else _spawns.Process
        self._process = start(target=_run, args=(main, theirs, arguments), name=name, daemon=True)
        with _signals_held():
            self._process.start()
        theirs.close()  # so that the child's death ends the connection
        # Before multiprocessing's own handler, which would wait for a child that ignores its SIGTERM.
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def wait(self) -> str:
        """Waits until the child has ended. Returns how, in words that follow a subject: "was ended by SIGKILL"."""
        self._process.join()
        return _ending(self._process.exitcode)

    def kill(self) -> None:
        """Ends the child at once and closes the connection. The handle is of no use afterwards."""
        atexit.unregister(self.kill)
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process that is started in the block gets no signal that ends it before `_run` has said what it does."""
    if os.name != "posix":
        yield
        return
    # The first child starts multiprocessing's resource tracker, which would lift the block.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(main: Callable[[Connection, *Arguments], None], connection: Connection, arguments: tuple[*Arguments]) -> None:
    """What the child does."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    main(connection, *arguments)


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            name = signal.Signals(-exit_code).name
            # The usual sender of this one, other than a person, is the kernel when memory runs out.
            return f"was ended by {name}" + (" (was memory short?)" if name == "SIGKILL" else "")
    return f"ended with exit code {exit_code}"
