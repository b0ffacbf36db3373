"""Peaks of a device from measured latencies of whole networks, where its data sheet says what it could do at best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.stored import load, save

Array = NDArray[np.float64]

# Logarithms of billions of MACs and bytes per second, and of microseconds per operator.
_LOG_BOUNDS = ((-3.0, -3.0, -5.0), (9.0, 7.0, 8.0))
# What small and large processors can be believed to do; a table that says little of a constant leaves it near.
BELIEVED = (10.0, 10.0, 5.0)
_PULL = 0.03  # of a squared logarithm, where the mean squared error of a table counts 1
_STARTS = ((2.0, 2.0, 1.0), (3.0, 1.0, 3.0), (1.0, 0.0, 4.0), (3.0, 3.0, 5.0))


@dataclass(frozen=True)
class Work:
    """Networks as counts of the distinct operators that they consist of.

    Args:
        counts: (networks, operators).
        macs: (operators,).
        bytes: (operators,), read and written, weights included.
    """

    counts: Array
    macs: Array
    bytes: Array

    def latency_ms(self, fp32_gmacs: float, bandwidth_gbs: float, op_overhead_us: float) -> Array:
        """Return the roofline's milliseconds per network."""
        compute, memory = self.macs / (fp32_gmacs * 1e6), self.bytes / (bandwidth_gbs * 1e6)
        total: Array = self.counts @ (np.maximum(compute, memory) + op_overhead_us / 1e3)
        return total


@dataclass(frozen=True)
class Calibration:
    """A roofline's constants at fp32, fitted to measurements.

    Args:
        fp32_gmacs: billion multiply-accumulates per second.
        bandwidth_gbs: billion bytes per second.
        op_overhead_us: microseconds per operator.
        inside: root mean square of log(measured / modelled) on the networks fitted.
        outside: likewise to expect on networks of another space or under another runtime.
    """

    fp32_gmacs: float
    bandwidth_gbs: float
    op_overhead_us: float
    inside: float
    outside: float

    name = "calibration"

    def latency_ms(self, work: Work) -> Array:
        """Return milliseconds per network."""
        return work.latency_ms(self.fp32_gmacs, self.bandwidth_gbs, self.op_overhead_us)

    def log_error(self, work: Work, measured_ms: Array) -> float:
        """Return the root mean square of log(measured / modelled)."""
        return float(np.sqrt(np.mean(np.log(measured_ms / self.latency_ms(work)) ** 2)))

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write the five numbers and a JSON card beside them; see ``stored``."""
        numbers = [self.fp32_gmacs, self.bandwidth_gbs, self.op_overhead_us, self.inside, self.outside]
        save(path, self.name, {"numbers": np.array(numbers)}, {"card": dict(card)})

    @staticmethod
    def load(path: Path) -> tuple[Calibration, dict[str, Any]]:
        """Return the calibration of a file and its card."""
        arrays, facts = load(path, Calibration.name)
        return Calibration(*(float(value) for value in arrays["numbers"])), facts["card"]


def calibrate(
    tables: Sequence[tuple[Work, Array]], outside: float, believed: tuple[float, float, float] = BELIEVED
) -> Calibration:
    """Return the constants with the least error of the logarithm, every table weighing the same.

    Networks of one space may not tell overhead from bandwidth; the pull towards what is believed then decides, so that
    no absurd constant is carried to networks of another size.

    Args:
        tables: work and measured milliseconds of networks, one table per space.
        outside: see ``Calibration``.
        believed: billion MACs and bytes per second and microseconds per operator, such as a data sheet's.
    """
    from scipy.optimize import least_squares

    logs = [np.log(measured) for _, measured in tables]

    def errors(theta: Array) -> Array:
        constants = np.exp(theta)
        found = [
            _softened(np.log(work.latency_ms(*constants)) - log) / np.sqrt(len(log))
            for (work, _), log in zip(tables, logs, strict=True)
        ]
        return np.concatenate([*found, np.sqrt(_PULL) * (theta - np.log(believed))])

    runs = [least_squares(errors, start, bounds=_LOG_BOUNDS) for start in _STARTS]
    best = min(runs, key=lambda run: float(run.cost))
    gmacs, gbs, overhead = (float(value) for value in np.exp(best.x))
    made = Calibration(gmacs, gbs, overhead, 0.0, outside)
    inside = float(np.sqrt(np.mean([made.log_error(work, measured) ** 2 for work, measured in tables])))
    return Calibration(gmacs, gbs, overhead, inside, outside)


def _softened(errors: Array) -> Array:
    """Return errors whose squares grow like the errors themselves beyond a factor of e, where few are sound."""
    soft: Array = np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1))
    return soft
