"""What the model of learning curves expects of the trials of a study, and of configurations that were not started."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.search.schedulers.base import TrialView
from pipeline.search.schedulers.curve_gp import CurveProcess, Floats, Ints
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values

SMALLEST_ERROR = 0.002
"""Added to the error rate before its logarithm is taken."""


class Forecast:
    """The predicted final score of every trial, on the model's scale: higher is better, mean 0 of what was seen."""

    def __init__(self, space: Space, trials: Sequence[TrialView], epochs: int, rungs: Iterable[int]) -> None:
        self._space, self._trials = space, trials
        points = [
            # The last epoch of a trial that early stopping ended counts as the last of a full training.
            (
                index,
                epochs if trial.state == "finished" and epoch == len(trial.scores) else epoch,
                trial.scores[epoch - 1],
            )
            for index, trial in enumerate(trials)
            if trial.state != "failed"
            for epoch in sorted({rung for rung in (*rungs, len(trial.scores)) if 0 < rung <= len(trial.scores)})
        ]
        scores = np.array([score for _, _, score in points])
        failed = [index for index, trial in enumerate(trials) if trial.state == "failed"]
        # A failed trial has no final score: it counts as one that ended as badly as the worst.
        owners = np.array([index for index, _, _ in points] + failed)
        times = np.array([epoch for _, epoch, _ in points] + [epochs] * len(failed))
        targets = -np.log(1 - np.append(scores, np.full(len(failed), scores.min())) + SMALLEST_ERROR)
        # Most scores can be of first epochs, which differ little. Ends differ by as much as a whole curve rises.
        self._centre = float(targets.mean())
        self._width = max(float(targets.std()), _rise(owners, times, targets, epochs), 1e-6)
        targets = (targets - self._centre) / self._width
        values = [trial.values for trial in trials]
        features = space.encode(values)
        self._process = CurveProcess(features, space.kinds(values), owners, to_go(times, epochs), targets)
        running = [index for index, trial in enumerate(trials) if trial.state == "running"]
        if running:
            # They count as ended as predicted, so that no second worker is sent to learn the same.
            self._process.believe(running)
        means, sds = self._process.ends()
        alive = [index for index, trial in enumerate(trials) if trial.state != "failed"]
        self._incumbent = float(means[alive].max())
        self.means = {trial.number: float(mean) for trial, mean in zip(trials, means, strict=True)}
        gains = expected_improvement(means, sds, self._incumbent)
        self.improvements = {trial.number: float(gain) for trial, gain in zip(trials, gains, strict=True)}

    def best(self, count: int) -> list[TrialView]:
        """The trials with the highest predictions, the highest first."""
        return sorted(self._trials, key=lambda trial: -self.means[trial.number])[:count]

    def ends(self) -> dict[int, tuple[float, float]]:
        """The final accuracy of each trial by its number, 0..1: median and standard deviation."""
        medians, sds = self._spread(*self._process.ends())
        found = zip(medians.tolist(), sds.tolist(), strict=True)
        return {trial.number: end for trial, end in zip(self._trials, found, strict=True)}

    def accuracies(self, many: Sequence[Values]) -> tuple[Floats, Floats]:
        """Of new trials with these values the final accuracies, 0..1: medians and standard deviations, each [n]."""
        return self._spread(*self._process.new(self._space.encode(many)))

    def drawn(self, many: Sequence[Values], count: int, generator: np.random.Generator) -> Floats:
        """[count, n]: final accuracies of new trials with these values, as they may turn out together."""
        means, covariance = self._process.together(self._space.encode(many))
        return self._accuracy(generator.multivariate_normal(means, covariance, count, check_valid="ignore"))

    def importances(self, many: Sequence[Values], generator: np.random.Generator) -> dict[str, float]:
        """The share of each key in the differences between the predictions for configurations of the space.

        It is the total effect (Saltelli et al. 2010, table 2, estimator f): what changes when one key takes the value
        that it has in another configuration. Interactions count for each of their keys; the shares add up to 1.
        """
        means = self.accuracies(many)[0]
        others = [many[index] for index in generator.permutation(len(many))]
        effects = {}
        for name in self._space.names:
            changed = [
                self._space.active({**self._space.fixed, **values, name: other.get(name, values.get(name))})
                if name in other or name in values
                else values
                for values, other in zip(many, others, strict=True)
            ]
            effects[name] = float(np.square(self.accuracies(changed)[0] - means).mean() / 2)
        total = sum(effects.values())
        return {name: effect / total for name, effect in effects.items()} if total > 0 else effects

    def _spread(self, means: Floats, sds: Floats) -> tuple[Floats, Floats]:
        """Medians and standard deviations of accuracies, from those on the model's scale."""
        low, median, high = (self._accuracy(means + step * sds) for step in (-1, 0, 1))
        return median, (high - low) / 2

    def _accuracy(self, scores: Floats) -> Floats:
        accuracy: Floats = 1 + SMALLEST_ERROR - np.exp(-(self._centre + self._width * scores))
        return np.minimum(accuracy, 1.0)

    def expected_improvement(self, many: Sequence[Values]) -> Floats:
        """[n], of new trials with these values over the best prediction of any trial."""
        return expected_improvement(*self._process.new(self._space.encode(many)), self._incumbent)


def _rise(owners: Ints, times: Ints, targets: Floats, epochs: int) -> float:
    """From the first point to the last of a curve that was seen to its end: the median; 0 if there is none.

    All arrays are [points], those of a curve in the order of their epochs.
    """
    firsts = np.unique(owners, return_index=True)[1]
    first_of = dict(zip(owners[firsts].tolist(), targets[firsts].tolist(), strict=True))
    ends = np.flatnonzero(times == epochs)
    rises = [abs(targets[end] - first_of[owners[end]]) for end in ends if end not in firsts]
    return float(np.median(rises)) if rises else 0.0


def to_go(times: Ints, epochs: int) -> Floats:
    """The distance of epochs from the last one: 1 after the first epoch, 0 after the last, linear in log(epoch)."""
    return np.log(epochs / times) / math.log(max(epochs, 2))


def expected_improvement(means: Floats, sds: Floats, incumbent: float) -> Floats:
    """The expected improvement over the incumbent, at least 0 (Jones et al. 1998, section 4.1). All arrays are [n]."""
    from scipy.special import ndtr

    z = (means - incumbent) / sds
    improvement: Floats = sds * (z * ndtr(z) + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    return improvement
