"""Asynchronous successive halving: at each rung the best ones resume, the others stay paused."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.search.schedulers.base import RemainingBudget, Resume, Start, TrialView


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934, algorithm 2).

    At each rung the best 1 / reduction_factor of the trials that have reached it resume to the next rung. This is
    decided as soon as a trial is among the best so far; a promotion is never taken back. Rungs are at
    first_rung * reduction_factor^k epochs, and the last one is a full training.
    """

    epochs: int
    """Of a full training."""
    first_rung: int = 1
    """Epochs."""
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("first_rung", 1), ("reduction_factor", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.first_rung > self.epochs:
            raise ValueError(f"first_rung must be at most epochs ({self.epochs}), got {self.first_rung}")

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs, increasing. With the defaults and 20 epochs: 1, 3, 9, 20."""
        rungs = [self.first_rung]
        while rungs[-1] * self.reduction_factor < self.epochs:
            rungs.append(rungs[-1] * self.reduction_factor)
        return (*rungs, self.epochs) if rungs[-1] < self.epochs else tuple(rungs)

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        """A trial that may resume does so before a new one starts; the highest rung comes first.

        The budget reserves the first rung of each unstarted trial.
        """
        return next(iter(self.plan(trials, left, 1)), None)

    def plan(self, trials: Sequence[TrialView], left: RemainingBudget, count: int) -> Sequence[Start | Resume]:
        rungs, decisions, epochs = self.rungs, list[Start | Resume](), left.epochs
        for rung, above in reversed(list(itertools.pairwise(rungs))):
            waiting = {
                trial.number: above - trial.until
                for trial in trials
                if trial.state == "paused" and rung <= trial.until < above
            }
            if not waiting:
                continue
            there = [trial for trial in trials if len(trial.scores) >= rung]
            there.sort(key=lambda trial: trial.scores[rung - 1], reverse=True)
            for trial in there[: len(there) // self.reduction_factor]:
                cost = waiting.get(trial.number)
                if cost and len(decisions) < count and cost <= epochs - left.trials * rungs[0]:
                    decisions.append(Resume(trial.number, above))
                    epochs -= cost
        starts = min(count - len(decisions), left.trials, epochs // rungs[0])
        return decisions + [Start(rungs[0])] * int(starts)
