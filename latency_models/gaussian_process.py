"""A Gaussian process on blocks of features: linear in each block, plus one smooth term over all of them.

Rasmussen, Williams: Gaussian Processes for Machine Learning, MIT Press 2006: marginal likelihood equations 5.8 and 5.9,
leave-one-out predictions equations 5.10 to 5.12, here for groups of rows left out together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from nas.errors import MeasurementError

Array = NDArray[np.float64]

_BIAS = 100.0  # variance of the constant, so large that the data decide it
_JITTER = 1e-8
_LOG_BOUNDS = (-14.0, 6.0)


@dataclass(frozen=True)
class Scaling:
    """Centre and scale of each column of a block; constant columns are dropped."""

    kept: NDArray[np.bool_]
    mean: Array
    scale: Array

    @staticmethod
    def of(block: Array) -> Scaling:
        """Return the scaling that gives the rows of ``block`` (rows, columns) a mean squared length of 1."""
        spread = block.std(axis=0)
        kept = spread > 1e-9
        scale = spread[kept] * np.sqrt(max(int(kept.sum()), 1))
        return Scaling(kept, block.mean(axis=0)[kept], scale)

    def apply(self, block: Array) -> Array:
        """Return the kept columns, scaled."""
        scaled: Array = (block[:, self.kept] - self.mean) / self.scale
        return scaled


class GaussianProcess:
    """Regression with covariance ``bias + sum_b l_b <x_b, z_b> + s exp(-sum_b w_b |x_b - z_b|^2)`` and noise.

    The noise of row i is ``v_0 + v_1 noise_i``, so that a caller says which rows are noisier. All of l, s, w, v
    maximise the marginal likelihood of at most ``tuning_rows`` rows; then all rows are conditioned on.

    Args:
        iterations: limit of the optimiser.
        tuning_rows: rows that choose the covariance; the cost is cubic in them.
    """

    def __init__(self, iterations: int = 60, tuning_rows: int = 450) -> None:
        self._iterations = iterations
        self._tuning_rows = tuning_rows
        self._names: tuple[str, ...] = ()

    def fit(
        self, blocks: Mapping[str, Array], target: Array, noise: Array, start: Array | None = None
    ) -> GaussianProcess:
        """Choose the covariance and condition on all rows; returns self.

        Args:
            blocks: name to (rows, columns).
            target: shape (rows,), or (rows, outputs) for outputs that share one covariance, each with its own scale.
            noise: relative noise variance per row, around 1.
            start: ``theta`` of a process on the same blocks, from which fewer iterations do.
        """
        if len(target) < 3:
            raise MeasurementError(f"a Gaussian process was given {len(target)} rows; expected at least 3.")
        self._scalings = {name: Scaling.of(block) for name, block in blocks.items()}
        self._names = tuple(name for name, scaling in self._scalings.items() if scaling.kept.any())
        self._rows = self._scaled(blocks)
        self._mean = target.mean(axis=0)
        self._spread = np.maximum(target.std(axis=0), 1e-12)
        self._noise = noise
        self._target = (target - self._mean) / self._spread
        self.theta = self._tune(self._target, noise, start)
        self._condition()
        return self

    def predict(self, blocks: Mapping[str, Array], chunk: int = 2000) -> tuple[Array, Array]:
        """Return mean and standard deviation of the noiseless function, of the shape of the target."""
        rows = self._scaled(blocks)
        count = len(next(iter(blocks.values())))
        means, spreads = [], []
        prior = np.exp(self.theta[-3]) + _BIAS
        for start in range(0, count, chunk):
            part = [block[start : start + chunk] for block in rows]
            cross = self._covariance(self.theta, part, self._rows)
            own = prior + sum(np.exp(a) * (x * x).sum(1) for a, x in zip(self._linear(self.theta), part, strict=True))
            half = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
            means.append(cross @ self._weights)
            spreads.append(np.sqrt(np.maximum(own - (half * half).sum(0), 1e-12)))
        deviation = np.concatenate(spreads)
        return np.concatenate(means) * self._spread + self._mean, self._shaped(deviation) * self._spread

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays; what can be computed from it is not among them."""
        found: dict[str, Array] = {
            "theta": self.theta,
            "noise": self._noise,
            "target": self._target,
            "mean": np.asarray(self._mean),
            "spread": np.asarray(self._spread),
        }
        for name, rows in zip(self._names, self._rows, strict=True):
            scaling = self._scalings[name]
            found |= {
                f"{name}/rows": rows,
                f"{name}/kept": scaling.kept.astype(np.float64),
                f"{name}/mean": scaling.mean,
                f"{name}/scale": scaling.scale,
            }
        return found

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> GaussianProcess:
        """Return the process that ``to_arrays`` was called on."""
        process = GaussianProcess()
        process._names = tuple(key.removesuffix("/rows") for key in arrays if key.endswith("/rows"))
        process._rows = [arrays[f"{name}/rows"] for name in process._names]
        process._scalings = {
            name: Scaling(arrays[f"{name}/kept"] > 0, arrays[f"{name}/mean"], arrays[f"{name}/scale"])
            for name in process._names
        }
        process.theta, process._noise, process._target = arrays["theta"], arrays["noise"], arrays["target"]
        process._mean, process._spread = arrays["mean"], arrays["spread"]
        process._condition()
        return process

    def _condition(self) -> None:
        covariance = self._covariance(self.theta, self._rows, self._rows)
        covariance[np.diag_indices_from(covariance)] += self._noise_of(self.theta, self._noise)
        self._factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(self._factor, self._target)

    def covariance(self, left: Mapping[str, Array], right: Mapping[str, Array]) -> Array:
        """Return (rows of left, rows of right): how alike two rows are, without the constant's share."""
        return self._covariance(self.theta, self._scaled(left), self._scaled(right)) - _BIAS

    def noise_std(self, noise: Array) -> Array:
        """Return the standard deviation of the noise for rows of relative variance ``noise``."""
        deviation: Array = np.sqrt(self._noise_of(self.theta, noise)) * self._spread
        return deviation

    def left_out(self, groups: NDArray[np.int64], noise: Array) -> tuple[Array, Array]:
        """Return what each row is predicted, mean and deviation, by all rows outside its group; shaped as the target.

        Args:
            groups: of each row fitted.
            noise: relative variance of each row that its deviation is to include, the fit's own or another.
        """
        inverse = cho_solve(self._factor, np.eye(len(self._target)))
        means, spreads = np.empty_like(self._target), np.empty(len(self._target))
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
        for members in np.split(order, starts[1:]):
            covariance = np.linalg.inv(inverse[np.ix_(members, members)])
            means[members] = self._target[members] - covariance @ self._weights[members]
            spreads[members] = np.diag(covariance)
        spreads += self._noise_of(self.theta, noise) - self._noise_of(self.theta, self._noise)
        spreads = np.sqrt(np.maximum(spreads, 1e-12))
        return means * self._spread + self._mean, self._shaped(spreads) * self._spread

    def _shaped(self, deviation: Array) -> Array:
        return deviation if self._target.ndim == 1 else deviation[:, None]

    def _scaled(self, blocks: Mapping[str, Array]) -> list[Array]:
        return [self._scalings[name].apply(blocks[name]) for name in self._names]

    def _linear(self, theta: Array) -> Array:
        return theta[: len(self._names)]

    def _noise_of(self, theta: Array, noise: Array) -> Array:
        total: Array = np.exp(theta[-2]) + np.exp(theta[-1]) * noise + _JITTER
        return total

    def _covariance(self, theta: Array, left: Sequence[Array], right: Sequence[Array]) -> Array:
        count = len(self._names)
        total = np.full((len(left[0]), len(right[0])), _BIAS)
        exponent = np.zeros_like(total)
        for index, (x, z) in enumerate(zip(left, right, strict=True)):
            product = x @ z.T
            total += np.exp(theta[index]) * product
            distance = (x * x).sum(1)[:, None] + (z * z).sum(1)[None] - 2 * product
            exponent -= np.exp(theta[count + index]) * np.maximum(distance, 0)
        total += np.exp(theta[-3]) * np.exp(exponent)
        return total

    def _tune(self, target: Array, noise: Array, start: Array | None) -> Array:
        count = len(self._names)
        take = np.random.default_rng(0).permutation(len(target))[: self._tuning_rows]
        products = [block[take] @ block[take].T for block in self._rows]
        squares = [np.diag(product) for product in products]
        distances = [np.maximum(s[:, None] + s[None] - 2 * p, 0) for s, p in zip(squares, products, strict=True)]
        y, v = target[take].reshape(len(take), -1), noise[take]
        iterations = self._iterations if start is None else self._iterations // 3
        if start is None:
            start = np.concatenate([np.full(count, -1.0), np.full(count, -1.5), [-1.0, -6.0, -4.0]])

        def loss(theta: Array) -> tuple[float, Array]:
            return _negative_evidence(theta, products, distances, y, v)

        found = minimize(
            loss,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[_LOG_BOUNDS] * len(start),
            options={"maxiter": iterations},
        )
        best: Array = found.x
        return best


