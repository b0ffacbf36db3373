"""Regression of logarithms on sums of positive terms, with priors on the terms' factors and deviations of its own.

``log y = log sum_k exp(c_g(k) + d_k) x_k + noise``: one factor per term, whose logarithm has a part that its group
shares and a part of its own, both normal around 0. Found by Gauss-Newton; deviations are those of Laplace's
approximation (MacKay 1992, "Bayesian interpolation", Neural Computation 4(3)), which also picks the widths of noise and
factors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SHARED_STD = 1.5  # of a group's common logarithm: a factor of 4.5 either way
_OWN_STDS = (0.35, 0.7, 1.4)
_NOISES = (0.015, 0.03, 0.06, 0.12, 0.24)
_USUAL_NOISE = 0.05
_STEPS = 25
_ENOUGH = 1e-4


@dataclass(frozen=True)
class LogSum:
    """A fitted model.

    Args:
        design: (terms, parameters), from a group's shared part and each term's own part to its logarithm.
        parameters: at the largest posterior.
        covariance: of the parameters.
        own_std: prior deviation of a term's own part.
        noise: standard deviation of the logarithm.
        residuals: of the rows fitted, measured minus predicted.
        leverage: of the rows fitted, 0 to 1.
    """

    design: Array
    parameters: Array
    covariance: Array
    own_std: float
    noise: float
    residuals: Array
    leverage: Array

    @staticmethod
    def fit(rows: Array, groups: NDArray[np.int64], group_count: int, target: Array) -> LogSum:
        """Fit, the widths of noise and of the terms' own parts by the largest evidence.

        Args:
            rows: terms, not negative, one above 0 in each row; shape (rows, terms).
            groups: group of each term.
            group_count: how many groups there are.
            target: logarithms, shape (rows,).
        """
        count = rows.shape[1]
        design = np.hstack([np.eye(group_count)[groups], np.eye(count)])
        parameters = np.zeros(design.shape[1])
        best: tuple[float, LogSum] | None = None
        for own_std in _OWN_STDS:
            deviations = np.r_[np.full(group_count, _SHARED_STD), np.full(count, own_std)]
            for noise in _NOISES:
                parameters, residuals, slope = _solve(rows, target, design, 1 / deviations**2, noise, parameters)
                curvature = slope.T @ slope / noise**2 + np.diag(1 / deviations**2)
                covariance = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
                evidence = -0.5 * float(
                    residuals @ residuals / noise**2
                    + ((parameters / deviations) ** 2).sum()
                    + np.linalg.slogdet(curvature)[1]
                    + 2 * np.log(deviations).sum()
                    + 2 * len(target) * math.log(noise)
                    + math.log(noise / _USUAL_NOISE) ** 2
                )
                if best is None or evidence > best[0]:
                    leverage = ((slope @ covariance) * slope).sum(axis=1) / noise**2
                    best = evidence, LogSum(design, parameters, covariance, own_std, noise, residuals, leverage)
        assert best is not None
        return best[1]

    def predict(self, row: Array, unknown: Array) -> tuple[float, float]:
        """Return the mean, and the standard deviation of its logarithm.

        Args:
            row: terms, shape (terms,).
            unknown: per group the sum of terms that no row fitted had, shape (groups,).
        """
        parts = row * np.exp(self.design @ self.parameters)
        strange = unknown * np.exp(self.parameters[: len(unknown)])
        total = float(parts.sum() + strange.sum())
        slope = (parts / total) @ self.design
        slope[: len(unknown)] += strange / total
        variance = slope @ self.covariance @ slope + (self.own_std**2) * ((strange / total) ** 2).sum() + self.noise**2
        return total, math.sqrt(float(variance))

    def left_out(self) -> tuple[Array, Array]:
        """Return residuals and deviations of the rows fitted, each as if it had been left out (linearised)."""
        rest = np.maximum(1 - self.leverage, 1e-3)
        return self.residuals / rest, self.noise / np.sqrt(rest)


def _solve(
    rows: Array, target: Array, design: Array, precisions: Array, noise: float, start: Array
) -> tuple[Array, Array, Array]:
    """Return parameters, residuals and the slopes of the predicted logarithms, by damped Gauss-Newton steps."""

    def look(parameters: Array) -> tuple[Array, Array, float]:
        parts = rows * np.exp(design @ parameters)
        sums = parts.sum(axis=1)
        residuals = target - np.log(sums)
        loss = float(residuals @ residuals) / noise**2 + float(precisions @ parameters**2)
        return residuals, (parts / sums[:, None]) @ design, loss

    parameters, damping = start, 1e-3
    residuals, slope, loss = look(parameters)
    for _ in range(_STEPS):
        curvature = slope.T @ slope / noise**2 + np.diag(precisions)
        gradient = slope.T @ residuals / noise**2 - precisions * parameters
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
        moved = look(parameters + step)
        if moved[2] >= loss:
            damping *= 8
            continue
        gained = loss - moved[2]
        parameters, damping = parameters + step, max(damping / 5, 1e-6)
        residuals, slope, loss = moved
        if gained < _ENOUGH:
            break
    return parameters, residuals, slope
