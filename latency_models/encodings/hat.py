"""HAT's encoder-decoder transformers: ten numbers per architecture, averages over layers among them.

Wang and others: HAT, Hardware-Aware Transformers, ACL 2020, section 3.
"""

from __future__ import annotations

import numpy as np

from latency_models.encodings.blocks import Array, Encoding
from latency_models.tables import Table
from nas.errors import DataError

_SIDES = ("encoder_", "decoder_")


def encode(table: Table) -> Encoding:
    """Return features of the columns that begin with ``encoder_`` or ``decoder_``: numbers, levels, and products."""
    names = [name for name in table.columns if name.startswith(_SIDES)]
    if not names:
        raise DataError(f"{table.name} has no column that begins with {' or '.join(_SIDES)}; is it a HAT table?")
    numbers = np.stack([table.numbers(name) for name in names], axis=1)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers).all(axis=1))[0])
        raise DataError(f"row {row} of {table.name} lacks a feature; expected numbers in {', '.join(names)}.")
    levels = [_levels(numbers[:, index]) for index in range(len(names)) if len(np.unique(numbers[:, index])) <= 8]
    blocks = {
        "numbers": numbers,
        "levels": np.hstack(levels) if levels else numbers,
        "products": _products(numbers, names),
    }
    return Encoding(blocks, numbers)


def _levels(column: Array) -> Array:
    shown: Array = (column[:, None] == np.unique(column)[None]).astype(np.float64)
    return shown


def _products(numbers: Array, names: list[str]) -> Array:
    """Return per side every number times the layers, and that times the width: layer counts multiply what one costs."""
    found = []
    for side in _SIDES:
        mine = {name: numbers[:, index] for index, name in enumerate(names) if name.startswith(side)}
        layers = mine.get(f"{side}layer_num", np.ones(len(numbers)))
        width = mine.get(f"{side}embed_dim", np.ones(len(numbers)))
        found += [layers, layers * width, layers * width**2]
        for name, column in mine.items():
            if not name.endswith(("layer_num", "embed_dim")):
                found += [layers * column, layers * column * width]
    return np.stack(found, axis=1)
