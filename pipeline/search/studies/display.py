"""What a study shows while it runs: a live table on a terminal, a line per event everywhere else."""

import json
import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.cli import duration
from pipeline.config import Scalar
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines.base import Failed, TargetReached
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.trials import Trial
from pipeline.search.studies.watcher import Watcher

OTHER_COLUMNS = 46
"""Characters of a row before the values, without the expected end."""
EXPECTED_COLUMN = 14
EXPECTED_EVERY_S = 10.0
"""The shortest time between two predictions of the ends; one takes up to a tenth of a second."""
QUIET_S = 600.0
"""A store that does not answer is mentioned again after so long a silence."""
STATES = {"running": "cyan", "paused": "yellow", "pruned": "dim", "finished": "green", "failed": "red"}


class StudyDisplay(Watcher):
    """A watcher and a context manager."""

    def __init__(
        self, console: Console, ledger: Ledger, *, title: str, trials: int, epochs: int, budget: float
    ) -> None:
        """`trials` is the planned number of trials, `epochs` that of a full training; `budget` is in full trainings."""
        self._console = console
        self._ledger = ledger
        self._title = title
        self._trials = trials
        self._epochs = epochs
        self._target = min(budget, trials) * epochs
        self._began_s = time.monotonic()
        self._trained = 0
        """Epochs since the display began."""
        self._before = sum(len(trial.scores) for trial in ledger.trials)
        self._said_s = -math.inf
        """When a worker said last that it can't store a trial's files."""
        self.note = ""
        """A line under the table."""
        self.expect: Callable[[], Mapping[int, tuple[float, float]]] | None = None
        """The expected final accuracies of trials that are not over, by number: medians and standard deviations."""
        self._expected: Mapping[int, tuple[float, float]] = {}
        self._expected_s = -math.inf
        self._live = Live(
            console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True, auto_refresh=True
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        self._trained += 1

    def reached(self, trial: Trial, reached: TargetReached) -> None:
        if reached.epoch < self._epochs and not reached.over:
            self._print(trial, f"paused after epoch {reached.epoch}, {_accuracy(trial)}")
        if self.expect and self._console.is_terminal and time.monotonic() > self._expected_s + EXPECTED_EVERY_S:
            self._expected, self._expected_s = self.expect(), time.monotonic()

    def ended(self, trial: Trial, outcome: Outcome, why: str | None) -> None:
        if outcome is Outcome.FINISHED:
            self._print(trial, f"finished, {_accuracy(trial)}")
        elif outcome is not Outcome.PRUNED or why:
            self._print(trial, f"{outcome}: {first_line(why)}")

    def failed(self, trial: Trial, failed: Failed) -> None:
        self._print(trial, f"{failed.outcome} and is tried again: {first_line(failed.why)}")

    def interrupted(self, trial: Trial) -> None:
        self._print(trial, f"its worker is being taken away after epoch {len(trial.scores)}: it resumes elsewhere")

    def unstored(self, trial: Trial, why: str) -> None:
        # Each worker says it, all for the same reason.
        if time.monotonic() - self._said_s > QUIET_S:
            self._print(trial, f"{why} It trains on, and its checkpoints are stored later")
        self._said_s = time.monotonic()

    def _print(self, trial: Trial, sentence: str) -> None:
        # On a terminal the table shows the event. An error gets a line there too.
        if not self._console.is_terminal or ":" in sentence:
            eta = self.eta_s()
            left = f"  (ETA {duration(eta)})" if eta is not None and not self._console.is_terminal else ""
            self._console.print(f"{self._title} {trial.number}: {sentence}{left}", highlight=False, soft_wrap=True)

    def eta_s(self) -> float | None:
        """Seconds until the budget is spent, at the pace so far; None before the first epoch."""
        if not self._trained:
            return None
        left = max(0.0, self._target - self._before - self._trained)
        return (time.monotonic() - self._began_s) / self._trained * left

    def _drawn(self) -> RenderableType:
        trials = self._ledger.trials
        counts = {state: sum(trial.state == state for trial in trials) for state in STATES}
        states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        epochs = self._before + self._trained
        eta = self.eta_s()
        head = Text(f"{self._ledger.name}: {len(trials)} of {self._trials} trials ({states or 'starting'})")
        best = max((trial for trial in trials if trial.state == "finished"), key=lambda t: t.scores[-1], default=None)
        if best:
            head.append(f"  best {best.scores[-1]:.2%} (trial {best.number})", "bold green")
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(self._target, 1), completed=min(epochs, self._target), width=40),
            f"{epochs / self._epochs:.1f} of {self._target / self._epochs:.1f} full trainings",
            f"ETA {duration(eta)}" if eta is not None else "",
        )
        parts: list[RenderableType] = [head, bar, self._table()]
        if self.note:
            parts.append(Text(self.note, "yellow"))
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        expected = ("expected end",) if self._expected else ()
        for name in ("trial", "epoch", "rung", "validation", *expected):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("values", no_wrap=True)
        order = {"running": 0, "finished": 1, "paused": 1}
        shown = sorted(
            self._ledger.trials,
            key=lambda trial: (order.get(trial.state, 2), -(trial.scores[-1] if trial.scores else 0.0)),
        )
        for trial in shown[: max(3, self._console.height - 8)]:
            values = Text(on_a_line(trial.values))
            # Cut here: rich would shrink the more important columns of a table that is too wide.
            room = self._console.width - OTHER_COLUMNS - EXPECTED_COLUMN * len(expected)
            values.truncate(max(10, room), overflow="ellipsis")
            is_over = trial.state not in ("running", "paused")
            end = "" if is_over else _expected_end(self._expected.get(trial.number))
            table.add_row(
                str(trial.number),
                str(len(trial.scores)),
                str(trial.until),
                f"{trial.scores[-1]:.2%}" if trial.scores else "",
                *(end for _ in expected),
                Text(trial.status, STATES[trial.state]),
                values,
            )
        return table


def _expected_end(end: tuple[float, float] | None) -> str:
    return f"{end[0]:.1%} ± {100 * end[1]:.1f}" if end else ""


def on_a_line(values: Mapping[str, Scalar]) -> str:
    """Values on one line, keys without their section."""
    return "  ".join(f"{key.rpartition('.')[2]} {shown(value)}" for key, value in values.items())


def shown(value: Scalar) -> str:
    """A value as YAML writes it, floats with three digits."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _accuracy(trial: Trial) -> str:
    return f"validation {trial.scores[-1]:.2%}"


def first_line(why: str | None) -> str:
    """The line of a reason that says most."""
    lines = (why or "").strip().splitlines()
    # Of a traceback the last line says what happened.
    return (lines[-1] if lines and lines[0].startswith("Traceback") else lines[0]) if lines else "no reason given"