def _negative_evidence(
    theta: Array, products: Sequence[Array], distances: Sequence[Array], target: Array, noise: Array
) -> tuple[float, Array]:
    """Return the negative log marginal likelihood and its gradient; a weak normal prior on theta bounds it.

    Args:
        theta: logarithms: a linear and a smooth weight per block, smooth variance, noise constant and noise per row.
        products: per block, inner products (rows, rows).
        distances: per block, squared distances (rows, rows).
        target: shape (rows, outputs); the mean over the outputs is returned.
        noise: shape (rows,).
    """
    count, outputs = len(products), target.shape[1]
    scale = np.exp(theta)
    exponent = -sum(w * d for w, d in zip(scale[count : 2 * count], distances, strict=True))
    smooth = scale[-3] * np.exp(exponent)
    covariance = smooth + _BIAS + sum(a * p for a, p in zip(scale[:count], products, strict=True))
    covariance[np.diag_indices_from(covariance)] += scale[-2] + scale[-1] * noise + _JITTER
    prior, pull = 0.005 * float(((theta + 3) ** 2).sum()), 0.01 * (theta + 3)
    try:
        factor = cho_factor(covariance, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10 + prior, pull
    weights = cho_solve(factor, target, check_finite=False)
    inverse = cho_solve(factor, np.eye(len(target)), check_finite=False)
    value = 0.5 * float(np.vdot(target, weights)) / outputs + float(np.log(np.diag(factor[0])).sum())
    inner = 0.5 * (inverse - weights @ weights.T / outputs)
    damped = inner * smooth
    gradient = np.empty_like(theta)
    for index in range(count):
        gradient[index] = scale[index] * float(np.vdot(inner, products[index]))
        gradient[count + index] = -scale[count + index] * float(np.vdot(damped, distances[index]))
    gradient[-3] = float(damped.sum())
    gradient[-2] = scale[-2] * float(np.trace(inner))
    gradient[-1] = scale[-1] * float(np.diag(inner) @ noise)
    return value + prior, gradient + pull
