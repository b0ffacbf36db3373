"""How well predictions agree with measurements: rank, share within a tolerance, relative error, coverage."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from latency_models.conformal import Z_90

Array = NDArray[np.float64]


def scores(measured: Array, mean: Array, std: Array | None = None) -> dict[str, float | None]:
    """Return Spearman, Kendall, shares within 5 and 10 %, mean absolute relative error, and coverage where it can be.

    A constant prediction has no rank correlation; it is None, as is the coverage of a model without a deviation.

    Args:
        measured: shape (rows,), positive.
        mean: predictions.
        std: their deviations; the 90 % interval is 1.645 of them to either side.
    """
    error = np.abs(mean - measured) / measured
    ranked = float(np.ptp(mean)) > 0 and float(np.ptp(measured)) > 0
    covered = None if std is None else float((np.abs(mean - measured) <= Z_90 * std).mean())
    return {
        "spearman": float(spearmanr(measured, mean)[0]) if ranked else None,
        "kendall": float(kendalltau(measured, mean)[0]) if ranked else None,
        "within_5_pct": float((error <= 0.05).mean()),
        "within_10_pct": float((error <= 0.10).mean()),
        "mape": float(error.mean()),
        "coverage_90": covered,
    }


def average(runs: list[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each score over the runs; None where a run has none."""
    found: dict[str, float | None] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        known = [value for value in values if value is not None]
        found[name] = sum(known) / len(known) if len(known) == len(values) else None
    return found
