"""What a scheduler sees and answers, and the scheduler `none`.

A scheduler is asked whenever a worker is free. It sees every trial of the study. It answers which paused trial resumes,
or that a new one starts, and until which epoch. It keeps no state between two questions, so a study that was killed
decides as one that was not. Where there are many workers, it is asked for several decisions at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from pipeline.search.space.values import Values

State: TypeAlias = Literal["running", "paused", "pruned", "finished", "failed"]
"""Of a trial. Pruned, finished and failed trials never resume."""


@dataclass(frozen=True)
class TrialView:
    """What a scheduler knows of a trial."""

    number: int
    values: Values
    scores: tuple[float, ...]
    """Validation accuracy, 0..1, after each epoch so far."""
    state: State
    """failed: diverged, out of memory, or not trainable."""
    until: int
    """The epoch of its last order. It is reached, unless the trial is running or failed."""


@dataclass(frozen=True)
class RemainingBudget:
    """What a search may still spend."""

    trials: int
    """New configurations."""
    epochs: float
    """Of training. The epochs that running trials were ordered to train are already subtracted. `inf` is no limit."""


@dataclass(frozen=True)
class Start:
    """Train a new configuration until an epoch."""

    until: int
    values: Values | None = None
    """None: the study's sampler chooses them."""


@dataclass(frozen=True)
class Resume:
    """Train a paused trial until a later epoch."""

    number: int
    until: int


class Scheduler(Protocol):
    """Chooses what a free worker does next."""

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        """What to train next; None if there is nothing to train until a running trial reaches its epoch.

        A function of its arguments alone. `trials` are in the order of their numbers.
        """
        ...

    def plan(self, trials: Sequence[TrialView], left: RemainingBudget, count: int) -> Sequence[Start | Resume]:
        """Up to `count` decisions in a row, none of which waits for the results of those before it.

        A function of its arguments alone. It takes little more time than one decision; `count` 1 is `decide`.
        """
        ...


@dataclass(frozen=True)
class FullTraining:
    """The scheduler `none`: each trial trains to its end without a pause."""

    epochs: int
    """Of a full training."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        return next(iter(self.plan(trials, left, 1)), None)

    def plan(self, trials: Sequence[TrialView], left: RemainingBudget, count: int) -> Sequence[Start | Resume]:
        decisions: list[Start | Resume] = []
        epochs = left.epochs
        # Another scheduler may have paused trials of this study before.
        for trial in trials:
            if len(decisions) < count and trial.state == "paused" and self.epochs - trial.until <= epochs:
                decisions.append(Resume(trial.number, self.epochs))
                epochs -= self.epochs - trial.until
        starts = min(count - len(decisions), left.trials, epochs // self.epochs)
        return decisions + [Start(self.epochs)] * int(starts)
