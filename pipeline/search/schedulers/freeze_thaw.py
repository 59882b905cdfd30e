"""Freeze-thaw search: every trial can pause, and a model decides which one resumes and which new one starts.

After Swersky et al. 2014, "Freeze-Thaw Bayesian Optimization" (arXiv 1406.3896). One Gaussian process over values and
epochs predicts the final accuracy of every configuration, started or not. docs/search-method.md describes it.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.config import Scalar
from pipeline.search.schedulers.base import RemainingBudget, Resume, Start, TrialView
from pipeline.search.schedulers.curve_gp import Floats
from pipeline.search.schedulers.forecast import Forecast
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values

RUNGS = 5
FIRST_RUNG_SHARE = 1 / 13
"""Of a full training: of 52 epochs, 4."""
SPREAD = 8
"""Trials that are spread evenly before the model is asked; a fifth of the study if that is less."""
PACE = 0.8
"""Share of the budget that is spent before the last trial starts, unless nothing else is left to do."""
MODELLED = 80
"""The most trials that the model learns from. It bounds the time of a decision."""
RUNNING = 40
"""The most running trials among them, unless nothing else is there: those that were ordered the furthest."""
SPACING = 0.15
"""The least distance of new configurations that are decided at once, as a share of the space's diagonal."""
RANDOM = 250
"""Candidates that are drawn from the whole space."""
PARENTS, CHILDREN = 6, 30
"""How many of the best trials get neighbours among the candidates, and how many each of them gets."""
STEP = 0.15
"""Standard deviation of the distance to a neighbour, as a share of the range."""


