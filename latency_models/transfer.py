"""Few-shot adaptation: a device is a draw from the population of known devices, corrected by a handful of measurements.

References: Lee and others, HELP (NeurIPS 2021) and MultiPredict (Akhauri, Abdelfattah, 2023) learn to learn from source
devices; NASFLAT (2024) chooses what to measure. Here both are done in closed form: each known device is a function of
the architecture, their mean and covariance are the prior of a Gaussian process for the next device, and what is
measured is what removes most of that prior's variance. Everything that the choice looks at comes from known devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.conformal import widening
from latency_models.gaussian_process import GaussianProcess
from latency_models.stored import load, save
from nas.errors import ConfigError, MeasurementError

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_SMALLEST = 0.15  # of the mean: below it deviations no longer shrink with the value
_TUNING_ROWS = 300  # of the pool in one rehearsal
_REHEARSALS = 3  # of each known device, on parts of the pool that share no row
_FEWEST_DEVICES = 3  # to rehearse on
_FEWEST_ERRORS = 4  # below it left-out errors say nothing about how wide the interval must be
_LEAST_SURPRISE = 0.02
_SLOPE_ROWS = 10.0  # how much the prior slope of 1 counts, in rehearsals whose surprise is off by a factor of e
_OWN_SHARE = (0.003, 0.03, 0.2)
_NOISE = (0.0005, 0.002, 0.01)
_POPULATION = (1.0, 3.0)


@dataclass(frozen=True)
class Prior:
    """How far a new device may be from the known ones, as variances relative to its mean cost.

    Args:
        population: factor on the covariance of the known devices around their mean.
        own: of what no known device has, a function as smooth as theirs.
        noise: of a measurement.
    """

    population: float
    own: float
    noise: float


@dataclass(frozen=True)
class Promise:
    """How wide the interval must be, given how much the measurements surprised; learned on known devices.

    ``log factor = level + slope * log surprise``.
    """

    level: float
    slope: float

    @staticmethod
    def of(surprises: Array, residuals: Array, deviations: Array) -> Promise:
        """Return the slope, 0 to 1, that left-out devices show, and the level that covers 90 % over all of them.

        Args:
            surprises: shape (rehearsals,).
            residuals: of each rehearsal, shape (rehearsals, rows).
            deviations: what was said of each residual, shape (rehearsals, rows).
        """
        needed = [widening(*pair) for pair in zip(residuals, deviations, strict=True)]
        x, y = np.log(surprises), np.log(needed)
        # A priori the interval grows as the surprise does; devices that are all alike cannot tell, and one may not be.
        centred = x - x.mean()
        slope = float(centred @ y + _SLOPE_ROWS) / float(centred @ centred + _SLOPE_ROWS)
        slope = min(max(slope, 0.0), 1.0)
        scaled = deviations * np.exp(slope * x)[:, None]
        return Promise(float(np.log(widening(residuals.ravel(), scaled.ravel()))), slope)

    def factor(self, surprise: float) -> float:
        """Return the factor on the deviations."""
        return float(np.exp(self.level + self.slope * np.log(surprise)))


class FewShot:
    """Predicts cost on a device from measurements of a few architectures and from devices known already."""

    name = "transfer"

    def __init__(self) -> None:
        self._rows: Rows | None = None

    def fit_sources(self, blocks: Mapping[str, Array], costs: Array) -> FewShot:
        """Learn the known devices; returns self.

        Args:
            blocks: features of the pool, name to (rows, columns).
            costs: (rows, devices), positive; each device's unit is its own.

        Raises:
            ConfigError: there is no device.
        """
        if costs.ndim != 2 or costs.shape[1] == 0:
            raise ConfigError("few-shot adaptation needs at least one known device; give transfer_from=[COLUMN,...].")
        self._relative = costs / costs.mean(axis=0)
        self._sources = GaussianProcess(iterations=40, tuning_rows=400).fit(blocks, self._relative, np.ones(len(costs)))
        self._pool = dict(blocks)
        self._pool_costs = self._of_sources(blocks)
        self._compare_pool()
        self.prior = self._tune()
        self._promise = self._learn_promise(self.prior)
        return self

    def choose(self, count: int) -> Rows:
        """Return the rows of the pool to measure, chosen by the known devices alone."""
        mean, covariance = _prior_of(self.prior, self._pool_costs, self._likeness(self._pool_likeness))
        return _greedy(mean, covariance, count, self.prior.noise)

    def adapt(self, rows: Rows, measured: Array) -> FewShot:
        """Condition on measurements of rows of the pool; returns self."""
        self._rows = rows
        mean, covariance = _prior_of(self.prior, self._pool_costs, self._likeness(self._pool_likeness))
        self._scale = _scale(mean[rows], measured)
        solver = np.linalg.inv(covariance[np.ix_(rows, rows)] + np.diag(_noise(self.prior.noise, mean[rows])))
        self._solver: Array = np.asarray(solver, dtype=np.float64)
        self._excess = measured / self._scale - mean[rows]
        self._factor = self._promise.factor(_surprise(self._solver, self._excess))
        return self

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row, in the unit of the measurements.

        Raises:
            MeasurementError: nothing was measured on the new device yet.
        """
        if self._rows is None:
            raise MeasurementError("few-shot adaptation was given no measurement; call adapt before predict.")
        costs = self._of_sources(blocks)
        rows = self._rows
        own_blocks = {name: block[rows] for name, block in self._pool.items()}
        likeness = self._likeness(self._sources.covariance(blocks, own_blocks))
        mean, cross = _prior_of(self.prior, costs, likeness, self._pool_costs[rows])
        own = _prior_variance(self.prior, costs)
        return _posterior(mean, cross, own, self._solver, self._excess, self._scale, self.prior, self._factor)

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write the known devices and, once adapted, the new one: arrays and a JSON card; see ``stored``."""
        arrays = {f"sources/{name}": values for name, values in self._sources.to_arrays().items()}
        arrays |= {f"pool/{name}": block for name, block in self._pool.items()}
        arrays |= {"pool_costs": self._pool_costs}
        if self._rows is not None:
            arrays |= {"rows": self._rows.astype(np.float64), "solver": self._solver, "excess": self._excess}
            arrays |= {"adapted": np.array([self._scale, self._factor])}
        facts = {"prior": asdict(self.prior), "promise": asdict(self._promise), "blocks": list(self._pool)}
        save(path, self.name, arrays, {**facts, "card": dict(card)})

    @staticmethod
    def load(path: Path) -> tuple[FewShot, dict[str, Any]]:
        """Return the model of a file and its card; it chooses, adapts and predicts as the one that was saved."""
        arrays, facts = load(path, FewShot.name)
        model = FewShot()
        sources = {
            name.removeprefix("sources/"): found for name, found in arrays.items() if name.startswith("sources/")
        }
        model._sources = GaussianProcess.from_arrays(sources)
        model._pool = {name: arrays[f"pool/{name}"] for name in facts["blocks"]}
        model._pool_costs = arrays["pool_costs"]
        model._compare_pool()
        model.prior, model._promise = Prior(**facts["prior"]), Promise(**facts["promise"])
        if "rows" in arrays:
            model._rows, model._solver = arrays["rows"].astype(np.int64), arrays["solver"]
            model._excess = arrays["excess"]
            model._scale, model._factor = (float(value) for value in arrays["adapted"])
        return model, facts["card"]

    def _compare_pool(self) -> None:
        self._pool_likeness = self._sources.covariance(self._pool, self._pool)
        self._unit = float(np.mean(np.diag(self._pool_likeness)))

    def _of_sources(self, blocks: Mapping[str, Array]) -> Array:
        return _at_least(self._sources.predict(blocks)[0])

    def _likeness(self, covariance: Array) -> Array:
        """Return it scaled to the variance of the mean device."""
        scaled: Array = covariance * (self._pool_costs.mean(axis=1).var() / self._unit)
        return scaled

    def _tune(self) -> Prior:
        """Return the prior that serves known devices best when each is left out."""
        if self._relative.shape[1] < _FEWEST_DEVICES:
            return Prior(3.0, 0.03, 0.002)
        take = np.random.default_rng(0).permutation(len(self._relative))[:_TUNING_ROWS]
        likeness = self._likeness(self._pool_likeness[np.ix_(take, take)])
        best, found = np.inf, Prior(3.0, 0.03, 0.002)
        for values in product(_POPULATION, _OWN_SHARE, _NOISE):
            prior = Prior(*values)
            errors = []
            for device, truth in enumerate(self._relative[take].T):
                costs = np.delete(self._pool_costs[take], device, axis=1)
                mean = _rehearse(prior, costs, costs, likeness, truth).mean
                errors.append(np.minimum(np.abs(mean / truth - 1), 0.2).mean())
            if np.mean(errors) < best:
                best, found = float(np.mean(errors)), prior
        return found

    def _learn_promise(self, prior: Prior) -> Promise:
        """Return how wide intervals had to be when each known device was the new one, in several parts of the pool.

        What is scored there has to be as unknown as an architecture that nobody measured, so known devices predict it
        without its own row.
        """
        rows, devices = self._relative.shape
        if devices < _FEWEST_DEVICES:
            return Promise(0.0, 1.0)
        left_out = _at_least(self._sources.left_out(np.arange(rows), np.ones(rows))[0])
        parts = max(min(_REHEARSALS, rows // _TUNING_ROWS), 1)
        order = np.random.default_rng(0).permutation(rows)[: parts * _TUNING_ROWS]
        surprises, residuals, deviations = [], [], []
        for take in np.split(order, parts):
            likeness = self._likeness(self._pool_likeness[np.ix_(take, take)])
            for device, truth in enumerate(self._relative[take].T):
                known, unknown = (np.delete(costs[take], device, axis=1) for costs in (self._pool_costs, left_out))
                rehearsal = _rehearse(prior, known, unknown, likeness, truth)
                scored = np.setdiff1d(np.arange(len(take)), rehearsal.rows)
                surprises.append(rehearsal.surprise)
                residuals.append((truth - rehearsal.mean)[scored])
                deviations.append(rehearsal.std[scored])
        return Promise.of(np.array(surprises), np.array(residuals), np.array(deviations))


@dataclass(frozen=True)
class _Rehearsal:
    """What a known device would have met, had it been the new one: rows measured, mean and deviation, surprise."""

    rows: Rows
    mean: Array
    std: Array
    surprise: float


def _surprise(solver: Array, excess: Array) -> float:
    """Return the root mean square of leave-one-out errors, in deviations; 1 where they are too few to tell."""
    if len(excess) < _FEWEST_ERRORS:
        return 1.0
    standardised = (solver @ excess) / np.sqrt(np.diag(solver))
    return max(float(np.sqrt((standardised**2).mean())), _LEAST_SURPRISE)


def _rehearse(prior: Prior, known: Array, unknown: Array, likeness: Array, truth: Array, count: int = 10) -> _Rehearsal:
    """Return what a known device would have met.

    Args:
        prior: of a new device.
        known: what the other devices say of each row, shape (rows, devices): from it rows are chosen and measured.
        unknown: the same as they would say it without that row; taken for all rows that are not measured.
        likeness: of the rows, shape (rows, rows).
        truth: measured on the device, shape (rows,).
        count: rows measured.
    """
    rows = _greedy(*_prior_of(prior, known, likeness), count, prior.noise)
    costs = unknown.copy()
    costs[rows] = known[rows]
    mean, cross = _prior_of(prior, costs, likeness[:, rows], costs[rows])
    scale = _scale(mean[rows], truth[rows])
    noises = np.diag(_noise(prior.noise, mean[rows]))
    solver: Array = np.asarray(np.linalg.inv(cross[rows] + noises), dtype=np.float64)
    excess = truth[rows] / scale - mean[rows]
    own = _prior_variance(prior, costs)
    found = _posterior(mean, cross, own, solver, excess, scale, prior, 1.0)
    return _Rehearsal(rows, *found, _surprise(solver, excess))


def _at_least(costs: Array) -> Array:
    """Return relative costs without those that a prediction puts at nothing or below."""
    return np.maximum(costs, 0.01)


def _prior_of(prior: Prior, costs: Array, likeness: Array, others: Array | None = None) -> tuple[Array, Array]:
    """Return the mean cost per row and the covariance of rows with ``others``, or with each other."""
    others = costs if others is None else others
    mean, other_mean = costs.mean(axis=1), others.mean(axis=1)
    freedom = max(costs.shape[1] - 1, 1)
    spread = (costs - mean[:, None]) @ (others - other_mean[:, None]).T / freedom
    # The scale is nearly free, and so is a constant: each run has an overhead.
    return mean, prior.population * spread + prior.own * likeness + np.outer(mean, other_mean) + 0.02


def _prior_variance(prior: Prior, costs: Array) -> Array:
    mean = costs.mean(axis=1)
    freedom = max(costs.shape[1] - 1, 1)
    spread = ((costs - mean[:, None]) ** 2).sum(axis=1) / freedom
    total: Array = prior.population * spread + prior.own * mean.var() + mean**2 + 0.02
    return total


def _noise(relative: float, mean: Array) -> Array:
    return relative * np.maximum(mean, _SMALLEST) ** 2


def _scale(mean: Array, measured: Array) -> float:
    weights = 1 / np.maximum(mean, _SMALLEST) ** 2
    return float((weights * mean * measured).sum() / (weights * mean**2).sum())


def _greedy(mean: Array, covariance: Array, count: int, noise: float) -> Rows:
    """Return rows, each the one that removes most of the remaining relative variance of all rows."""
    left = covariance.copy()
    weights, noises = 1 / np.maximum(mean, _SMALLEST) ** 2, _noise(noise, mean)
    chosen: list[int] = []
    for _ in range(min(count, len(mean))):
        gain = (weights @ left**2) / (np.diag(left) + noises)
        gain[chosen] = -np.inf
        row = int(np.argmax(gain))
        chosen.append(row)
        known = left[:, row] / np.sqrt(left[row, row] + noises[row])
        left -= np.outer(known, known)
    return np.array(chosen, dtype=np.int64)


def _posterior(
    mean: Array, cross: Array, own: Array, solver: Array, excess: Array, scale: float, prior: Prior, factor: float
) -> tuple[Array, Array]:
    moved = np.maximum(mean + cross @ (solver @ excess), 0.01)
    variance = np.maximum(own - np.einsum("ij,jk,ik->i", cross, solver, cross), 1e-9) + _noise(prior.noise, moved)
    return moved * scale, np.sqrt(variance) * scale * factor
