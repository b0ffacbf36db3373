"""Expected improvement of the hypervolume where one objective is uncertain and the others are known or nearly so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import qmc

Array = NDArray[np.float64]

_POINTS = 2048
_COARSE = 256
_REFINED = 192
_ALIKE = 1e-9


def expected_improvement(best: Array, mean: Array, std: Array) -> Array:
    """Return E[max(best - loss, 0)] for a normal loss (Jones et al. 1998, equation 15).

    Args:
        best: broadcastable with the others.
        mean: of the loss.
        std: of the loss, above 0.
    """
    z = (best - mean) / std
    return np.asarray(std * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))


def cost_points(low: Array, reference: Array, seed: int) -> Array:
    """Return points spread evenly over the box of costs, shape (points, costs); so are the first ones alone."""
    costs = len(low)
    if costs == 0:
        return np.empty((1, 0))
    unit = qmc.Sobol(costs, rng=np.random.default_rng(seed)).random(_POINTS)
    return np.asarray(low + unit * (reference - low))


def hypervolume_improvement(
    mean: Array,
    std: Array,
    costs: Array,
    costs_std: Array,
    front: Array,
    reference: float,
    points: Array,
) -> Array:
    """Return each candidate's expected improvement of the hypervolume, up to a factor that all share.

    The volume that a loss adds is the integral, over all points of the box of costs that the candidate reaches, of how
    far the loss lies below the best that the front has within that point's costs. So its expectation is the integral of
    the ordinary expected improvement, each point weighted by the probability that it is reached; exact in the loss, by
    quasi-Monte Carlo in the costs.

    Args:
        mean: of the loss, shape (candidates,).
        std: of the loss, shape (candidates,), above 0.
        costs: means of the other losses, shape (candidates, costs).
        costs_std: their standard deviations, 0 where they are known.
        front: losses of the members, the uncertain one first, shape (members, 1 + costs).
        reference: worst loss that counts.
        points: of the box of costs, from :func:`cost_points`; the best are weighed by all, the rest by the first.
    """
    few = points[:_COARSE]
    scores = _improvement(mean, std, costs, costs_std, front, reference, few)
    if len(few) < len(points):
        best = np.argsort(-scores, kind="stable")[:_REFINED]
        scores[best] = _improvement(mean[best], std[best], costs[best], costs_std[best], front, reference, points)
    return scores


def _improvement(
    mean: Array, std: Array, costs: Array, costs_std: Array, front: Array, reference: float, points: Array
) -> Array:
    within = (front[None, :, 1:] <= points[:, None, :]).all(axis=2)
    best = np.minimum(np.where(within, front[None, :, 0], reference).min(axis=1, initial=reference), reference)
    levels, level = np.unique(best, return_inverse=True)
    membership = np.zeros((len(points), len(levels)), np.float32)
    membership[np.arange(len(points)), level] = 1.0
    reached = np.ones((len(mean), len(points)), np.float32)
    for axis in range(costs.shape[1]):
        reached *= _reach(costs[:, axis], costs_std[:, axis], points[:, axis])
    volume = (reached @ membership).astype(np.float64) / len(points)
    return np.asarray((volume * expected_improvement(levels[None, :], mean[:, None], std[:, None])).sum(axis=1))


def _reach(cost: Array, std: Array, points: Array) -> NDArray[np.float32]:
    """Return the probability that a cost is no larger than each point, shape (candidates, points)."""
    if not std.any():
        return (cost[:, None] <= points[None, :]).astype(np.float32)
    spread = np.maximum(std, _ALIKE * (np.abs(cost) + _ALIKE)).astype(np.float32)
    away = (points.astype(np.float32)[None, :] - cost.astype(np.float32)[:, None]) / spread[:, None]
    return np.asarray(ndtr(away), dtype=np.float32)
