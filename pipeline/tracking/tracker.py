"""The runs that a process records."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import internals
from pipeline.tracking.delivery import Recorded
from pipeline.tracking.handover import Handover
from pipeline.tracking.outbox import Held, Kept, Operation, Outbox, kept, sweep
from pipeline.tracking.parts import Parts
from pipeline.tracking.run import Run
from pipeline.tracking.sender import Sender, say
from pipeline.tracking.store import Store
from pipeline.tracking.timing import Timing

Append: TypeAlias = Callable[[Sequence[Operation]], None]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}")


class _Runs:
    """The runs of a process. Those that nobody finished are finished at the end of its `with` block.

    They end as FINISHED, as INTERRUPTED (Ctrl-C) or as CRASHED (any other error).
    """

    def __init__(self, project: Project) -> None:
        """Raises TrackingError if the environment names no store that MLflow can use."""
        self._folder, self._store = project.outbox, Store.of(project)
        self._runs: dict[Run, None] = {}
        """Those that are not finished, in their order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = Outcome.FINISHED if error is None else Outcome.CRASHED
        if isinstance(error, KeyboardInterrupt):
            outcome = Outcome.INTERRUPTED
        try:
            for run in list(self._runs):
                run.finish(outcome)
        finally:
            self._close(outcome)

    def _begin(self, folder: Path, new: bool, **opening: Any) -> tuple[Outbox | Parts, Append]:
        """The outbox of a run, with its first operation, and what appends to it."""
        raise NotImplementedError

    def _close(self, outcome: Outcome) -> None:
        raise NotImplementedError

    def open(self, key: str, name: str | None = None, parent: str | None = None, *, new: bool = False) -> Run:
        """Creates the run `key`, or resumes it: then it is RUNNING again, and `name`, if given, renames it.

        `key` is the project's unique and lasting name for a run: up to 100 letters, digits and any of . _ = + -
        `parent` is the key of the run that MLflow shows it under. `new` promises that no run of this key was ever
        opened, which saves a search in MLflow. Raises TrackingError if another process records the run.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"a run's key must be up to 100 letters, digits and . _ = + -, got {key!r}")
        opening = {"key": key, "name": name, "parent": parent}
        target = {"store": str(self._store), "experiment": self._store.experiment}
        begun = self._begin(self._folder / f"{key}@{self._store.id}", new, **opening, **target)
        run = Run(self._store, *begun, on_finished=self._runs.pop)
        self._runs[run] = None
        return run


class StageTracker(_Runs):
    """For a stage, which neither imports MLflow nor waits for it: a process of its own sends what the stage records."""

    def __init__(self, project: Project, timing: Timing | None = None) -> None:
        """Raises TrackingError if the environment names no store that MLflow can use."""
        super().__init__(project)
        self._handover = Handover(project, self._store, timing or Timing())

    def _begin(self, folder: Path, new: bool, **opening: Any) -> tuple[Parts, Append]:
        parts = self._handover.open(folder, **opening)
        return parts, parts.append_all

    def _close(self, outcome: Outcome) -> None:
        if complaints := self._handover.close():
            say(complaints)


class Tracker(_Runs):
    """For a command that runs for long. At the end of its `with` block all records are sent, if the store answers.

    The first `open` waits until the store is connected, and raises TrackingError if it can't be used.
    """

    def __init__(
        self, project: Project, on_sent: Callable[[], None] = lambda: None, timing: Timing | None = None
    ) -> None:
        """`on_sent` is called from another thread after each operation that MLflow took.

        Raises TrackingError if the environment names no store that MLflow can use.
        """
        super().__init__(project)
        self._timing = timing or Timing()
        self._sender = Sender(self._store, self._timing, on_sent)

    def _begin(self, folder: Path, new: bool, **opening: Any) -> tuple[Outbox, Append]:
        self._sender.start()
        outbox = self._sender.open(folder, new=new, **opening)
        return outbox, partial(self._sender.append, outbox)

    def _close(self, outcome: Outcome) -> None:
        stopped = outcome is Outcome.INTERRUPTED
        if left := self._sender.close(self._timing.interrupted_patience_s if stopped else self._timing.patience_s):
            count = sum(outbox.waiting for outbox in left)
            say(
                f"MLflow at {self._store} lacks {count} of the recorded operations, which are kept in "
                f"{self._folder}. When it answers, `python -m pipeline.tracking` sends them."
            )

    @contextmanager
    def putting_off(self) -> Iterator[None]:
        """In the block, what is recorded survives a power cut only after `sync`, or when the block ends."""
        self._sender.puts_off = True
        try:
            yield
        finally:
            self._sender.puts_off = False
            self.sync()

    def sync(self) -> None:
        """Makes all that was recorded survive a power cut. Raises TrackingError."""
        self._sender.sync()

    @property
    def waiting(self) -> int:
        """The number of recorded operations that MLflow does not have yet."""
        return self._sender.waiting

    @property
    def unsent(self) -> set[Path]:
        """The folders of the outboxes that are not sent, also after the `with` block."""
        return self._sender.folders

    def children(self, parent: str) -> dict[str, Recorded] | None:
        """What MLflow has of the runs under the run `parent`, by key; None if it does not answer.

        Operations that still wait to be sent are not in it. Thousands of runs take seconds. Call it after `open`.
        """
        no_answer: dict[str, Recorded] | None = None
        return self._sender.ask(
            lambda delivery: delivery.children(parent), default=no_answer, wait_s=self._timing.children_s
        )

    def send_leftovers(self, *, parts: bool = False) -> list[Kept]:
        """Sends what other processes have recorded and don't hold, and ends the runs of dead ones as INTERRUPTED.

        Leaves alone the outboxes that living processes hold, and returns them. Call it after `open`: a run that this
        process resumes has not ended. With `parts` only what stages recorded is sent. Raises TrackingError if the store
        can't be used.
        """
        held: list[Kept] = []
        sweep(self._folder)
        for leftover in kept(self._folder, self._store.id, parts=parts, known=self._sender.folders):
            if any(other.key == leftover.key for other in held):
                held.append(leftover)  # a run's records are sent in their order
                continue
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
