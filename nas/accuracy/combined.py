"""Several scores made one, within a population: a score alone has no scale, its ranks do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

# What configs and results call the product of the ranks of the default scores.
COMBINED = "combined"
# Chosen on 200 cells of NAS-Bench-201 and checked on others (experiments/20261124_proxies).
DEFAULT = ("expressivity", "swap", "meco")
AZ_NAS = ("expressivity", "progressivity", "trainability", "macs")

_OUTER = 0.25  # share of a population by whose spread a score beyond its end is judged
_TINY = 1e-12


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


def rank_product_within(
    population: Mapping[str, ArrayLike], scores: Mapping[str, ArrayLike], names: Sequence[str] = DEFAULT
) -> NDArray[np.float64]:
    """Return what :func:`rank_product` does, with ranks among a fixed population in place of the candidates themselves.

    One candidate then has a score at once, and keeps it whatever else is scored later.

    Args:
        population: name to the scores of the population, shape (members,), all of them finite.
        scores: name to the scores of the candidates, shape (candidates,).
        names: of the scores to combine.

    Returns:
        Shape (candidates,), below 0.
    """
    logarithms = [
        np.log(_relative_ranks(np.asarray(population[name], np.float64), np.asarray(scores[name], np.float64)))
        for name in names
    ]
    return np.asarray(np.sum(logarithms, axis=0))


def _relative_ranks(population: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks over ``members + 1``, interpolated; beyond the ends they go on, the slower the farther.

    So two candidates that beat the whole population still differ, and none counts for more than one rank above it.
    """
    count = len(population)
    known, where = np.unique(population, return_inverse=True)
    places = np.empty(count)
    places[np.argsort(population, kind="stable")] = np.arange(1, count + 1)
    # Equal scores share the mean of their ranks.
    ranks = np.bincount(where, places) / np.bincount(where) / (count + 1)
    found = np.interp(scores, known, ranks)
    low, high = np.quantile(population, [_OUTER, 1 - _OUTER])
    above, below = scores - known[-1], known[0] - scores
    rest = np.exp(-np.maximum(above, 0) / max(known[-1] - high, _TINY))
    found = np.where(above > 0, 1 - (1 - ranks[-1]) * rest, found)
    rest = np.exp(-np.maximum(below, 0) / max(low - known[0], _TINY))
    return np.where(below > 0, ranks[0] * (1 + rest) / 2, found)
