"""Rounding to 4 bits with two levels of scales; see :mod:`nas.runtime.int4_operator` for what is stored.

Scales are found by search: for each output channel the float scale, and under it for each group the whole multiplier,
with the least squared error of the weights. Where inputs of the layer are at hand, the rounding itself takes the error
of what was rounded before into account (GPTQ, Frantar et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.runtime.int4_operator import LARGEST_MULTIPLIER, expanded

GROUP = 32
Floats = NDArray[np.float32]
_LEAST, _MOST = -8, 7
# Scales tried, over the one at which the largest weight of a channel becomes 8 times the largest multiplier.
_TRIED = np.linspace(0.62, 1.16, 19, dtype=np.float32)
_BELOW = 3  # multipliers tried below the one that clips nothing
_BLOCK = 32  # columns between two updates of the rest


@dataclass(frozen=True, eq=False)
class TwoLevel:
    """A layer's weights in 4 bits.

    Args:
        values: -8..7 of the shape of the weights, outputs first.
        multipliers: 0..15, one less than they mean, of shape (outputs, groups).
        scales: positive, of shape (outputs,).
        group: weights that share a multiplier.
    """

    values: NDArray[np.int8]
    multipliers: NDArray[np.uint8]
    scales: Floats
    group: int

    @property
    def bytes(self) -> NDArray[np.int8]:
        """The same weights in 8 bits, of the same scales."""
        return expanded(self.values, self.multipliers, self.group)

    @property
    def floats(self) -> Floats:
        """The weights as they are used."""
        wide = self.bytes.astype(np.float32)
        return wide * self.scales.reshape(-1, *[1] * (wide.ndim - 1))


def two_level(
    weights: Floats, group: int = GROUP, reduce_range: bool = False, covariance: NDArray[np.float64] | None = None
) -> TwoLevel:
    """Return weights rounded to 4 bits.

    Args:
        weights: finite, of shape (outputs, ...).
        group: weights that share a multiplier.
        reduce_range: keep value times multiplier to 7 bits.
        covariance: of the layer's inputs, (inputs, inputs) or, where each output reads inputs of its own, (outputs,
            inputs, inputs), in the order of a channel's flattened weights; None rounds each weight to the nearest.
    """
    outputs = weights.shape[0]
    rows = np.ascontiguousarray(weights.reshape(outputs, -1), np.float32)
    most = LARGEST_MULTIPLIER // 2 if reduce_range else LARGEST_MULTIPLIER
    scales, multipliers = _scales(rows, group, most)
    steps = scales[:, None] * np.repeat(multipliers, group, axis=1)[:, : rows.shape[1]]
    values = _nearest(rows, steps) if covariance is None else _with_feedback(rows, steps, covariance)
    return TwoLevel(values.astype(np.int8).reshape(weights.shape), (multipliers - 1).astype(np.uint8), scales, group)


def _scales(rows: Floats, group: int, most: int) -> tuple[Floats, NDArray[np.int32]]:
    outputs, inputs = rows.shape
    groups = -(-inputs // group)
    padded = np.zeros((outputs, groups * group), np.float32)
    padded[:, :inputs] = rows
    grouped = padded.reshape(outputs, groups, group)
    largest = np.abs(grouped).max(axis=2)
    whole = np.maximum(largest.max(axis=1), np.finfo(np.float32).tiny * 2**20) / np.float32(8 * most)
    scales, multipliers = whole.copy(), np.ones((outputs, groups), np.int32)
    least = np.full(outputs, np.inf, np.float32)
    for factor in _TRIED:
        scale = (whole * factor).astype(np.float32)
        found, errors = _multipliers(grouped, largest, scale, most)
        error = errors.sum(axis=1)
        better = error < least
        scales, least = np.where(better, scale, scales), np.where(better, error, least)
        multipliers = np.where(better[:, None], found, multipliers)
    return scales.astype(np.float32), multipliers


def _multipliers(grouped: Floats, largest: Floats, scale: Floats, most: int) -> tuple[NDArray[np.int32], Floats]:
    """Return the multiplier of each group with the least squared error under the channels' scales, and the errors."""
    enough = np.ceil(largest / (scale[:, None] * np.float32(7.5))).astype(np.int32)
    best, least = np.ones_like(enough), np.full(enough.shape, np.inf, np.float32)
    for below in range(_BELOW + 1):
        tried = np.clip(enough - below, 1, most)
        steps = (scale[:, None] * tried)[:, :, None].astype(np.float32)
        error = np.square(np.clip(np.rint(grouped / steps), _LEAST, _MOST) * steps - grouped).sum(axis=2)
        better = error < least
        best, least = np.where(better, tried, best), np.where(better, error, least)
    return best, least


def _nearest(rows: Floats, steps: Floats) -> Floats:
    return np.asarray(np.clip(np.rint(rows / steps), _LEAST, _MOST), np.float32)


def _with_feedback(rows: Floats, steps: Floats, covariance: NDArray[np.float64]) -> Floats:
    """Round column by column, and let the columns that follow make up for the error as their inputs allow.

    Of each column's error ``e`` over the diagonal of the upper Cholesky factor ``U`` of the inverse covariance, the
    columns behind take ``e * U[column, behind]``.
    """
    outputs, inputs = rows.shape
    left = rows.astype(np.float64)
    factors = _factors(covariance)
    own = factors.ndim == 3
    values = np.zeros_like(left)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.zeros((outputs, end - start))
        for column in range(start, end):
            values[:, column] = np.clip(np.rint(left[:, column] / steps[:, column]), _LEAST, _MOST)
            diagonal = factors[..., column, column]
            error = (left[:, column] - values[:, column] * steps[:, column]) / diagonal
            row = factors[:, column, column + 1 : end] if own else factors[None, column, column + 1 : end]
            left[:, column + 1 : end] -= error[:, None] * row
            errors[:, column - start] = error
        if own:
            left[:, end:] -= np.einsum("oc,oci->oi", errors, factors[:, start:end, end:])
        else:
            left[:, end:] -= errors @ factors[start:end, end:]
    return values.astype(np.float32)


def _factors(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper Cholesky factor of the inverse of the damped covariance."""
    size = covariance.shape[-1]
    mean = np.maximum(np.trace(covariance, axis1=-2, axis2=-1) / size, 1e-12)
    damped = covariance + np.eye(size) * (0.01 * mean)[..., None, None]
    return np.asarray(np.swapaxes(np.linalg.cholesky(np.linalg.inv(damped)), -1, -2))
