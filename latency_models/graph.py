"""Regression on features of genotype and graph: several families are fitted, the best on left-out groups stays.

Every candidate sees the architecture as written and the graph as a runtime may run it (dead branches removed, constants
folded, skips contracted). Which of them the device's runtime follows is not told: each is a block with a weight of its
own, and the measurements set the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from latency_models.conformal import widening
from latency_models.gaussian_process import GaussianProcess
from latency_models.network import SmallNetwork
from latency_models.ridge import RelativeRidge
from latency_models.stored import load, save
from latency_models.trees import Trees
from nas.errors import unknown_name

Array = NDArray[np.float64]
Groups = NDArray[np.int64]

_ROBUST_ROUNDS = 2
_ODD_SHARE = 0.01  # a normal distribution has 0.3 % of its mass beyond 3 deviations
_SHIFTS = np.exp(np.linspace(-0.1, 0.1, 101))
_LOST_ERROR = 0.05  # of the mean error: what a shift may cost
_CAP = 0.2  # a row's relative error counts up to here, so that near-zero rows do not decide
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

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays."""
        ...

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array], /) -> Regressor:
        """Return the model that ``to_arrays`` was called on; it predicts, and cannot say what was left out."""
        ...


class ProcessOnValues:
    """A Gaussian process on the values themselves, as costs of parts add up; its noise grows with the value."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: Groups) -> ProcessOnValues:
        """Learn; returns self."""
        self._median = float(np.median(target))
        self._smallest = float(target.min())
        weights = once_per_group(groups)
        self._process, outside = _fit_robustly(
            blocks,
            target,
            self._noise(target),
            groups,
            lambda mean: validation_error(target, self._positive(mean), weights),
        )
        mean = self._positive(outside[0])
        # The deviation is that of the prediction, as it is for a new row: what was measured is not known there.
        said, meant = (self._process.noise_std(self._noise(values)) for values in (target, mean))
        self._outside = mean, np.sqrt(np.maximum(outside[1] ** 2 - said**2, 0.0) + meant**2)
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        return self._outside

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row, noise included."""
        mean, std = self._process.predict(blocks)
        mean = self._positive(mean)
        return mean, np.hypot(std, self._process.noise_std(self._noise(mean)))

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays."""
        return {"numbers": np.array([self._median, self._smallest]), **self._process.to_arrays()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> ProcessOnValues:
        """Return the model that ``to_arrays`` was called on."""
        model = ProcessOnValues()
        model._median, model._smallest = (float(value) for value in arrays["numbers"])
        model._process = GaussianProcess.from_arrays(arrays)
        return model

    def _positive(self, mean: Array) -> Array:
        # A sum of parts can come out below nothing; the smallest value seen is the better guess then.
        return np.maximum(mean, self._smallest)

    def _noise(self, values: Array) -> Array:
        return np.maximum(values / self._median, _SMALLEST_NOISE) ** 2


class ProcessOnLogs:
    """A Gaussian process on logarithms, for costs that multiply."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: Groups) -> ProcessOnLogs:
        """Learn; returns self."""
        noise = np.ones(len(target))
        self._process = GaussianProcess().fit(blocks, np.log(target), noise)
        self._outside = _from_logs(*self._process.left_out(groups, noise))
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        return self._outside

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row, noise included."""
        mean, std = self._process.predict(blocks)
        return _from_logs(mean, np.hypot(std, self._process.noise_std(np.ones(len(mean)))))

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays."""
        return self._process.to_arrays()

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> ProcessOnLogs:
        """Return the model that ``to_arrays`` was called on."""
        model = ProcessOnLogs()
        model._process = GaussianProcess.from_arrays(arrays)
        return model


def _fit_robustly(
    blocks: Mapping[str, Array], target: Array, noise: Array, groups: Groups, error: Callable[[Array], float]
) -> tuple[GaussianProcess, tuple[Array, Array]]:
    """Return the process and its left-out predictions, with odd rows weighed down where that validates better.

    A row whose left-out error is more than 3 robust deviations gets the noise that makes it an error of 2, so that a
    machine that was disturbed for a while bends nothing. Where few rows are so, the first fit stays.
    """
    process = GaussianProcess().fit(blocks, target, noise)
    outside = process.left_out(groups, noise)
    best = error(outside[0]), process, outside
    for _ in range(_ROBUST_ROUNDS):
        standardised = np.abs(target - outside[0]) / outside[1]
        standardised /= max(1.4826 * float(np.median(standardised)), 1e-12)
        odd = standardised > 3
        if odd.mean() < _ODD_SHARE:
            break
        weighed = np.where(odd, noise * (standardised / 2) ** 2, noise)
        process = GaussianProcess().fit(blocks, target, weighed, process.theta)
        outside = process.left_out(groups, noise)
        best = min(best, (error(outside[0]), process, outside), key=lambda found: found[0])
    return best[1], best[2]


def _from_logs(mean: Array, std: Array) -> tuple[Array, Array]:
    middle = np.exp(mean)
    return middle, middle * np.minimum(std, 3.0)


