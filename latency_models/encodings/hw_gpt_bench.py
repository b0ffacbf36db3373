"""HW-GPT-Bench decoders: width, depth, heads and MLP ratio of each layer, bias or none.

Sukthanker and others: HW-GPT-Bench, 2024. Heads have width / heads channels or a fixed number, which the measurements
decide: both totals are features.
"""

from __future__ import annotations

import numpy as np

from latency_models.encodings.blocks import Array, Encoding, parsed
from latency_models.tables import Table
from nas.errors import DataError

_CONTEXT, _VOCABULARY = 1024, 50257  # of GPT-2


def encode(table: Table) -> Encoding:
    """Return features of ``arch``: sizes, sums over layers, work, and what each layer chose."""
    rows = [_row(value, row) for row, value in enumerate(table.values("arch"))]
    width = np.array([row[0] for row in rows], dtype=np.float64)
    depth = np.array([row[1] for row in rows], dtype=np.float64)
    bias = np.array([row[4] for row in rows], dtype=np.float64)
    deepest = int(depth.max())
    heads, ratios = _padded([row[2] for row in rows], deepest), _padded([row[3] for row in rows], deepest)
    all_heads, all_ratios = heads.sum(axis=1), ratios.sum(axis=1)
    sums = np.stack([width, depth, all_heads, all_ratios, bias], axis=1)
    work = np.stack(
        [
            depth * width,
            depth * width**2,
            all_ratios * width,
            all_ratios * width**2,
            all_heads * width,
            all_heads * width**2,
            width**2,
            bias * depth,
            bias * depth * width,
        ],
        axis=1,
    )
    present = (np.arange(deepest)[None] < depth[:, None]).astype(np.float64)
    kinds = np.hstack([_counts(heads), _counts(ratios), _counts(width[:, None]), _counts(depth[:, None])])
    counted = np.hstack([_counts(heads), _counts(ratios)])
    blocks = {
        "sums": sums,
        "work": work,
        "kinds": kinds,
        "kinds_by_width": np.hstack([counted * width[:, None], counted * width[:, None] ** 2]),
        "layers": np.hstack([heads, ratios]),
        "layers_by_width": np.hstack([heads, ratios]) * width[:, None],
    }
    per_choice = np.hstack([_counts(width[:, None]), present, _places(heads), _places(ratios), bias[:, None]])
    return Encoding(blocks, per_choice, _work(width, depth, all_ratios))


def _work(width: Array, depth: Array, all_ratios: Array) -> Array:
    """Return MACs and bytes of reading a context of GPT-2's length at fp32; attention is as wide as the embedding."""
    matrices = 4 * depth * width**2 + 2 * all_ratios * width**2 + _VOCABULARY * width
    attention = 2 * depth * _CONTEXT**2 * width
    # Per layer: normed twice, projected to three, attended, projected, added twice, and the MLP's inner width twice.
    activations = _CONTEXT * width * (9 * depth + 2 * all_ratios) + _CONTEXT * _VOCABULARY
    return np.stack([_CONTEXT * matrices + attention, 4 * (matrices + activations)], axis=1)


def _row(value: object, row: int) -> tuple[float, int, list[float], list[float], bool]:
    found = parsed(value, row, "arch")
    try:
        width, depth, heads, ratios, bias = found
        taken = (
            float(width),
            int(depth),
            [float(h) for h in heads][: int(depth)],
            [float(r) for r in ratios],
            bool(bias),
        )
    except (TypeError, ValueError):
        taken = 0.0, 0, [], [], False
    if taken[1] < 1 or len(taken[2]) < taken[1] or len(taken[3]) < taken[1]:
        raise DataError(
            f"row {row}, column 'arch': {value!r}; expected "
            "[width, layers, [heads per layer], [MLP ratio per layer], bias]."
        )
    return taken[0], taken[1], taken[2], taken[3][: taken[1]], taken[4]


def _padded(lists: list[list[float]], length: int) -> Array:
    found = np.zeros((len(lists), length))
    for row, values in enumerate(lists):
        found[row, : len(values)] = values
    return found


def _counts(values: Array) -> Array:
    """Return how often each value but 0 occurs in a row."""
    kinds = np.unique(values[values > 0])
    return np.stack([(values == kind).sum(axis=1) for kind in kinds], axis=1).astype(np.float64)


def _places(values: Array) -> Array:
    """Return an indicator per place and value but 0."""
    kinds = np.unique(values[values > 0])
    return np.hstack([(values == kind).astype(np.float64) for kind in kinds])
