"""Freeze-thaw search: every configuration can pause, and a model says which goes on and which new one is worth a start.

After Swersky et al. 2014, "Freeze-Thaw Bayesian Optimization" (arXiv 1406.3896): one Gaussian process over values and
epochs predicts the end of every learning curve, begun or not. docs/search-method.md tells how it looks, and why.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.search.schedulers.base import RemainingBudget, Resume, Start, TrialView, Values
from pipeline.search.schedulers.curve_process import CurveProcess, Floats, Ints
from pipeline.search.space.space import Space

RUNGS = 5
FIRST_RUNG_SHARE = 1 / 13
"""Of a full training: of 52 epochs, 4."""
SPREAD = 8
"""So many trials are spread evenly before the model is asked; a fifth of the study if that is less."""
PACE = 0.8
"""Of the budget: how much is spent before the last trial starts, unless nothing else is left to do."""
MODELLED = 80
"""Trials that the model learns from at most, which bounds the time that a decision takes."""
SMALLEST_ERROR = 0.002
"""Added to the error rate before its logarithm is taken."""
RANDOM = 400
"""Candidates from the whole space."""
PARENTS, CHILDREN = 6, 30
"""How many of the best have neighbours among the candidates, and how many each."""
STEPS = (0.15, 0.1, 0.05)
"""Standard deviations of the ways to neighbours, as shares of the range: of the best trials, then of candidates."""


@dataclass(frozen=True)
class FreezeThaw:
    """The scheduler; with `proposes` it names the values of new trials too, else they are the study's sampler's."""

    space: Space
    epochs: int
    """Of a full training."""
    seed: int = 0
    proposes: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which trials pause, and the last: of 52, these: 4, 8, 14, 27, 52."""
        first = max(1, int(self.epochs * FIRST_RUNG_SHARE))
        return tuple(sorted({round(first * (self.epochs / first) ** (n / (RUNGS - 1))) for n in range(RUNGS)}))

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        """What is expected to improve most on the best prediction; where none may start, what is predicted best."""
        from threadpoolctl import threadpool_limits

        # Its matrices are small, and the cores are the workers': a second thread of BLAS would wait for one of them.
        with threadpool_limits(1):
            return self._decided(trials, left)

    def _decided(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        paused, may_start = self._affordable(trials, left)
        if not paused and not may_start:
            return None
        total = len(trials) + left.trials
        spread = min(SPREAD, max(2, total // 5))
        if may_start and len(trials) < spread:
            return self._start(self.space.spread(spread, self.seed)[len(trials)])
        if paused and math.isfinite(left.epochs):
            # Many workers would start all before they know what a good one looks like.
            spent = sum(trial.until for trial in trials)
            pace = spent / (PACE * (spent + left.epochs))
            may_start = may_start and len(trials) < spread + (total - spread) * pace
        if len(paused) == 1 and not may_start:
            return self._go_on(paused[0])
        chosen = modelled(trials)
        if not any(trial.scores for trial in chosen if trial.state != "failed"):
            return self._start(self.space.spread(len(trials) + 1, self.seed)[-1]) if may_start else None
        forecast = Forecast(self.space, chosen, self.epochs, self.rungs)
        paused = [trial for trial in paused if trial.number in forecast.means]
        if not may_start:
            return self._go_on(max(paused, key=lambda trial: forecast.means[trial.number]))
        generator = np.random.default_rng([self.seed, len(trials), sum(trial.until for trial in trials)])
        values, improvement = self._candidate(forecast, trials, generator)
        best = max(paused, key=lambda trial: forecast.improvements[trial.number], default=None)
        if best is not None and forecast.improvements[best.number] >= improvement:
            return self._go_on(best)
        return self._start(values)

    def _start(self, values: Values | None) -> Start:
        return Start(self.rungs[0], values if self.proposes else None)

    def _go_on(self, trial: TrialView) -> Resume:
        return Resume(trial.number, min(rung for rung in self.rungs if rung > trial.until))

    def _affordable(self, trials: Sequence[TrialView], left: RemainingBudget) -> tuple[list[TrialView], bool]:
        """The paused trials that may go on, and whether a new one may start.

        The budget keeps the first rung of all that have not started, and one way to the end while nobody is there or
        on the last stretch. What goes on, and what starts, can come to the end in what is left beside that; only where
        that holds for nothing do trials start because they were promised to.
        """
        live = [trial for trial in trials if trial.state in ("running", "paused")]
        paused = [trial for trial in live if trial.state == "paused" and trial.until < self.epochs]
        first = self.rungs[0]
        furthest = max((trial.until for trial in live), default=0)
        ending = furthest == self.epochs or any(trial.state == "finished" for trial in trials)
        to_the_end = self.epochs - furthest
        if ending or to_the_end > left.epochs:
            to_the_end = 0
        promised = left.trials * first
        if promised + (0 if ending else self.epochs - max(furthest, first)) > left.epochs:
            # They can't all start, so none of them has a right to: the model chooses freely.
            promised = 0
        can_end = [trial for trial in paused if self.epochs - trial.until <= left.epochs - promised]
        may_start = left.trials > 0 and left.epochs - max(0, promised - first) >= self.epochs
        if can_end or may_start:
            return can_end, may_start
        if left.trials > 0 and left.epochs >= first + to_the_end:
            return [], True
        if not ending and len(paused) == len(live):
            # The budget is below one full training. It is spent on the one that is furthest.
            steps = [trial for trial in paused if self._go_on(trial).until - trial.until <= left.epochs]
            return sorted(steps, key=lambda trial: (trial.until, trial.scores[-1:]))[-1:], False
        return [], False

    def _candidate(
        self, forecast: "Forecast", trials: Sequence[TrialView], generator: np.random.Generator
    ) -> tuple[Values | None, float]:
        """The values to start next and their expected improvement; of a sampler, what it may be expected to find."""
        parents = [trial.values for trial in forecast.best(PARENTS)]
        many = self.space.random(generator, RANDOM)
        improvements = np.zeros(0)
        for sd in STEPS:
            many += [
                child
                for parent in parents
                for child in self.space.mutated(parent, generator, CHILDREN, share=0.5, sd=sd)
            ]
            improvements = np.append(improvements, forecast.expected_improvement(many[len(improvements) :]))
            if not self.proposes:
                return None, float(improvements.mean())
            order = np.argsort(-improvements)
            parents = [many[index] for index in order[: PARENTS - 1]]
        tried = {frozenset(trial.values.items()) for trial in trials}
        for index in order:
            if frozenset(many[index].items()) not in tried:
                return many[index], float(improvements[index])
        return None, 0.0


def modelled(trials: Sequence[TrialView]) -> list[TrialView]:
    """MODELLED of the trials, in their order: all that run, and in turn the best of each state and epoch."""
    alike: dict[tuple[str, int], list[TrialView]] = defaultdict(list)
    for trial in trials:
        alike[trial.state, trial.until].append(trial)
    places = {
        trial.number: -1 if state == "running" else place
        for (state, _), group in alike.items()
        for place, trial in enumerate(sorted(group, key=lambda trial: trial.scores[-1:], reverse=True))
    }
    count = max(MODELLED, sum(place <= 0 for place in places.values()))
    kept = sorted(trials, key=lambda trial: (places[trial.number], trial.number))[:count]
    return sorted(kept, key=lambda trial: trial.number)


class Forecast:
    """What the trials seen say about the end of all curves, on the model's scale: higher is better, mean 0, sd 1."""

    def __init__(self, space: Space, trials: Sequence[TrialView], epochs: int, rungs: Iterable[int]) -> None:
        self._space, self._trials = space, trials
        points = [
            # Where early stopping ended a trial, there is its end.
            (
                place,
                epochs if trial.state == "finished" and epoch == len(trial.scores) else epoch,
                trial.scores[epoch - 1],
            )
            for place, trial in enumerate(trials)
            if trial.state != "failed"
            for epoch in sorted({rung for rung in (*rungs, len(trial.scores)) if 0 < rung <= len(trial.scores)})
        ]
        scores = np.array([score for _, _, score in points])
        failed = [place for place, trial in enumerate(trials) if trial.state == "failed"]
        # Nobody knows how a failed one would have ended: as badly as the worst.
        owners = np.array([place for place, _, _ in points] + failed)
        times = np.array([epoch for _, epoch, _ in points] + [epochs] * len(failed))
        targets = -np.log(1 - np.append(scores, np.full(len(failed), scores.min())) + SMALLEST_ERROR)
        targets = (targets - targets.mean()) / max(float(targets.std()), 1e-6)
        features = space.encode([trial.values for trial in trials])
        self._process = CurveProcess(features, owners, to_go(times, epochs), targets)
        running = [place for place, trial in enumerate(trials) if trial.state == "running"]
        if running:
            # Taken as if they had ended as predicted, so that no second worker is sent for what they will tell.
            self._process.believe(running)
        means, sds = self._process.ends()
        alive = [place for place, trial in enumerate(trials) if trial.state != "failed"]
        self._incumbent = float(means[alive].max())
        self.means = {trial.number: float(mean) for trial, mean in zip(trials, means, strict=True)}
        gains = expected_improvement(means, sds, self._incumbent)
        self.improvements = {trial.number: float(gain) for trial, gain in zip(trials, gains, strict=True)}

    def best(self, count: int) -> list[TrialView]:
        """The trials of the highest predictions, the highest first."""
        return sorted(self._trials, key=lambda trial: -self.means[trial.number])[:count]

    def expected_improvement(self, many: Sequence[Values]) -> Floats:
        """[n], of new trials with these values, over the best prediction for any trial."""
        return expected_improvement(*self._process.new(self._space.encode(many)), self._incumbent)


def to_go(times: Ints, epochs: int) -> Floats:
    """How far from the end an epoch is: 1 after the first, 0 after the last, even in the logarithm of the epoch."""
    return np.log(epochs / times) / math.log(max(epochs, 2))


def expected_improvement(means: Floats, sds: Floats, incumbent: float) -> Floats:
    """How much more than the incumbent, at least 0, is expected (Jones et al. 1998, section 4.1). All [n]."""
    from scipy.special import ndtr

    z = (means - incumbent) / sds
    improvement: Floats = sds * (z * ndtr(z) + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    return improvement