@dataclass(frozen=True)
class FreezeThaw:
    """The scheduler. With `proposes` it chooses the values of new trials too, else the study's sampler does."""

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
        """The epochs at which trials pause, and the last one. Of 52 epochs: 4, 8, 14, 27, 52."""
        first = max(1, int(self.epochs * FIRST_RUNG_SHARE))
        return tuple(sorted({round(first * (self.epochs / first) ** (n / (RUNGS - 1))) for n in range(RUNGS)}))

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        """The trial, paused or new, with the greatest expected improvement over the best prediction.

        Where no new one may start, it is the paused trial with the best prediction.
        """
        from threadpoolctl import threadpool_limits

        # The matrices are small and the workers use all cores: a second BLAS thread would only wait for one.
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
            # Many workers would start all trials before any result is known.
            may_start = may_start and self._is_on_pace(len(trials), left, sum(trial.until for trial in trials))
        if len(paused) == 1 and not may_start:
            return self._resume(paused[0])
        chosen = modelled(trials)
        if not any(trial.scores for trial in chosen if trial.state != "failed"):
            return self._start(self.space.spread(len(trials) + 1, self.seed)[-1]) if may_start else None
        forecast = Forecast(self.space, chosen, self.epochs, self.rungs)
        paused = [trial for trial in paused if trial.number in forecast.means]
        if not may_start:
            return self._resume(max(paused, key=lambda trial: forecast.means[trial.number]))
        generator = np.random.default_rng([self.seed, len(trials), sum(trial.until for trial in trials)])
        values, improvement = self._candidate(forecast, trials, generator)
        best = max(paused, key=lambda trial: forecast.improvements[trial.number], default=None)
        if best is not None and forecast.improvements[best.number] >= improvement:
            return self._resume(best)
        return self._start(values)

    def plan(self, trials: Sequence[TrialView], left: RemainingBudget, count: int) -> Sequence[Start | Resume]:
        """The actions with the greatest expected improvements, by one model for all of them.

        The model does not take the earlier ones for done. New configurations keep a distance instead.
        """
        from threadpoolctl import threadpool_limits

        if count == 1:
            decision = self.decide(trials, left)
            return [decision] if decision else []
        with threadpool_limits(1):
            return self._planned(trials, left, count)

    def _planned(self, trials: Sequence[TrialView], left: RemainingBudget, count: int) -> list[Start | Resume]:
        chosen, started, first = modelled(trials), len(trials), self.rungs[0]
        # What can be afforded depends on these alone, and on the running trial that was ordered the furthest.
        seen = chosen + sorted((trial for trial in trials if trial.state == "running"), key=lambda t: t.until)[-1:]
        if not any(trial.scores for trial in chosen if trial.state != "failed"):
            count = min(count, left.trials) if self._affordable(seen, left)[1] else 0
            return [self._start(values) for values in self.space.spread(started + count, self.seed)[started:]]
        forecast = Forecast(self.space, chosen, self.epochs, self.rungs)
        spent = sum(trial.until for trial in trials)
        generator = np.random.default_rng([self.seed, started, spent])
        new = self._apart(*self.candidates(forecast, generator), trials)
        values, improvement = next(new)
        decisions: list[Start | Resume] = []
        while len(decisions) < count:
            paused, may_start = self._affordable(seen, left)
            paused = [trial for trial in paused if trial.number in forecast.means]
            if paused and math.isfinite(left.epochs):
                may_start = may_start and self._is_on_pace(started, left, spent)
            scores = forecast.improvements if may_start else forecast.means
            best = max(paused, key=lambda trial: scores[trial.number], default=None)
            if best and (not may_start or scores[best.number] >= improvement):
                decision: Start | Resume = self._resume(best)
                seen[seen.index(best)] = replace(best, state="running", until=decision.until)
                left = RemainingBudget(left.trials, left.epochs - (decision.until - best.until))
                spent += decision.until - best.until
            elif may_start:
                decision = self._start(values)
                left = RemainingBudget(left.trials - 1, left.epochs - first)
                spent += first
                seen.append(TrialView(started, values or {}, (), "running", first))
                started += 1
                values, improvement = next(new)
            else:
                break
            decisions.append(decision)
        return decisions

    def _apart(
        self, many: Sequence[Values], improvements: Floats, trials: Sequence[TrialView]
    ) -> Iterator[tuple[Values | None, float]]:
        """Candidates that were not tried, the best first but those apart from each other before the rest; then None.

        If a sampler chooses the values, they are None and the improvement is the mean over all candidates.
        """
        tried = {frozenset(trial.values.items()) for trial in trials}
        order = [index for index in np.argsort(-improvements) if frozenset(many[index].items()) not in tried]
        places = self.space.encode(many)
        while self.proposes and order:
            taken, rest = [order[0]], list[int]()
            for index in order[1:]:
                near = np.square(places[taken] - places[index]).sum(1).min() < SPACING**2 * places.shape[1]
                (rest if near else taken).append(index)
            for index in taken:
                yield many[index], float(improvements[index])
            order = rest
        while True:
            yield None, 0.0 if self.proposes else float(improvements.mean())

    def _start(self, values: Values | None) -> Start:
        return Start(self.rungs[0], values if self.proposes else None)

    def _resume(self, trial: TrialView) -> Resume:
        return Resume(trial.number, min(rung for rung in self.rungs if rung > trial.until))

    def _is_on_pace(self, started: int, left: RemainingBudget, spent: float) -> bool:
        """Whether the study has started no more trials than suits the epochs that it has spent."""
        total = started + left.trials
        spread = min(SPREAD, max(2, total // 5))
        return started < spread + (total - spread) * spent / (PACE * (spent + left.epochs))

    def _affordable(self, trials: Sequence[TrialView], left: RemainingBudget) -> tuple[list[TrialView], bool]:
        """The paused trials that may resume, and whether a new one may start.

        The budget reserves the first rung of each unstarted trial. Until one trial is finished or ordered to its end,
        it also reserves the epochs that the furthest one still needs. A trial resumes or starts only if the rest
        suffices for its full training. Where it suffices for none, the reserved first rungs are used.
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
            # Not all can start, so nothing is reserved for them: the model chooses freely.
            promised = 0
        can_end = [trial for trial in paused if self.epochs - trial.until <= left.epochs - promised]
        may_start = left.trials > 0 and left.epochs - max(0, promised - first) >= self.epochs
        if can_end or may_start:
            return can_end, may_start
        if left.trials > 0 and left.epochs >= first + to_the_end:
            return [], True
        if not ending and len(paused) == len(live):
            # The budget is below one full training. It is spent on the trial that is furthest.
            steps = [trial for trial in paused if self._resume(trial).until - trial.until <= left.epochs]
            return sorted(steps, key=lambda trial: (trial.until, trial.scores[-1:]))[-1:], False
        return [], False

    def _candidate(
        self, forecast: Forecast, trials: Sequence[TrialView], generator: np.random.Generator
    ) -> tuple[Values | None, float]:
        """The values to start next, and their expected improvement.

        If a sampler chooses the values, they are None and the improvement is the mean over all candidates.
        """
        many, improvements = self.candidates(forecast, generator)
        if not self.proposes:
            return None, float(improvements.mean())
        tried = {frozenset(trial.values.items()) for trial in trials}
        for index in np.argsort(-improvements):
            if frozenset(many[index].items()) not in tried:
                return many[index], float(improvements[index])
        return None, 0.0

    def candidates(self, forecast: Forecast, generator: np.random.Generator) -> tuple[list[dict[str, Scalar]], Floats]:
        """New configurations and their expected improvements.

        They are not improved further. The configuration with the greatest improvement of all lies where the model
        knows least, at the edges of the space, and is seldom good.
        """
        many = self.space.random(generator, RANDOM)
        for parent in forecast.best(PARENTS):
            many += self.space.mutated(parent.values, generator, CHILDREN, share=0.5, sd=STEP)
        return many, forecast.expected_improvement(many)


def modelled(trials: Sequence[TrialView]) -> list[TrialView]:
    """The trials that the model learns from, in their order: the running ones, and the best of each state and epoch.

    There are MODELLED of them, or more if the very best of each group are more than that. Of running trials those that
    were ordered the furthest are kept first.
    """
    groups: dict[tuple[str, int], list[TrialView]] = defaultdict(list)
    for trial in trials:
        groups[trial.state, trial.until].append(trial)
    ranks = {
        trial.number: rank
        for group in groups.values()
        for rank, trial in enumerate(sorted(group, key=lambda trial: trial.scores[-1:], reverse=True))
    }
    running = sorted((trial for trial in trials if trial.state == "running"), key=lambda t: (t.until, t.scores[-1:]))
    ranks |= {trial.number: -1 if place < RUNNING else len(trials) for place, trial in enumerate(reversed(running))}
    count = max(MODELLED, sum(rank <= 0 for rank in ranks.values()))
    kept = sorted(trials, key=lambda trial: (ranks[trial.number], trial.number))[:count]
    return sorted(kept, key=lambda trial: trial.number)
