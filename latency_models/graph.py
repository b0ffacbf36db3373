"""Regression on features of genotype and graph: several families are fitted, the best on left-out groups stays.

Every candidate sees the architecture as written and the graph as a runtime may run it (dead branches removed, constants
folded, skips contracted). Which of them the device's runtime follows is not told: each is a block with a weight of its
own, and the measurements set the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latency_models.conformal import widening
from latency_models.gaussian_process import GaussianProcess
from latency_models.ridge import RelativeRidge
from latency_models.trees import Trees

Array = NDArray[np.float64]
Groups = NDArray[np.int64]

_SMALLEST_NOISE = 0.1  # of the median: below it a deviation no longer shrinks with the value


class Regressor(Protocol):
    """Fits positive targets and says what it would have predicted for each group, had that been left out."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: Groups, /) -> Any:
        """Learn; returns self."""
        ...

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        ...

    def predict(self, blocks: Mapping[str, Array], /) -> tuple[Array, Array]:
        """Return mean and deviation per row."""
        ...


class ProcessOnValues:
    """A Gaussian process on the values themselves, as costs of parts add up; its noise grows with the value."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: Groups) -> ProcessOnValues:
        """Learn; returns self."""
        self._median = float(np.median(target))
        self._groups = groups
        self._smallest = float(target.min())
        self._process = GaussianProcess().fit(blocks, target, self._noise(target))
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        mean, std = self._process.left_out(self._groups)
        return self._positive(mean), std

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row, noise included."""
        mean, std = self._process.predict(blocks)
        mean = self._positive(mean)
        return mean, np.hypot(std, self._process.noise_std(self._noise(mean)))

    def _positive(self, mean: Array) -> Array:
        # A sum of parts can come out below nothing; the smallest value seen is the better guess then.
        return np.maximum(mean, self._smallest)

    def _noise(self, values: Array) -> Array:
        return np.maximum(values / self._median, _SMALLEST_NOISE) ** 2


class ProcessOnLogs:
    """A Gaussian process on logarithms, for costs that multiply."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: Groups) -> ProcessOnLogs:
        """Learn; returns self."""
        self._groups = groups
        self._process = GaussianProcess().fit(blocks, np.log(target), np.ones(len(target)))
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        return _from_logs(*self._process.left_out(self._groups))

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row, noise included."""
        mean, std = self._process.predict(blocks)
        return _from_logs(mean, np.hypot(std, self._process.noise_std(np.ones(len(mean)))))


def _from_logs(mean: Array, std: Array) -> tuple[Array, Array]:
    middle = np.exp(mean)
    return middle, middle * np.minimum(std, 3.0)


CANDIDATES: Mapping[str, type[Regressor]] = {
    "process": ProcessOnValues,
    "log_process": ProcessOnLogs,
    "ridge": RelativeRidge,
    "trees": Trees,
}


@dataclass(frozen=True)
class Chosen:
    """What won the validation.

    Args:
        name: of the candidate.
        errors: candidate to mean relative error on left-out groups, each error counted as 20 % at the most.
        widening: factor on its deviations, from the same left-out groups.
    """

    name: str
    errors: Mapping[str, float]
    widening: float


class GraphRegressor:
    """Fits all candidates, keeps the best, and scales its deviations so that their 90 % interval holds 90 %.

    Args:
        candidates: which of ``CANDIDATES`` take part; None for all.
    """

    name = "graph"

    def __init__(self, candidates: tuple[str, ...] | None = None) -> None:
        self._candidates = candidates or tuple(CANDIDATES)

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: Groups) -> GraphRegressor:
        """Learn; returns self.

        Args:
            blocks: name to (rows, columns).
            target: shape (rows,), positive.
            groups: rows of one group are left out together.
        """
        fitted = {name: CANDIDATES[name]().fit(blocks, target, groups) for name in self._candidates}
        outside = {name: model.left_out() for name, model in fitted.items()}
        errors = {name: capped_error(target, mean) for name, (mean, _) in outside.items()}
        best = min(errors, key=lambda name: errors[name])
        self._model: Regressor = fitted[best]
        mean, std = outside[best]
        self.chosen = Chosen(best, errors, widening(target - mean, std))
        return self

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and calibrated deviation per row."""
        mean, std = self._model.predict(blocks)
        return mean, std * self.chosen.widening


def capped_error(target: Array, mean: Array) -> float:
    """Return the mean relative error, each row counted as 20 % at the most so that near-zero rows do not decide."""
    return float(np.minimum(np.abs(mean / target - 1), 0.2).mean())
