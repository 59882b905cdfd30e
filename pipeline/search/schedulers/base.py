"""Who goes on, who pauses: the schedulers of a search, and what they see and say.

A scheduler is asked whenever a worker is free. It sees every trial of the study and says which paused one goes on, or
that a new one starts, and until which epoch; it keeps nothing between two questions, so that a study that was killed
decides as one that was not.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from pipeline.config import Scalar

Values: TypeAlias = Mapping[str, Scalar]
"""Of one configuration, by dotted name; without those whose `when` does not hold."""


@dataclass(frozen=True)
class TrialView:
    """What a scheduler knows of a trial."""

    number: int
    values: Values
    scores: tuple[float, ...]
    """Validation accuracy, 0..1, after each epoch so far."""
    state: Literal["running", "paused", "pruned", "finished", "failed"]
    """pruned and failed ones never go on; failed ones diverged, ran out of memory, or could not be trained."""
    until: int
    """The epoch to which it was sent last; reached, unless it is running or failed."""


@dataclass(frozen=True)
class RemainingBudget:
    """What a search may still spend."""

    trials: int
    """New configurations."""
    epochs: float
    """Of training; what running trials were promised is taken off already. `inf` where there is no budget."""


@dataclass(frozen=True)
class Start:
    """Train a new configuration until an epoch."""

    until: int
    values: Values | None = None
    """Which one; None leaves it to the study's sampler."""


@dataclass(frozen=True)
class Resume:
    """Train a paused trial until a later epoch."""

    number: int
    until: int


class Scheduler(Protocol):
    """Chooses what a free worker does next."""

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        """The next thing to train; None if there is nothing, until a running trial reaches its epoch.

        A function of its arguments alone. `trials` are in the order of their numbers.
        """
        ...


@dataclass(frozen=True)
class FullTraining:
    """Each trial trains to its end, without a pause; the scheduler `none`."""

    epochs: int
    """Of a full training."""

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, 1)

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        for trial in trials:
            if trial.state == "paused" and self.epochs - trial.until <= left.epochs:
                return Resume(trial.number, self.epochs)
        return Start(self.epochs) if left.trials > 0 and self.epochs <= left.epochs else None


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934, algorithm 2).

    At each rung the best 1 / reduction_factor of those that have been there go on to the next, as soon as they are
    known to be that; whoever is overtaken later keeps what it has. Rungs are first_rung * reduction_factor^k epochs,
    and the last is a full training.
    """

    epochs: int
    """Of a full training."""
    first_rung: int = 1
    """Epochs."""
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, 1)
        _check("first_rung", self.first_rung, 1)
        _check("reduction_factor", self.reduction_factor, 2)
        if self.first_rung > self.epochs:
            raise ValueError(f"first_rung must be at most epochs ({self.epochs}), got {self.first_rung}")

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs, increasing: 1, 3, 9, 20 of 20."""
        rungs = [self.first_rung]
        while rungs[-1] * self.reduction_factor < self.epochs:
            rungs.append(rungs[-1] * self.reduction_factor)
        return (*rungs, self.epochs) if rungs[-1] < self.epochs else tuple(rungs)

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        """Whoever may go on does so before a new one starts, first from the highest rung.

        Of the budget the first rungs of those that have not started are kept back.
        """
        rungs = self.rungs
        for_paused = left.epochs - left.trials * rungs[0]
        for rung, above in reversed(list(itertools.pairwise(rungs))):
            waiting = {
                trial.number
                for trial in trials
                if trial.state == "paused" and rung <= trial.until < above and above - trial.until <= for_paused
            }
            if not waiting:
                continue
            there = [trial for trial in trials if len(trial.scores) >= rung]
            there.sort(key=lambda trial: trial.scores[rung - 1], reverse=True)
            for trial in there[: len(there) // self.reduction_factor]:
                if trial.number in waiting:
                    return Resume(trial.number, above)
        return Start(rungs[0]) if left.trials > 0 and rungs[0] <= left.epochs else None


def _check(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
