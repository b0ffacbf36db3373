"""Energy as arithmetic, traffic and time: E = a MACs(precision) + b bytes(level) + static power x latency.

Coefficients are not negative, and each has a prior from a published table, so that few measurements already give a
sensible model and none give a labelled guess. Prior means: Horowitz, Computing's energy problem (and what we can do
about it), ISSCC 2014, figure 1.1.9 (45 nm, 0.9 V): multiply and add in pJ; 64 bits from a cache of 1 MB 100 pJ, from
DRAM 1300 to 2600 pJ. The same figure puts an instruction's fetch, decode and registers at 70 pJ, shared by the lanes
of a vector, and processes shrank since; hence a prior deviation of three times the mean. Static power: the documented
current of a bare board at work (Raspberry Pi documentation, power supplies: 600 mA for 4 B and 800 mA for 5, at 5 V).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.conformal import widening
from latency_models.ridge import folds
from latency_models.stored import load, save
from nas.architecture import Precision
from nas.graph import Graph, Op

Array = NDArray[np.float64]

TERMS = ("fp32_macs", "fp16_macs", "int8_macs", "cache_bytes", "dram_bytes")
# pJ per MAC or byte, in the order of TERMS: 3.7 + 0.9; 1.1 + 0.4; 0.2 + 0.1; 100 per 8 bytes; 1950 per 8 bytes.
PRIOR_PICOJOULES = np.array([4.6, 1.5, 0.3, 100 / 8, 1950 / 8])
PRIOR_SPREAD = 3.0  # deviation of each, as a share of its mean
STATIC_WATTS: Mapping[str, float] = {"rpi4": 3.0, "rpi5": 4.0}
UNKNOWN_WATTS = 3.0  # a small board's, where nothing is known of the device, which may be a server at tens of watts
_KNOWN_SPREAD, _UNKNOWN_SPREAD = 1.0, 10.0
_ODD = 2.0  # robust deviations beyond which a measurement pulls no harder
_MAC_TERM = {Precision.FP32: 0, Precision.FP16: 1, Precision.INT8: 2, Precision.INT4: 2}
_MILLIJOULES = 1e-9  # of a picojoule
_ROUNDS = 4
_TRUSTED_ROWS = 20


def work_of(graph: Graph, cache_kib: float) -> Array:
    """Return MACs and bytes of a graph in the order of ``TERMS``.

    An operator whose tensors fit half the cache finds its activations there; weights stay in the cache between two
    inferences where those of the whole network fit the other half, else they come from DRAM.

    Args:
        graph: lowered network.
        cache_kib: last level that one core can fill.
    """
    half = cache_kib * 1024 / 2
    found = np.zeros(len(TERMS))
    for op in graph.ops:
        found[_MAC_TERM[op.dtype]] += op.macs
        found[3 if _fits(op, half) else 4] += op.activation_bytes
        found[3 if graph.weight_bytes <= half else 4] += op.weight_bytes
    return found


def work_of_rows(macs_and_bytes: Array) -> Array:
    """Return the terms of networks of which only MACs and bytes at fp32 are known, shape (rows, 2).

    From which level the bytes come is not told, so both levels see all of them and the measurements share them out.
    """
    found = np.zeros((len(macs_and_bytes), len(TERMS)))
    found[:, 0] = macs_and_bytes[:, 0]
    found[:, 3] = found[:, 4] = macs_and_bytes[:, 1]
    return found


def _fits(op: Op, room: float) -> bool:
    return op.activation_bytes + op.weight_bytes <= room


@dataclass(frozen=True)
class Fit:
    """What measurements made of the prior; multiples of the prior means are fitted, static power last.

    Args:
        multiples: shape (6,), of the five terms and of the static power.
        covariance: of the multiples, shape (6, 6).
        noise: deviation of a measurement, as a share of the value.
        widening: factor on deviations, from left-out groups.
        rows: measurements behind it; 0 is the prior alone.
        errors: left-out mean relative error of the formula and of latency times constant watts.
    """

    multiples: Array
    covariance: Array
    noise: float
    widening: float
    rows: int
    errors: Mapping[str, float]


class EnergyFormula:
    """Predicts millijoules from work and latency, with a deviation; Bayesian, with coefficients of at least 0.

    Args:
        static_watts: prior mean of the power that flows however little is computed; None where nothing is known of it.
    """

    name = "energy"

    def __init__(self, static_watts: float | None = None) -> None:
        self.static_watts = UNKNOWN_WATTS if static_watts is None else static_watts
        static_spread = _UNKNOWN_SPREAD if static_watts is None else _KNOWN_SPREAD
        spreads = np.array([PRIOR_SPREAD] * len(TERMS) + [static_spread])
        self._prior_precision = np.diag(1 / spreads**2)
        self.fitted = Fit(np.ones(len(spreads)), np.diag(spreads**2), 0.0, 1.0, 0, {})

    @property
    def kind(self) -> str:
        """``predicted`` once fitted; before, ``modelled``."""
        return "predicted" if self.fitted.rows else "modelled"

    @property
    def coefficients(self) -> dict[str, float]:
        """Picojoules per MAC or byte, and watts."""
        values = self.fitted.multiples * np.append(PRIOR_PICOJOULES, self.static_watts)
        return dict(zip((*TERMS, "static_watts"), values.tolist(), strict=True))

    def fit(
        self, work: Array, latency_ms: Array, energy_mj: Array, groups: NDArray[np.int64] | None = None
    ) -> EnergyFormula:
        """Learn from measured energies; returns self. No rows leave the prior.

        Args:
            work: (rows, 5), as :func:`work_of` returns it.
            latency_ms: (rows,), measured beside the energy.
            energy_mj: (rows,), positive.
            groups: rows of one group are left out together; None makes each row its own.
        """
        if not len(energy_mj):
            return self
        terms = self._terms(work, latency_ms)
        groups = np.arange(len(energy_mj)) if groups is None else groups
        mean, std, watts = (np.empty(len(energy_mj)) for _ in range(3))
        for learn, leave in folds(groups):
            part = self._posterior(terms[learn], energy_mj[learn])
            mean[leave], std[leave] = _predict(terms[leave], *part)
            watts[leave] = np.median(energy_mj[learn] / latency_ms[learn]) * latency_ms[leave]
        errors = {
            "formula": float(np.abs(mean / energy_mj - 1).mean()),
            "latency_x_constant_watts": float(np.abs(watts / energy_mj - 1).mean()),
        }
        whole = self._posterior(terms, energy_mj)
        wider = widening(energy_mj - mean, std)
        # A handful of residuals is no reason to believe in less than the posterior says.
        wider = wider if len(energy_mj) >= _TRUSTED_ROWS else max(wider, 1.0)
        self.fitted = Fit(*whole, wider, len(energy_mj), errors)
        return self

    def predict(self, work: Array, latency_ms: Array, latency_std: Array | float = 0.0) -> tuple[Array, Array]:
        """Return mean and deviation in mJ per row.

        Args:
            work: (rows, 5).
            latency_ms: (rows,).
            latency_std: of a latency that was itself predicted, ms.
        """
        mean, std = _predict(
            self._terms(work, latency_ms), self.fitted.multiples, self.fitted.covariance, self.fitted.noise
        )
        # Millijoules per millisecond are watts.
        watts = self.fitted.multiples[-1] * self.static_watts
        return mean, np.hypot(std * self.fitted.widening, watts * latency_std)

    @property
    def verdict(self) -> str:
        """A sentence on whether the formula is worth its parameters."""
        if not self.fitted.rows:
            return "nothing was fitted: coefficients are published constants, so the interval is wide"
        formula, watts = (self.fitted.errors[name] for name in ("formula", "latency_x_constant_watts"))
        verb = "errs less than" if formula < watts else "is NOT better than"
        return f"{verb} latency times constant watts: mean error {formula:.1%} against {watts:.1%} on left-out rows"

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write arrays and a JSON card beside them; see ``stored``."""
        numbers = np.array([self.static_watts, self.fitted.noise, self.fitted.widening, float(self.fitted.rows)])
        arrays = {"multiples": self.fitted.multiples, "covariance": self.fitted.covariance, "numbers": numbers}
        facts = {"errors": dict(self.fitted.errors), "coefficients": self.coefficients, "verdict": self.verdict}
        save(path, self.name, arrays, {**facts, "card": dict(card)})

    @staticmethod
    def load(path: Path) -> tuple[EnergyFormula, dict[str, Any]]:
        """Return the model of a file and its card."""
        arrays, facts = load(path, EnergyFormula.name)
        watts, noise, wider, rows = (float(value) for value in arrays["numbers"])
        model = EnergyFormula(watts)
        model.fitted = Fit(arrays["multiples"], arrays["covariance"], noise, wider, int(rows), facts["errors"])
        return model, facts["card"]

    def _terms(self, work: Array, latency_ms: Array) -> Array:
        """Return millijoules per unit of each multiple, shape (rows, 6)."""
        dynamic = work * PRIOR_PICOJOULES * _MILLIJOULES
        return np.hstack([dynamic, (self.static_watts * latency_ms)[:, None]])

    def _posterior(self, terms: Array, energy_mj: Array) -> tuple[Array, Array, float]:
        """Return the most probable multiples that are not negative, their covariance, and the relative noise."""
        from scipy.optimize import nnls

        count = terms.shape[1]
        relative = terms / energy_mj[:, None]
        pull = np.sqrt(np.diag(self._prior_precision))
        noise = 0.1
        multiples: Array = np.ones(count)
        trust = np.ones(len(relative))
        for _ in range(_ROUNDS):
            rows = np.vstack([relative * (trust / noise)[:, None], np.diag(pull)])
            wanted = np.concatenate([trust / noise, pull])
            multiples = np.asarray(nnls(rows, wanted)[0], dtype=np.float64)
            # With few rows the prior's 10 % counts as one more of them.
            errors = relative @ multiples - 1
            squares = float((errors**2).sum())
            noise = float(np.sqrt((squares + 0.1**2) / (len(relative) + 1)))
            # Huber's weights, so that a few disturbed measurements bend nothing.
            limit = _ODD * max(1.4826 * float(np.median(np.abs(errors))), 1e-9)
            trust = np.sqrt(np.minimum(1.0, limit / np.maximum(np.abs(errors), 1e-12)))
        precision = relative.T @ relative / noise**2 + self._prior_precision
        return multiples, np.asarray(np.linalg.inv(precision), dtype=np.float64), noise


def _predict(terms: Array, multiples: Array, covariance: Array, noise: float) -> tuple[Array, Array]:
    mean = terms @ multiples
    variance = np.einsum("ij,jk,ik->i", terms, covariance, terms) + (noise * mean) ** 2
    return mean, np.sqrt(variance)
