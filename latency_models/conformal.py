"""Deviations that keep their promise: scaled so that 90 % of the left-out measurements lie in the 90 % interval.

Split conformal prediction with normalised residuals (Lei, G'Sell, Rinaldo, Tibshirani, Wasserman: Distribution-free
predictive inference for regression, JASA 113, 2018, section 5.2), on residuals of rows that were left out in turn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Z_90 = 1.6448536269514722  # half width of a normal 90 % interval, in standard deviations


def widening(residuals: Array, deviations: Array, share: float = 0.9, weights: Array | None = None) -> float:
    """Return the factor on ``deviations`` with which their 90 % interval holds ``share`` of the residuals.

    Args:
        residuals: measured minus predicted of left-out rows.
        deviations: what the model said of each of them.
        share: of the residuals to hold.
        weights: what each residual counts; all alike where None.
    """
    ratios = np.abs(residuals) / (Z_90 * np.maximum(deviations, 1e-300))
    order = np.argsort(ratios)
    counted = np.cumsum(np.ones(len(ratios)) if weights is None else weights[order] * (len(ratios) / weights.sum()))
    wanted = min(math.ceil((len(ratios) + 1) * share), len(ratios))
    rank = min(int(np.searchsorted(counted, wanted - 1e-9)), len(ratios) - 1)
    return float(max(ratios[order[rank]], 1e-6))
