"""Several scores made one, within a population: a score alone has no scale, its ranks do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Chosen on 200 cells of NAS-Bench-201 and checked on others (experiments/20261124_proxies).
DEFAULT = ("expressivity", "swap", "meco")
AZ_NAS = ("expressivity", "progressivity", "trainability", "macs")


def rank_product(scores: Mapping[str, ArrayLike], names: Sequence[str] = DEFAULT) -> NDArray[np.float64]:
    """Return the sum of the logarithms of relative ranks, larger is better (Lee and Ham 2024, equation 9).

    The logarithm punishes a low rank in one score more than a high rank in another makes good.

    Args:
        scores: name to the scores of all candidates, shape (candidates,); a missing one is NaN and ranks last.
        names: of the scores to combine.

    Returns:
        Shape (candidates,), at most 0.
    """
    columns = [np.asarray(scores[name], dtype=np.float64) for name in names]
    total = np.zeros(len(columns[0]))
    for column in columns:
        known = np.where(np.isnan(column), -np.inf, column)
        # Equal scores share the mean of their ranks.
        order = np.sort(known)
        low, high = np.searchsorted(order, known, "left"), np.searchsorted(order, known, "right")
        total += np.log((low + high + 1) / 2 / len(known))
    return total
