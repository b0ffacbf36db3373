"""Ridge regression with errors weighed relative to the value; the penalty is chosen by leaving groups out in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FOLDS = 5
_PENALTIES = tuple(10.0**power for power in range(-4, 4))
_SMALLEST_WEIGHT = 0.1  # of the median: errors below it no longer count more


def folds(groups: NDArray[np.int64], count: int = FOLDS) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield rows to learn from and rows left out; whole groups are left out together."""
    labels = np.random.default_rng(0).permutation(np.unique(groups))
    part_of = {int(label): index % count for index, label in enumerate(labels)}
    parts = np.array([part_of[int(group)] for group in groups])
    for part in range(min(count, len(labels))):
        yield np.flatnonzero(parts != part), np.flatnonzero(parts == part)


class RelativeRidge:
    """Ridge on all blocks side by side, rows weighed by one over the value squared."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: NDArray[np.int64]) -> RelativeRidge:
        """Choose the penalty and learn; returns self."""
        rows = np.hstack(list(blocks.values()))
        self._mean, spread = rows.mean(axis=0), rows.std(axis=0)
        self._scale = np.where(spread > 1e-9, spread, np.inf)
        scaled = (rows - self._mean) / self._scale
        weights = 1 / np.maximum(target, _SMALLEST_WEIGHT * np.median(target)) ** 2
        outside = np.empty((len(_PENALTIES), len(target)))
        for learn, leave in folds(groups):
            for index, coefficients in enumerate(_solve(scaled[learn], target[learn], weights[learn])):
                outside[index, leave] = scaled[leave] @ coefficients[1:] + coefficients[0]
        errors = (weights * (outside - target) ** 2).sum(axis=1)
        best = int(np.argmin(errors))
        self._smallest = float(target.min())
        self._outside = np.maximum(outside[best], self._smallest)
        self._coefficients = list(_solve(scaled, target, weights))[best]
        self._share = float(np.sqrt(np.mean((self._outside / target - 1) ** 2)))
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        return self._outside, self._share * self._outside

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row; the deviation is a share of the mean."""
        scaled = (np.hstack(list(blocks.values())) - self._mean) / self._scale
        mean = np.maximum(scaled @ self._coefficients[1:] + self._coefficients[0], self._smallest)
        return mean, self._share * mean

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays."""
        numbers = np.array([self._smallest, self._share])
        return {"mean": self._mean, "scale": self._scale, "coefficients": self._coefficients, "numbers": numbers}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> RelativeRidge:
        """Return the model that ``to_arrays`` was called on."""
        model = RelativeRidge()
        model._mean, model._scale, model._coefficients = arrays["mean"], arrays["scale"], arrays["coefficients"]
        model._smallest, model._share = (float(value) for value in arrays["numbers"])
        return model


def _solve(rows: Array, target: Array, weights: Array) -> Iterator[Array]:
    """Yield intercept and coefficients for each penalty, from one eigendecomposition."""
    share = weights / weights.sum()
    centre, middle = share @ rows, share @ target
    moved = rows - centre
    values, vectors = np.linalg.eigh((moved * share[:, None]).T @ moved)
    projected = vectors.T @ (moved.T @ (share * (target - middle)))
    for penalty in _PENALTIES:
        slope = vectors @ (projected / (np.maximum(values, 0) + penalty))
        yield np.concatenate([[middle - centre @ slope], slope])
