"""The cell of NAS-Bench-201 as published (its string, its number, its live edges), and the blocks made of it."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass
from functools import cache

from nas.errors import ConfigError, unknown_name

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# (written, read) in the order of the string; node 0 is the cell's input and node 3 its output.
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
# The authors number the cells in the order of all combinations, shuffled by Python's generator at this seed.
_PUBLISHED_SEED = 88
_STRING = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")


@dataclass(frozen=True)
class Cell:
    """Four nodes, each the sum of what its edges make of the nodes before it (Dong and Yang 2020, figure 1).

    Args:
        operations: one of ``OPERATIONS`` per edge, in the order of ``EDGES``.
    """

    operations: tuple[str, ...]

    def __str__(self) -> str:
        """Return the published string, such as ``|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|``."""
        nodes: dict[int, list[str]] = {}
        for (written, read), operation in zip(EDGES, self.operations, strict=True):
            nodes.setdefault(written, []).append(f"{operation}~{read}")
        return "+".join(f"|{'|'.join(edges)}|" for edges in nodes.values())

    @property
    def index(self) -> int:
        """Number of the cell in NAS-Bench-201 and NATS-Bench, 0 to 15,624."""
        return _indices()[self.operations]

    @property
    def live(self) -> tuple[tuple[int, int, str], ...]:
        """Edges (written, read, operation) on a path from input to output; empty where there is none.

        The others reach the output with zeros, or, where a convolution reads zeros, with a constant.
        """
        edges = [
            (*edge, operation) for edge, operation in zip(EDGES, self.operations, strict=True) if operation != "none"
        ]
        fed, used = {0}, {3}
        for written, read, _ in edges:
            if read in fed:
                fed.add(written)
        for written, read, _ in reversed(edges):
            if written in used:
                used.add(read)
        return tuple(edge for edge in edges if edge[1] in fed and edge[0] in used)


@dataclass(frozen=True)
class CellStage:
    """Cells in a row, all the same.

    Args:
        channels: read and written.
        cells: how many.
        cell: what each is made of.
    """

    channels: int
    cells: int
    cell: Cell


@dataclass(frozen=True)
class Reduction:
    """Residual block that halves the map and doubles the channels; its shortcut is a pooling and a 1x1 convolution.

    Args:
        inputs: channels read; twice as many are written.
    """

    inputs: int


@dataclass(frozen=True)
class CellHead:
    """Batch norm, ReLU, global average pooling and the classifier.

    Args:
        inputs: channels read.
        classes: logits written.
        folds: whether the norm is folded into a convolution that alone writes what the head reads.
    """

    inputs: int
    classes: int
    folds: bool


def cell_of_string(text: str) -> Cell:
    """Return the cell that a published string describes.

    Raises:
        ConfigError: it is no such string, or names an operation that does not exist.
    """
    found = _STRING.fullmatch(text.strip())
    if not found:
        raise ConfigError(
            f"'{text}' is no cell of NAS-Bench-201; expected six operations as in "
            f"'{Cell(('nor_conv_3x3', *['skip_connect'] * 5))}'"
        )
    for operation in found.groups():
        if operation not in OPERATIONS:
            raise unknown_name("operation", operation, OPERATIONS)
    return Cell(found.groups())


def cell_of_index(index: int) -> Cell:
    """Return the cell with a published number.

    Raises:
        ConfigError: no cell has it.
    """
    if not 0 <= index < len(_order()):
        raise ConfigError(f"index {index}; expected 0 to {len(_order()) - 1}, the numbers of NAS-Bench-201")
    return Cell(_order()[index])


@cache
def _order() -> tuple[tuple[str, ...], ...]:
    cells = list(itertools.product(OPERATIONS, repeat=len(EDGES)))
    random.Random(_PUBLISHED_SEED).shuffle(cells)
    return tuple(cells)


@cache
def _indices() -> dict[tuple[str, ...], int]:
    return {operations: index for index, operations in enumerate(_order())}
