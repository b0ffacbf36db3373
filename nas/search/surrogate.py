"""A Gaussian process over groups of features, on a logarithmic scale of regret, with its hyper-parameters learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
Columns = NDArray[np.int64]

_FLOOR = 1e-8
# Log-normal priors on signal variance, noise variance and length scales of standardised features.
_PRIOR_MEAN = (0.0, float(np.log(0.02)), float(np.log(1.5)))
_PRIOR_STD = (1.0, 1.0, 0.7)
_BOUNDS = ((-3.0, 3.0), (-8.0, 0.0), (-2.0, 3.0))
_LEARNT_ON = 160
_STEPS = 20
_MOST_SPREAD = 1.0  # of a prediction's logarithm: beyond, the prediction says nothing


class GaussianProcess:
    """Squared exponentials multiplied over groups of features, one length scale per group, noise learnt.

    Equations are those of Rasmussen and Williams 2006, algorithm 2.1 and equation 5.9; weak priors on the
    hyper-parameters keep a handful of points from being explained as noise. The distance within a group is a mean
    over its columns.
    """

    def __init__(self) -> None:
        self._groups: list[Columns] = []
        self._theta = np.empty(0)

    def arrange(self, groups: Sequence[Columns]) -> bool:
        """Take note of the columns of each group, empty ones left out; return True if their number changed."""
        self._groups = [group for group in groups if len(group)]
        count = len(self._groups)
        if len(self._theta) == 2 + count:
            return False
        self._mean = np.array([*_PRIOR_MEAN[:2], *[_PRIOR_MEAN[2]] * count])
        self._std = np.array([*_PRIOR_STD[:2], *[_PRIOR_STD[2]] * count])
        self._theta = self._mean.copy()
        return True

    def learn(self, features: Array, targets: Array, rng: np.random.Generator) -> None:
        """Maximise the posterior of the hyper-parameters, on at most 160 points.

        Args:
            features: shape (points, columns).
            targets: shape (points,).
            rng: draws the points where there are more.
        """
        if len(targets) > _LEARNT_ON:
            drawn = rng.choice(len(targets), _LEARNT_ON, replace=False)
            features, targets = features[drawn], targets[drawn]
        scaled = (targets - targets.mean()) / (targets.std() + _FLOOR)
        distances = self._distances(features, features)
        bounds = [*_BOUNDS[:2], *[_BOUNDS[2]] * len(self._groups)]
        found = minimize(
            self._loss,
            self._theta,
            (distances, scaled),
            "L-BFGS-B",
            jac=True,
            bounds=bounds,
            options={"maxiter": _STEPS},
        )
        self._theta = found.x

    def fit(self, features: Array, targets: Array) -> None:
        """Condition on the points under the hyper-parameters that were learnt last."""
        self._points = self._weighted(features)
        self._centre, self._scale = float(targets.mean()), float(targets.std() + _FLOOR)
        kernel = self._correlate(self._points, self._points)
        kernel[np.diag_indices_from(kernel)] += np.exp(self._theta[1])
        self._lower = np.linalg.cholesky(kernel)
        self._weights = cho_solve((self._lower, True), (targets - self._centre) / self._scale)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation, noise left out, each of shape (points,)."""
        cross = self._correlate(self._weighted(features), self._points)
        half = solve_triangular(self._lower, cross.T, lower=True, check_finite=False)
        variance = np.exp(self._theta[0]) - np.einsum("ij,ij->j", half, half)
        return (
            self._centre + self._scale * (cross @ self._weights),
            self._scale * np.sqrt(np.maximum(variance, _FLOOR)),
        )

    def _weighted(self, features: Array) -> Array:
        """Return the columns of all groups over their length scales, so that one product gives all distances."""
        parts = [
            features[:, group] * (np.exp(-log_scale) / np.sqrt(len(group)))
            for log_scale, group in zip(self._theta[2:], self._groups, strict=True)
        ]
        return np.ascontiguousarray(np.hstack(parts))

    def _correlate(self, left: Array, right: Array) -> Array:
        squares = left @ right.T
        squares *= -2.0
        squares += (left * left).sum(1)[:, None]
        squares += (right * right).sum(1)
        np.maximum(squares, 0.0, out=squares)
        squares *= -0.5
        return np.asarray(np.exp(self._theta[0]) * np.exp(squares, out=squares))

    def _distances(self, left: Array, right: Array) -> list[Array]:
        found = []
        for group in self._groups:
            a, b = left[:, group], right[:, group]
            squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
            found.append(np.maximum(squares, 0) / len(group))
        return found

    def _kernel(self, distances: list[Array]) -> Array:
        exponent = np.zeros_like(distances[0])
        for log_scale, distance in zip(self._theta[2:], distances, strict=True):
            exponent += np.exp(-2 * log_scale) * distance
        exponent *= -0.5
        return np.asarray(np.exp(self._theta[0]) * np.exp(exponent, out=exponent))

    def _loss(self, theta: Array, distances: list[Array], targets: Array) -> tuple[float, Array]:
        self._theta = theta
        signal = self._kernel(distances)
        noise = np.exp(theta[1])
        lower = np.linalg.cholesky(signal + noise * np.eye(len(targets)))
        inverse = cho_solve((lower, True), np.eye(len(targets)))
        weights = inverse @ targets
        slope = np.outer(weights, weights) - inverse
        weighted = slope * signal
        gradient = [-0.5 * weighted.sum(), -0.5 * noise * np.trace(slope)]
        gradient += [
            -0.5 * float((weighted * distance).sum()) * np.exp(-2 * log_scale)
            for log_scale, distance in zip(theta[2:], distances, strict=True)
        ]
        away = (theta - self._mean) / self._std
        value = 0.5 * targets @ weights + np.log(np.diag(lower)).sum() + 0.5 * (away**2).sum()
        return float(value), np.array(gradient) + away / self._std


