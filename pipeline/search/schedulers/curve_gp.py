"""The model of learning curves of freeze-thaw search: a Gaussian process over values and epochs."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The prior of each hyperparameter of the process: its median, and the standard deviation of its logarithm.
LENGTH_SCALE = (3.0, 0.8)
PRIORS = {
    "stretch": (1.5, 0.5),
    "level": (0.8, 0.6),
    "slope": (0.5, 0.8),
    "rise": (0.5, 0.8),
    "own": (0.15, 0.8),
    "drift": (0.15, 0.8),
    "kind": (0.5, 0.8),
    "noise": (0.05, 1.0),
}
ITERATIONS = 20
JITTER = 1e-6


class CurveProcess:
    """A Gaussian process over values x and the distance s from the end of a training, from 1 (first epoch) to 0 (last):

        y(x, s) = level(x) + s (slope(x) + rise) + drift(x, s) + kind(x, s) + own(s) + noise

    level, slope and drift are smooth in x: their kernel is Matern 5/2 with one length scale per feature. The length
    scales of slope and drift are those of level times one factor. drift, kind and own are Brownian motions in s. kind
    has one for each choice of each unordered key, independent of the other choices; each trial has an own of its own.
    An error rate that follows a power law is a straight line in s. Standard deviations and length scales are those of
    greatest posterior density.
    """

    def __init__(self, features: Floats, kinds: Ints, owners: Ints, to_go: Floats, targets: Floats) -> None:
        """`features` is [trials, features] in 0..1, `kinds` is [trials, unordered keys]: the number of the choice.

        The others are [points]: the index of the trial, s, and y.
        """
        from scipy.optimize import minimize

        order = np.argsort(owners, kind="stable")
        owners, to_go, targets = owners[order], to_go[order], targets[order]
        self._features, self._owners, self._to_go, self._targets = features, owners, to_go, targets
        self._kinds = kinds
        priors = [LENGTH_SCALE] * features.shape[1] + list(PRIORS.values())
        self._centre = np.log([median for median, _ in priors])
        self._spread = np.array([sd for _, sd in priors])
        # Of the trials that have points; those of each stand together.
        present, self._starts, places = np.unique(owners, return_index=True, return_inverse=True)
        seen = features[present]
        self._squares = ((seen[:, None, :] - seen[None, :, :]) ** 2).reshape(len(seen) ** 2, features.shape[1])
        self._pairs = places[:, None] * len(seen) + places[None, :]
        self._slopes = np.outer(to_go, to_go)
        self._walks = np.minimum.outer(to_go, to_go)
        self._own_walks = self._walks * (owners[:, None] == owners[None, :])
        self._kind_walks = self._walks * self._shared(owners)
        bounds = list(zip(self._centre - 3 * self._spread, self._centre + 3 * self._spread, strict=True))
        found = minimize(
            self._loss, self._centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS}
        )
        self._logs: Floats = found.x
        self._condition()

    def believe(self, trials: Sequence[int]) -> None:
        """Adds the predicted final scores of these trials as if they were observed."""
        means, _ = self._predict(self._features[trials], np.array(trials))
        self._owners = np.append(self._owners, trials)
        self._to_go = np.append(self._to_go, np.zeros(len(trials)))
        self._targets = np.append(self._targets, means)
        self._condition()

    def ends(self) -> tuple[Floats, Floats]:
        """Means and standard deviations of the final scores of all trials, each [trials]."""
        return self._predict(self._features, np.arange(len(self._features)))

    def new(self, features: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations of the final scores of new trials, each [n], from features [n, features]."""
        return self._predict(features, np.full(len(features), -1))

    def _loss(self, logs: Floats) -> tuple[float, Floats]:
        """The negative log posterior density of the logarithms of the hyperparameters, and its gradient."""
        from scipy.linalg import cho_solve, cholesky
        from scipy.linalg.lapack import dpotri

        count = self._features.shape[1]
        stretch, level, slope, rise, own, drift, kind, noise = np.exp(logs[count:])
        inverse = np.exp(-2 * logs[:count])
        distances = (self._squares @ inverse).reshape(len(self._starts), -1)
        near, near_change = matern(distances)
        far, far_change = matern(distances / stretch**2)
        covariance = (level**2 * near + 1).ravel()[self._pairs]
        covariance += (slope**2 * self._slopes + drift**2 * self._walks) * far.ravel()[self._pairs]
        covariance += rise**2 * self._slopes + own**2 * self._own_walks + kind**2 * self._kind_walks
        covariance[np.diag_indices_from(covariance)] += noise**2 + JITTER
        root = cholesky(covariance, lower=True, check_finite=False)
        weights = cho_solve((root, True), self._targets, check_finite=False)
        away = (logs - self._centre) / self._spread
        loss = self._targets @ weights / 2 + np.log(np.diag(root)).sum() + away @ away / 2
        # The derivative by each element of the covariance: per pair of points, then summed per pair of trials.
        upper = np.triu(dpotri(root, lower=1)[0].T)
        by_point = upper + np.triu(upper, 1).T - np.outer(weights, weights)
        by_slope = by_point * self._slopes
        by_level = self._of_trials(by_point) * level**2
        by_slope_of = self._of_trials(by_slope) * slope**2
        by_walk_of = self._of_trials(by_point * self._walks) * drift**2
        by_far = (by_slope_of + by_walk_of) * far_change / stretch**2
        by_distance = by_level * near_change + by_far
        gradient = np.concatenate(
            [
                -(by_distance.ravel() @ self._squares) * inverse,
                [
                    -(by_far * distances).sum(),
                    (by_level * near).sum(),
                    (by_slope_of * far).sum(),
                    rise**2 * by_slope.sum(),
                    own**2 * np.vdot(by_point, self._own_walks),
                    (by_walk_of * far).sum(),
                    kind**2 * np.vdot(by_point, self._kind_walks),
                    noise**2 * np.trace(by_point),
                ],
            ]
        )
        return float(loss), gradient + away / self._spread

    def _of_trials(self, by_point: Floats) -> Floats:
        """[trials, trials], of those that have points: the sums of [points, points]."""
        summed: Floats = np.add.reduceat(np.add.reduceat(by_point, self._starts, axis=0), self._starts, axis=1)
        return summed

    def _condition(self) -> None:
        from scipy.linalg import cho_solve, cholesky

        covariance = self._covariance(self._features[self._owners], self._owners, self._to_go)
        noise = math.exp(self._logs[-1])
        covariance[np.diag_indices_from(covariance)] += noise**2 + JITTER
        self._root = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._root, True), self._targets)

    def _covariance(self, features: Floats, owners: Ints, to_go: Floats) -> Floats:
        """[n, points]: the covariance of n positions with the observed points, without noise."""
        count = features.shape[1]
        stretch, level, slope, rise, own, drift, kind, _ = np.exp(self._logs[count:])
        scales = np.exp(self._logs[:count])
        scaled, others = features / scales, self._features / scales
        distances = (scaled**2).sum(1)[:, None] + (others**2).sum(1)[None, :] - 2 * scaled @ others.T
        distances = np.maximum(distances, 0)[:, self._owners]
        slopes, walks = np.outer(to_go, self._to_go), np.minimum.outer(to_go, self._to_go)
        near, far = matern(distances)[0], matern(distances / stretch**2)[0]
        same = owners[:, None] == self._owners[None, :]
        covariance: Floats = level**2 * near + 1 + (slope**2 * slopes + drift**2 * walks) * far
        covariance += rise**2 * slopes + walks * (own**2 * same + kind**2 * self._shared(owners))
        return covariance

    def _shared(self, owners: Ints) -> Floats:
        """[n, points]: how many choices the trials of n positions share with those of the observed points."""
        shared: Floats = (self._kinds[owners][:, None] == self._kinds[self._owners][None]).sum(2).astype(np.float64)
        return shared

    def together(self, features: Floats) -> tuple[Floats, Floats]:
        """Means, [n], and covariance, [n, n], of the final scores of new trials."""
        from scipy.linalg import solve_triangular

        nobody = np.full(len(features), -1)
        cross = self._covariance(features, nobody, np.zeros(len(features)))
        explained = solve_triangular(self._root, cross.T, lower=True, check_finite=False)
        scaled = features / np.exp(self._logs[: features.shape[1]])
        level = math.exp(self._logs[features.shape[1] + 1])
        prior = level**2 * matern(np.square(scaled[:, None] - scaled[None]).sum(2))[0] + 1
        return cross @ self._weights, prior - explained.T @ explained

    def _predict(self, features: Floats, owners: Ints) -> tuple[Floats, Floats]:
        from scipy.linalg import solve_triangular

        covariance = self._covariance(features, owners, np.zeros(len(features)))
        explained = solve_triangular(self._root, covariance.T, lower=True, check_finite=False)
        level = math.exp(self._logs[self._features.shape[1] + 1])
        variance = level**2 + 1 - (explained**2).sum(axis=0)
        return covariance @ self._weights, np.sqrt(np.maximum(variance, 1e-10))


def matern(distances: Floats) -> tuple[Floats, Floats]:
    """The Matern 5/2 kernel of squared distances, and its derivative by them (Rasmussen and Williams 2006, 4.2.1)."""
    roots = np.sqrt(5 * distances)
    falls = np.exp(-roots)
    kernel: Floats = (1 + roots + roots**2 / 3) * falls
    derivative: Floats = -5 / 6 * (1 + roots) * falls
    return kernel, derivative
