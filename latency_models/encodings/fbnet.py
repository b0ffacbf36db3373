"""FBNet chains: 22 places with one of nine blocks each, on pictures of 224 x 224.

Wu and others: FBNet, CVPR 2019, table 1: seven stages of 1, 4, 4, 4, 4, 4, 1 places.
"""

from __future__ import annotations

import numpy as np

from latency_models.encodings.blocks import Array, Encoding, indicators, parsed
from latency_models.tables import Table
from nas.errors import DataError

PLACES = 22
# (kernel, expansion, groups) per code; the last code is the skip.
BLOCKS = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))
SKIP = len(BLOCKS)
_STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
_STEM_CHANNELS, _STEM_SIZE = 16, 112


def encode(table: Table) -> Encoding:
    """Return features of ``op_idx``: the block at each place, their counts, and the work per stage."""
    codes = np.array([_codes(value, row) for row, value in enumerate(table.values("op_idx"))], dtype=np.int64)
    codes = codes.reshape(-1, PLACES)
    chosen = indicators(codes, SKIP + 1)
    work = _work()
    totals = chosen.reshape(len(codes), PLACES, SKIP + 1)
    per_place = np.einsum("rpo,pow->rpw", totals, work)
    stage = np.repeat(np.arange(len(_STAGES)), [places for _, places, _ in _STAGES])
    per_stage = np.stack([per_place[:, stage == index].sum(axis=1) for index in range(len(_STAGES))], axis=1)
    counted = np.stack([totals[:, stage == index].sum(axis=1) for index in range(len(_STAGES))], axis=1)
    # A block that follows a skip reads what the one before the skip wrote: cache and fusion may differ.
    after = np.concatenate([np.zeros((len(codes), 1)), codes[:, :-1] == SKIP], axis=1) * (codes != SKIP)
    blocks = {
        "choices": chosen,
        "counts": totals.sum(axis=1),
        "stage_counts": counted.reshape(len(codes), -1),
        "stage_work": per_stage.reshape(len(codes), -1),
        "work": per_place.sum(axis=1),
        "after_skip": after,
    }
    total = per_place.sum(axis=1)
    return Encoding(blocks, chosen, np.stack([total[:, 0], 4 * (total[:, 2] + total[:, 3])], axis=1))


def _codes(value: object, row: int) -> list[int]:
    found = parsed(value, row, "op_idx")
    if len(found) != PLACES or any(code not in range(SKIP + 1) for code in found):
        raise DataError(f"row {row}, column 'op_idx': {value!r}; expected {PLACES} codes from 0 to {SKIP}.")
    return [int(code) for code in found]


def _work() -> Array:
    """Return (places, blocks, 4): MACs, depthwise MACs, weights, activations; a skip that changes shape is a 1 x 1."""
    found = np.zeros((PLACES, SKIP + 1, 4))
    place, before, size = 0, _STEM_CHANNELS, _STEM_SIZE
    for channels, places, first_stride in _STAGES:
        for index in range(places):
            stride = first_stride if index == 0 else 1
            after = size // stride
            for code, (kernel, expansion, groups) in enumerate(BLOCKS):
                inner = before * expansion
                depthwise = after**2 * inner * kernel**2
                macs = size**2 * before * inner // groups + depthwise + after**2 * inner * channels // groups
                weights = (before * inner + inner * channels) // groups + inner * kernel**2
                moved = size**2 * (before + 2 * inner) + after**2 * (2 * inner + channels)
                found[place, code] = macs, depthwise, weights, moved
            if stride != 1 or before != channels:
                moved = size**2 * before + after**2 * channels
                found[place, SKIP] = after**2 * before * channels, 0, before * channels, moved
            place, before, size = place + 1, channels, after
    return found