CANDIDATES: Mapping[str, type[Regressor]] = {
    "process": ProcessOnValues,
    "log_process": ProcessOnLogs,
    "ridge": RelativeRidge,
    "trees": Trees,
    "network": SmallNetwork,
}
# The network is asked for by name: it won in no table (experiments/20261124_latency_tables), and costs seconds.
USUAL = ("process", "log_process", "ridge", "trees")


@dataclass(frozen=True)
class Chosen:
    """What won the validation.

    Args:
        name: of the candidate.
        errors: candidate to :func:`validation_error` on left-out groups.
        widening: factor on its deviations, from the same left-out groups.
        shift: factor on its means, see :func:`towards_tolerance`.
    """

    name: str
    errors: Mapping[str, float]
    widening: float
    shift: float = 1.0


class GraphRegressor:
    """Fits all candidates, keeps the best, and scales its deviations so that their 90 % interval holds 90 %.

    Args:
        candidates: which of ``CANDIDATES`` take part; None for ``USUAL``.

    Raises:
        ConfigError: one is unknown.
    """

    name = "graph"

    def __init__(self, candidates: Sequence[str] | None = None) -> None:
        self._candidates = tuple(candidates or USUAL)
        for name in self._candidates:
            if name not in CANDIDATES:
                raise unknown_name("candidate", name, CANDIDATES)

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: Groups) -> GraphRegressor:
        """Learn; returns self.

        Args:
            blocks: name to (rows, columns).
            target: shape (rows,), positive.
            groups: rows of one group are left out together.
        """
        fitted = {name: CANDIDATES[name]().fit(blocks, target, groups) for name in self._candidates}
        outside = {name: model.left_out() for name, model in fitted.items()}
        weights = once_per_group(groups)
        errors = {name: validation_error(target, mean, weights) for name, (mean, _) in outside.items()}
        best = min(errors, key=lambda name: errors[name])
        self._model: Regressor = fitted[best]
        mean, std = outside[best]
        shift = towards_tolerance(target, mean, weights)
        self.chosen = Chosen(best, errors, widening(target - shift * mean, std, weights=weights), shift)
        return self

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and calibrated deviation per row."""
        mean, std = self._model.predict(blocks)
        return mean * self.chosen.shift, std * self.chosen.widening

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write arrays and a JSON card beside them; see ``stored``."""
        save(path, self.name, self._model.to_arrays(), {"chosen": asdict(self.chosen), "card": dict(card)})

    @staticmethod
    def load(path: Path) -> tuple[GraphRegressor, dict[str, Any]]:
        """Return the model of a file and its card."""
        arrays, facts = load(path, GraphRegressor.name)
        model = GraphRegressor()
        model.chosen = Chosen(**facts["chosen"])
        model._model = CANDIDATES[model.chosen.name].from_arrays(arrays)
        return model, facts["card"]


def once_per_group(groups: Groups) -> Array:
    """Return a weight per row that adds up to 1 in each group."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights: Array = 1.0 / sizes[place]
    return weights


def towards_tolerance(target: Array, mean: Array, weights: Array) -> float:
    """Return the factor on left-out means that puts most measurements within 10 % of them.

    Where a machine is disturbed now and then, measurements have a tail on one side, and neither their mean nor their
    middle has most of them near. A factor is taken only if the shares within 5 and within 10 % do not fall together,
    and the mean error grows by a twentieth at most. Rank correlation does not change.
    """
    shares = weights / weights.sum()
    errors = np.abs(_SHIFTS[:, None] * mean / target - 1)
    far = np.minimum(errors, _CAP) @ shares
    close, within = (_softly_within(errors, tolerance) @ shares for tolerance in (0.05, 0.1))
    same = len(_SHIFTS) // 2
    allowed = (far <= far[same] * (1 + _LOST_ERROR)) & (close + within >= close[same] + within[same])
    return float(_SHIFTS[int(np.argmax(np.where(allowed, within, -1.0)))])


def _softly_within(errors: Array, tolerance: float) -> Array:
    """Return 1 within the tolerance and 0 beyond, with a slope of a tenth of it, so that no single row decides."""
    found: Array = 1 / (1 + np.exp(np.clip((errors - tolerance) / (0.1 * tolerance), -50, 50)))
    return found


def validation_error(target: Array, mean: Array, weights: Array) -> float:
    """Return mean relative error plus what is missing in rank correlation, on left-out rows; smaller is better.

    A row's error counts as 20 % at the most.
    """
    capped = np.minimum(np.abs(mean / target - 1), _CAP)
    ranks = np.stack([rankdata(target), rankdata(mean)])
    centred = ranks - (ranks @ weights / weights.sum())[:, None]
    shared = (centred * weights) @ centred.T
    rank = shared[0, 1] / max(float(np.sqrt(shared[0, 0] * shared[1, 1])), 1e-300)
    return float((capped * weights).sum() / weights.sum() + 1 - rank)
