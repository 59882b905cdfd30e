"""The runs that a process records."""

import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import internals
from pipeline.tracking.delivery import Recorded
from pipeline.tracking.outbox import Held, Kept, Outbox, kept, sweep
from pipeline.tracking.run import Run
from pipeline.tracking.sender import Sender, say
from pipeline.tracking.store import Store
from pipeline.tracking.timing import Timing

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}")


class Tracker:
    """The MLflow store of a project. At the end of its `with` block it finishes the open runs and sends all records.

    It finishes a run that nobody finished as FINISHED, as INTERRUPTED (Ctrl-C) or as CRASHED (any other error).
    """

    def __init__(
        self, project: Project, on_sent: Callable[[], None] = lambda: None, timing: Timing | None = None
    ) -> None:
        """`on_sent` is called from another thread after each operation that MLflow took.

        Raises TrackingError if the environment names no store that MLflow can use.
        """
        self._timing = timing or Timing()
        self._store = Store.of(project)
        self._folder = project.outbox
        self._sender = Sender(self._store, self._timing, on_sent)
        self._runs: list[Run] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            outcome, patience_s = Outcome.FINISHED, self._timing.patience_s
        elif isinstance(error, KeyboardInterrupt):
            outcome, patience_s = Outcome.INTERRUPTED, self._timing.interrupted_patience_s
        else:
            outcome, patience_s = Outcome.CRASHED, self._timing.patience_s
        try:
            for run in self._runs:
                if not run.finished:
                    run.finish(outcome)
        finally:
            left = self._sender.close(patience_s)
            if left:
                count = sum(outbox.waiting for outbox in left)
                say(
                    f"MLflow at {self._store} lacks {count} of the recorded operations, which are kept in "
                    f"{self._folder}. When it answers, `python -m pipeline.tracking` sends them."
                )

    def open(self, key: str, name: str | None = None, parent: str | None = None, *, new: bool = False) -> Run:
        """Creates the run `key`, or resumes it: then it is RUNNING again, and `name`, if given, renames it.

        `key` is the project's unique and lasting name for a run: up to 100 letters, digits and any of . _ = + -
        `parent` is the key of the run that MLflow shows it under. `new` promises that no run of this key was ever
        opened, which saves a search in MLflow. The first call waits until the store is connected; later calls don't.
        Raises TrackingError if the store can't be used, or if another process records the run.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"a run's key must be up to 100 letters, digits and . _ = + -, got {key!r}")
        self._sender.start()
        opening = {"key": key, "name": name, "parent": parent}
        target = {"store": str(self._store), "experiment": self._store.experiment}
        outbox = self._sender.open(self._folder / f"{key}@{self._store.id}", new=new, **opening, **target)
        run = Run(self._store, self._sender, outbox)
        self._runs = [other for other in self._runs if not other.finished] + [run]
        return run

    @property
    def waiting(self) -> int:
        """The number of recorded operations that MLflow does not have yet."""
        return self._sender.waiting

    def children(self, parent: str) -> dict[str, Recorded] | None:
        """What MLflow has of the runs under the run `parent`, by key; None if it does not answer.

        Operations that still wait to be sent are not in it. Thousands of runs take seconds. Call it after `open`.
        """
        no_answer: dict[str, Recorded] | None = None
        return self._sender.ask(
            lambda delivery: delivery.children(parent), default=no_answer, wait_s=self._timing.children_s
        )

    def send_leftovers(self) -> list[Kept]:
        """Sends what earlier processes could not send, and ends the runs of dead processes as INTERRUPTED.

        Leaves alone the outboxes that living processes hold, and returns them. Call it after `open`: a run that this
        process resumes has not ended. Raises TrackingError if the store can't be used.
        """
        held = []
        sweep(self._folder)
        for leftover in kept(self._folder, self._store.id):
            try:
                outbox = Outbox(leftover.folder, wait_s=0)
            except Held:
                held.append(leftover)
                continue
            if not outbox.ended:
                outbox.append("finish", ended=Outcome.INTERRUPTED.value)
            self._sender.start()
            self._sender.add(outbox)
        return held


def is_gone(project: Project, key: str) -> bool:
    """Whether the store is an SQLite file that lacks the run `key`, or is missing itself. Raises TrackingError.

    A run that was deleted in MLflow counts as lacking. Stores of other kinds are not asked, which would take seconds.
    """
    database = Store.of(project).database
    return database is not None and not (database.exists() and internals.has_run(database, key))
