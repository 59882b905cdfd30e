"""A search as the report shows it: every trial with its epochs, and what happened when. One JSON file.

The owner of the study writes it, while it searches and at its end; `python -m pipeline.report` reads it. It holds plain
values, so that the report needs neither Optuna's storage nor MLflow.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline import records
from pipeline.config import Scalar
from pipeline.errors import PipelineError
from pipeline.files import atomic_write


@dataclass(frozen=True)
class Key:
    """A searched key."""

    name: str
    log: bool = False
    choices: Sequence[Scalar] | None = None
    """Its values, for choices and ranges with steps; None for a scale of numbers."""


@dataclass(frozen=True)
class TrialHistory:
    """A trial of the search, or one of its confirmation."""

    number: int
    state: str
    """finished, pruned, failed, paused, running"""
    ended: str
    """How it ended, or the state of one that has not."""
    values: Mapping[str, Scalar]
    scores: Sequence[float]
    """Validation accuracy, 0..1, after each epoch."""
    seed: int | None = None
    elapsed_s: float = 0.0
    why: str | None = None
    of: int | None = None
    """Of the confirmation: the trial whose values it has."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial."""

    at_s: float
    """Seconds since 1970."""
    phase: str
    """trial or confirm"""
    trial: int
    kind: str
    """sent, epoch, reached, failed, stopped, ended"""
    epoch: int
    """The last epoch that it had trained by then; of `sent` the one until which it is to train."""


@dataclass(frozen=True)
class Surface:
    """What the model of learning curves believes of the two most important keys."""

    keys: Sequence[str]
    """Two: along the horizontal axis and along the vertical one."""
    values: Sequence[Sequence[Scalar]]
    """Of each of them, from low to high."""
    accuracies: Sequence[Sequence[float]]
    """Of a full training, the median that the model predicts: a row for each value of the second key."""
    sds: Sequence[Sequence[float]]
    """Standard deviations, in the same order."""
    held: Mapping[str, Scalar]
    """The values of the other keys, those of the winner."""


@dataclass(frozen=True, kw_only=True)
class SearchHistory:
    """A study."""

    study: str
    key: str
    """The study's run in MLflow is study-KEY."""
    created: str | None
    elapsed_s: float
    epochs: int
    """Of a full training."""
    trials_wanted: int
    scheduler: str
    is_running: bool
    keys: Sequence[Key]
    importances: Mapping[str, float]
    """Shares with the sum 1; empty if too few trials have finished."""
    trials: Sequence[TrialHistory]
    confirmation: Sequence[TrialHistory] = ()
    winner: int | None = None
    events: Sequence[Event] = field(default_factory=list)
    """In the order of time; none of a study that an earlier version began."""
    surface: Surface | None = None
    """None of a running study, of one with too few trials, and of an earlier version."""


def write(history: SearchHistory, path: Path) -> None:
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(asdict(history), separators=(",", ":")) + "\n", encoding="utf-8")


def read(path: Path) -> SearchHistory | str:
    """The history, or a sentence that says why there is none to show."""
    if not path.exists():
        return (
            "No search has been made here yet. `python -m pipeline.tune --trials 50` makes one; "
            "`python -m pipeline.report` then shows it here."
        )
    try:
        return records.read(SearchHistory, path, stage="tune")
    except PipelineError:
        return (
            "history.json is damaged or of another version, so the search is not shown. The command that searched, "
            "started again, writes it again."
        )