class LossModel:
    """Predicts a loss through the logarithm of its distance from the best.

    Accuracies crowd near their best and have a long tail of failures. On the scale ``log(loss - best + delta)``, with
    ``delta`` the distance from the best to the median, the tail no longer hides differences among good ones.
    """

    def __init__(self) -> None:
        self._process = GaussianProcess()

    def fit(
        self, features: Array, losses: Array, groups: Sequence[Columns], rng: np.random.Generator, learn: bool
    ) -> None:
        """Condition on losses of shape (points,), learning hyper-parameters first if asked to or never done."""
        best, median, worst = losses.min(), np.median(losses), losses.max()
        delta = max(median - best, 0.02 * (worst - best), _FLOOR)
        self._origin = best - delta
        targets = self.scaled(losses)
        if self._process.arrange(groups) or learn:
            self._process.learn(features, targets, rng)
        self._process.fit(features, targets)

    def scaled(self, losses: Array) -> Array:
        """Return losses on the scale of the model; what is better than the best it knows is held just beside it."""
        return np.asarray(np.log(np.maximum(losses - self._origin, _FLOOR)))

    def predict_scaled(self, features: Array) -> Array:
        """Return means on the scale of the model, shape (points,)."""
        return self._process.predict(features)[0]

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the loss, to first order, each of shape (points,)."""
        mean, std = self._process.predict(features)
        distance = np.exp(mean)
        return self._origin + distance, distance * np.minimum(std, _MOST_SPREAD)


class CostModel:
    """Predicts a positive cost: a power law in the known costs, and a Gaussian process on what that leaves.

    The known costs are the last group of columns, as logarithms.
    """

    def __init__(self) -> None:
        self._process = GaussianProcess()

    def fit(
        self, features: Array, costs: Array, groups: Sequence[Columns], rng: np.random.Generator, learn: bool
    ) -> None:
        """Condition on costs of shape (points,), learning hyper-parameters first if asked to or never done."""
        self._known = groups[-1]
        targets = np.log(np.maximum(costs, _FLOOR))
        design = self._design(features)
        # One hundredth of a point's weight on zero slopes keeps two points from fixing four.
        ridge = 0.01 * np.eye(design.shape[1])
        ridge[0, 0] = 0.0
        self._slopes = np.linalg.solve(design.T @ design + ridge, design.T @ targets)
        rest = targets - design @ self._slopes
        if self._process.arrange(groups) or learn:
            self._process.learn(features, rest, rng)
        self._process.fit(features, rest)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the cost, to first order, each of shape (points,)."""
        mean, std = self._process.predict(features)
        cost = np.exp(mean + self._design(features) @ self._slopes)
        return cost, cost * np.minimum(std, _MOST_SPREAD)

    def _design(self, features: Array) -> Array:
        return np.column_stack([np.ones(len(features)), features[:, self._known]])
