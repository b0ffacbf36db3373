"""Pareto dominance, fronts, crowding distance and exact hypervolume; losses throughout: smaller is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Losses = NDArray[np.float64]


def _losses(points: ArrayLike) -> Losses:
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, array.shape[1] if array.ndim == 2 else 0)
    if array.ndim != 2:
        raise ValueError(f"points have shape {array.shape}; expected (points, objectives)")
    if np.isnan(array).any():
        raise ValueError("points hold NaN; drop failed evaluations before asking for a front")
    return array


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Mark the points that no other point dominates.

    Args:
        points: losses, shape (points, objectives). NaN raises ValueError.

    Returns:
        Mask of shape (points,). Of points with equal losses all are kept.
    """
    losses = _losses(points)
    distinct, row = np.unique(losses, axis=0, return_inverse=True)
    # Strong ones first, since each pass drops all that the point at hand dominates.
    left = np.argsort(distinct.sum(axis=1), kind="stable")
    turn = 0
    while turn < len(left):
        better = (distinct[left] < distinct[left[turn]]).any(axis=1)
        better[turn] = True
        left = left[better]
        turn = int(better[:turn].sum()) + 1
    keep = np.zeros(len(distinct), dtype=np.bool_)
    keep[left] = True
    return keep[row.reshape(-1)]


def crowding_distance(points: ArrayLike) -> NDArray[np.float64]:
    """Return the crowding distance of each point (Deb et al. 2002, NSGA-II, section III-B).

    Args:
        points: losses, shape (points, objectives).

    Returns:
        Distances of shape (points,); the extremes of every objective get ``inf``.
    """
    losses = _losses(points)
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] if len(order) else 0.0
        distance[order[[0, -1]]] = np.inf
        if span > 0 and len(order) > 2:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def hypervolume(points: ArrayLike, reference_point: Sequence[float]) -> float:
    """Return the exact volume that the points dominate, bounded by the reference point.

    Args:
        points: losses, shape (points, objectives); points that do not beat the reference in every objective
            add nothing.
        reference_point: losses, shape (objectives,), all finite.

    Raises:
        ValueError: the shapes do not fit or a value is NaN.

    The recursion is WFG's (While, Bradstreet, Barone 2012): a point's exclusive volume is its box less the
    volume of the others limited to that box.
    """
    losses = _losses(points)
    reference = np.asarray(reference_point, dtype=np.float64)
    if not np.isfinite(reference).all():
        raise ValueError(f"reference point {reference.tolist()} must be finite")
    if len(losses) and losses.shape[1] != len(reference):
        raise ValueError(f"points have {losses.shape[1]} objectives, the reference point {len(reference)}")
    inside = losses[(losses < reference).all(axis=1)] if len(losses) else losses
    if not len(inside):
        return 0.0
    inside = np.unique(inside[non_dominated(inside)], axis=0)
    return _wfg(inside, reference)


def _wfg(front: Losses, reference: Losses) -> float:
    if front.shape[1] == 1:
        return float(reference[0] - front.min())
    if front.shape[1] == 2:
        return _sweep(front, reference)
    ordered = front[np.argsort(front[:, -1], kind="stable")]
    total = 0.0
    for index, point in enumerate(ordered):
        box = float(np.prod(reference - point))
        rest = np.maximum(ordered[index + 1 :], point)
        if len(rest):
            rest = np.unique(rest[non_dominated(rest)], axis=0)
            box -= _wfg(rest, reference)
        total += box
    return total


def _sweep(front: Losses, reference: Losses) -> float:
    volume, height = 0.0, float(reference[1])
    for x, y in front[np.argsort(front[:, 0], kind="stable")]:
        if y < height:
            volume += (float(reference[0]) - float(x)) * (height - float(y))
            height = float(y)
    return volume
