"""The additive model: a network takes the sum of its kernels, a kernel a non-negative sum over its shape.

Time = constant + sum over kernels, sum over features, coefficient[family, feature] x feature. The coefficients are
found from times of whole networks, from profiles of kernels, or from both; none is below 0, since no kernel gives time
back. Which ops make one kernel is a belief (:data:`latency_models.kernels.FUSIONS`) that the left-out rows decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from latency_models.conformal import widening
from latency_models.kernels import FUSIONS, Kernel, kernels
from latency_models.ridge import folds
from latency_models.stored import load, save
from nas.device import Device
from nas.errors import ConfigError, MeasurementError
from nas.graph import Graph
from nas.measurement import Estimate, Measurement

Array = NDArray[np.float64]
Column = tuple[str, str]  # family and feature

CONSTANT: Column = ("network", "count")
FEWEST = 8
_PENALTIES = (1e-4, 1e-3, 1e-2)
_SMALLEST_WEIGHT = 0.1  # of the median: errors below it no longer count more
_SMALLEST_SHARE = 0.005  # no model of a real machine is better than half a percent


@dataclass(frozen=True)
class KernelCost:
    """What the model says of one kernel.

    Args:
        name: of the op that bears the work.
        family: of the kernel.
        ops: all of its ops.
        latency_ms: share of the prediction.
        known: False where nothing of its family was measured, so that it counts as nothing.
    """

    name: str
    family: str
    ops: tuple[str, ...]
    latency_ms: float
    known: bool


@dataclass(frozen=True)
class KernelTime:
    """A kernel that a profile timed.

    Args:
        graph: in which it ran.
        op: one of its ops.
        latency_ms: median.
    """

    graph: Graph
    op: str
    latency_ms: float


@dataclass(frozen=True)
class BlockTime:
    """A block whose steps a profile timed: whichever ops of it a runtime fused, the sum is the block's.

    Args:
        graph: in which it ran.
        block: its name; empty for what a call takes beside all blocks.
        latency_ms: median.
    """

    graph: Graph
    block: str
    latency_ms: float


Profile = KernelTime | BlockTime


class Additive:
    """Latency as a non-negative sum over kernels; satisfies LatencyModel.

    Args:
        fusions: beliefs of what is fused that take part.
        alone: learns from profiles alone; times of whole networks then only choose between beliefs and say how far
            predictions are off.
    """

    name = "additive"

    def __init__(self, fusions: Sequence[str] = tuple(FUSIONS), alone: bool = False) -> None:
        for fusion in fusions:
            if fusion not in FUSIONS:
                raise ConfigError(f"fusion '{fusion}' is unknown; have {', '.join(FUSIONS)}")
        self._fusions = tuple(fusions)
        self._alone = alone
        self._columns: tuple[Column, ...] = ()

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]], profiles: Sequence[Profile] = ()) -> None:
        """Learn the coefficients, what is fused, and how far predictions of left-out networks are off.

        Args:
            measurements: whole networks, positive times.
            profiles: single kernels or blocks, which count beside them.

        Raises:
            MeasurementError: fewer than 8 networks, a time that is not positive, or profiles alone and none given.
        """
        if self._alone and not profiles:
            raise MeasurementError(f"{self.name}.fit: no profiles to learn from alone; give some, or alone=False")
        target = times_of(measurements, self.name)
        graphs = [graph for graph, _, _ in measurements]
        tried = {fusion: self._solve(graphs, target, profiles, fusion) for fusion in self._fusions}
        self.errors = {fusion: found.error for fusion, found in tried.items()}
        self.fusion = min(self.errors, key=lambda fusion: self.errors[fusion])
        best = tried[self.fusion]
        self._columns, self._coefficients, self.penalty = best.columns, best.coefficients, best.penalty
        self._outside = best.outside
        mean = self.rows(graphs).mean(axis=0)
        self._typical = np.where(mean > 0, mean, 1.0)
        self._share = max(relative_deviation(target, best.outside), _SMALLEST_SHARE)

    def predict(self, graph: Graph, device: Device) -> Estimate:
        """Return milliseconds; the deviation is a share of the mean, wider by what no measurement has shown."""
        costs = self.breakdown(graph)
        mean = max(sum(cost.latency_ms for cost in costs), 1e-6)
        unknown = sum(not cost.known for cost in costs) / max(len(costs), 1)
        return Estimate(mean, mean * (self._share + unknown), "ms", self.name, device.name)

    def breakdown(self, graph: Graph) -> list[KernelCost]:
        """Return the cost of each kernel, and of a call as such; the sum is the prediction."""
        known = {family for family, _ in self._columns}
        value = dict(zip(self._columns, self._coefficients.tolist(), strict=True))
        found = [KernelCost("(call)", CONSTANT[0], (), value.get(CONSTANT, 0.0), True)]
        for kernel in kernels(graph, self.fusion):
            spent = sum(value.get((kernel.family, name), 0.0) * size for name, size in kernel.features.items())
            found.append(KernelCost(kernel.ops[0], kernel.family, kernel.ops, spent, kernel.family in known))
        return found

    @property
    def outside(self) -> Array:
        """Means of the networks learned from, each predicted without itself."""
        return self._outside

    @property
    def columns(self) -> tuple[Column, ...]:
        """Family and feature of each coefficient."""
        return self._columns

    def rows(self, graphs: Sequence[Graph]) -> Array:
        """Return (graphs, columns): the summed features that the coefficients multiply."""
        return rows_of([kernels(graph, self.fusion) for graph in graphs], self._columns)

    def means(self, rows: Array) -> Array:
        """Return milliseconds for rows of :meth:`rows`."""
        return np.maximum(rows @ self._coefficients, 1e-6)

    def shares(self, rows: Array) -> Array:
        """Return (graphs, families): which share of the prediction each family has; rows of 0 where it is nothing."""
        families = sorted({family for family, _ in self._columns})
        place = np.array([families.index(family) for family, _ in self._columns])
        sums = np.zeros((len(rows), len(families)))
        np.add.at(sums.T, place, (rows * self._coefficients).T)
        shares: Array = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-12)
        return shares

    @property
    def typical(self) -> Array:
        """Mean of each column over the networks learned from, 1 where it was nothing."""
        return self._typical

    def _solve(self, graphs: Sequence[Graph], target: Array, profiles: Sequence[Profile], fusion: str) -> _Solution:
        made = [kernels(graph, fusion) for graph in graphs]
        columns = tuple(sorted({CONSTANT, *(column for one in made for kernel in one for column in _pairs(kernel))}))
        rows = rows_of(made, columns)
        seen = [(timed, found) for timed in profiles if (found := _kernels_of(timed, fusion)) is not None]
        extra = rows_of([found for _, found in seen], columns, constant=0.0)
        for row, (timed, found) in zip(extra, seen, strict=True):
            row[columns.index(CONSTANT)] = float(not found and isinstance(timed, BlockTime))
        extra_target = np.array([timed.latency_ms for timed, _ in seen])
        owner = {id(graph): index for index, graph in enumerate(graphs)}
        owners = np.array([owner.get(id(timed.graph), -1) for timed, _ in seen], dtype=np.int64)

        def solved(learn: NDArray[np.int64], penalty: float) -> Array:
            # The profile of a network that is left out is left out with it.
            told = (owners < 0) | np.isin(owners, learn)
            whole = learn[:0] if self._alone else learn
            usual = float(np.median(target[learn]))
            return non_negative(rows[whole], target[whole], penalty, extra[told], extra_target[told], usual)

        outside = np.empty((len(_PENALTIES), len(target)))
        for learn, leave in folds(np.arange(len(target))):
            for index, penalty in enumerate(_PENALTIES):
                outside[index, leave] = rows[leave] @ solved(learn, penalty)
        errors = [float(np.mean(np.minimum(np.abs(one / target - 1), 0.5))) for one in outside]
        best = int(np.argmin(errors))
        coefficients = solved(np.arange(len(target)), _PENALTIES[best])
        return _Solution(errors[best], columns, coefficients, np.maximum(outside[best], 1e-6), _PENALTIES[best])

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays."""
        return {
            "coefficients": self._coefficients,
            "typical": self._typical,
            "numbers": np.array([self._share]),
        }

    def facts(self) -> dict[str, Any]:
        """Return what the arrays mean, JSON-ready."""
        return {
            "fusion": self.fusion,
            "errors": self.errors,
            "penalty": self.penalty,
            "columns": [list(column) for column in self._columns],
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> Additive:
        """Return the model that ``to_arrays`` and ``facts`` were called on."""
        model = Additive()
        model.fusion, model.errors, model.penalty = facts["fusion"], dict(facts["errors"]), facts["penalty"]
        model._columns = tuple((str(family), str(feature)) for family, feature in facts["columns"])
        model._coefficients, model._typical = arrays["coefficients"], arrays["typical"]
        model._share = float(arrays["numbers"][0])
        return model

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write arrays and a JSON card beside them; see ``stored``."""
        save(path, self.name, self.to_arrays(), {"additive": self.facts(), "card": dict(card)})

    @staticmethod
    def load(path: Path) -> tuple[Additive, dict[str, Any]]:
        """Return the model of a file and its card."""
        arrays, facts = load(path, Additive.name)
        return Additive.from_arrays(arrays, facts["additive"]), facts["card"]


@dataclass(frozen=True)
class _Solution:
    error: float
    columns: tuple[Column, ...]
    coefficients: Array
    outside: Array
    penalty: float


def times_of(measurements: Sequence[tuple[Graph, Device, Measurement]], name: str, fewest: int = FEWEST) -> Array:
    """Return the medians in ms.

    Raises:
        MeasurementError: too few, another unit, or a time that is not positive.
    """
    if len(measurements) < fewest:
        raise MeasurementError(f"{name}.fit: {len(measurements)} measurements; expected {fewest} or more")
    for _, _, measured in measurements:
        if measured.unit != "ms" or not (measured.median > 0 and np.isfinite(measured.median)):
            raise MeasurementError(f"{name}.fit: {measured.median} {measured.unit}; expected milliseconds above 0")
    return np.array([measured.median for _, _, measured in measurements])


def non_negative(rows: Array, target: Array, penalty: float, extra: Array, extra_target: Array, usual: float) -> Array:
    """Return the non-negative coefficients of least squared relative error, shrunk a little.

    Args:
        rows: (networks, columns).
        target: ms.
        penalty: on the columns' shares of the time, which keeps columns that say the same from splitting at random.
        extra: (kernels, columns) of a profile, each of which weighs as its share of a median network.
        extra_target: ms.
        usual: ms of a median network.
    """
    weights = np.concatenate([1 / np.maximum(target, _SMALLEST_WEIGHT * usual), np.full(len(extra_target), 1 / usual)])
    stacked = np.vstack([rows, extra]) * weights[:, None]
    wanted = np.concatenate([target, extra_target]) * weights
    scale = np.sqrt((stacked**2).mean(axis=0))
    kept = scale > 0
    scaled = stacked[:, kept] / scale[kept]
    count = len(stacked)
    padded = np.vstack([scaled, np.sqrt(penalty * count / max(int(kept.sum()), 1)) * np.eye(int(kept.sum()))])
    solution, _ = nnls(padded, np.concatenate([wanted, np.zeros(int(kept.sum()))]), maxiter=50 * padded.shape[1])
    coefficients = np.zeros(rows.shape[1])
    coefficients[kept] = solution / scale[kept]
    return coefficients


def rows_of(made: Sequence[Sequence[Kernel]], columns: Sequence[Column], constant: float = 1.0) -> Array:
    """Return (networks, columns): features summed over the kernels of each network; unknown columns are left out."""
    place = {column: index for index, column in enumerate(columns)}
    rows = np.zeros((len(made), len(columns)))
    for row, found in zip(rows, made, strict=True):
        if CONSTANT in place:
            row[place[CONSTANT]] = constant
        for kernel in found:
            for pair, size in _pairs(kernel).items():
                if pair in place:
                    row[place[pair]] += size
    return rows


def relative_deviation(target: Array, mean: Array) -> float:
    """Return the share of the mean that, as a deviation, gives the 90 % interval its 90 %."""
    return widening(target - mean, mean)


def _pairs(kernel: Kernel) -> dict[Column, float]:
    return {(kernel.family, name): size for name, size in kernel.features.items()}


def _kernels_of(timed: Profile, fusion: str) -> tuple[Kernel, ...] | None:
    """Return the kernels that an entry of a profile timed, none of a call as such; None where there is no such part."""
    made = kernels(timed.graph, fusion)
    if isinstance(timed, KernelTime):
        return next(((kernel,) for kernel in made if timed.op in kernel.ops), None)
    if not timed.block:
        return ()
    block_of = {op.name: op.block for op in timed.graph.ops}
    return tuple(kernel for kernel in made if block_of.get(kernel.ops[0]) == timed.block) or None
