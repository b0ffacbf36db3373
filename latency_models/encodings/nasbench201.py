"""NAS-Bench-201 cells: six edges with one of five operations each, seen as written and as a runtime may run them.

Dong, Yang: NAS-Bench-201, ICLR 2020. Node 0 is the input, node 3 the output; edges run from lower to higher nodes. The
cell stands 5 times at 16 channels and 32 x 32, 5 times at 32 and 16 x 16, 5 times at 64 and 8 x 8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from latency_models.encodings.blocks import Array, Encoding, indicators
from latency_models.tables import Table
from nas.errors import DataError

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NONE, SKIP, CONV1, CONV3, POOL = range(5)
_OUTPUT = 3
_TOKEN = re.compile(r"([a-z0-9_]+)~(\d)")
_STAGES = ((16, 32), (32, 16), (64, 8))
_CELLS_PER_STAGE = 5

Codes = NDArray[np.int64]
Inputs = list[list[tuple[int, int]]]  # per node, (operation, node it reads)


def encode(table: Table) -> Encoding:
    """Return features of ``arch_str``: as written, without dead branches, with constants folded, both, contracted."""
    texts = table.values("arch_str")
    codes = np.array([_codes(text, row) for row, text in enumerate(texts)], dtype=np.int64).reshape(-1, len(EDGES))
    forward, backward, both = _reachable(codes)
    blocks = {
        "written": indicators(codes, len(OPS)),
        "pruned": indicators(backward, len(OPS)),
        "folded": indicators(forward, len(OPS)),
        "live": indicators(both, len(OPS)),
        "written_graph": _of_distinct(codes, contracted=False),
        "pruned_graph": _of_distinct(backward, contracted=False),
        "live_graph": _of_distinct(both, contracted=True),
    }
    return Encoding(blocks, blocks["written"], _work(codes))


def live_text(choices: Mapping[str, object]) -> str:
    """Return the string of the cell that a search space's choices ``node<sink>_from<source>`` make, dead edges none.

    A network that leaves out what its output does not see runs like the cell whose dead edges are ``none``.
    """
    codes = np.array([[OPS.index(str(choices[f"node{sink}_from{source}"])) for source, sink in EDGES]])
    live = _reachable(codes)[2][0]
    words = [f"{OPS[code]}~{source}" for code, (source, _) in zip(live, EDGES, strict=True)]
    return f"|{words[0]}|+|{words[1]}|{words[2]}|+|{words[3]}|{words[4]}|{words[5]}|"


def convolution_macs(text: str) -> int:
    """Return the MACs of the convolutions of all 15 published cells with this string."""
    codes = _codes(text, 0)
    per_cell = sum(9 if code == CONV3 else 1 for code in codes if code in (CONV1, CONV3))
    return per_cell * _CELLS_PER_STAGE * sum(size**2 * channels**2 for channels, size in _STAGES)


def _codes(text: object, row: int) -> list[int]:
    found = _TOKEN.findall(str(text))
    sources = [int(source) for _, source in found]
    if sources != [source for source, _ in EDGES] or any(name not in OPS for name, _ in found):
        raise DataError(
            f"row {row}, column 'arch_str': {text!r} is no NAS-Bench-201 cell; expected "
            f"|op~0|+|op~0|op~1|+|op~0|op~1|op~2| with op in {', '.join(OPS)}."
        )
    return [OPS.index(name) for name, _ in found]


def _reachable(codes: Codes) -> tuple[Codes, Codes, Codes]:
    """Return the cells without edges that read zeros, without edges nobody reads, and without either."""
    rows = len(codes)
    fed, read = np.zeros((rows, 4), dtype=bool), np.zeros((rows, 4), dtype=bool)
    fed[:, 0] = True
    read[:, _OUTPUT] = True
    for edge, (source, sink) in enumerate(EDGES):
        fed[:, sink] |= (codes[:, edge] != NONE) & fed[:, source]
    for edge in (5, 4, 3, 2, 1, 0):
        source, sink = EDGES[edge]
        read[:, source] |= (codes[:, edge] != NONE) & read[:, sink]
    from_input = fed[:, [source for source, _ in EDGES]]
    to_output = read[:, [sink for _, sink in EDGES]]
    return codes * from_input, codes * to_output, codes * (from_input & to_output)


def _of_distinct(codes: Codes, contracted: bool) -> Array:
    distinct, place = np.unique(codes, axis=0, return_inverse=True)
    described = np.array([_describe(cell, contracted) for cell in distinct.tolist()], dtype=np.float64)
    shown: Array = described[place.reshape(-1)]
    return shown


def _inputs(cell: Sequence[int]) -> Inputs:
    nodes: Inputs = [[], [], [], []]
    for operation, (source, sink) in zip(cell, EDGES, strict=True):
        if operation != NONE:
            nodes[sink].append((operation, source))
    return nodes


def _contract(nodes: Inputs) -> int:
    """Replace nodes that are a lone skip by what they skip from, and merge sums into sums; return the output node."""
    same = [0, 1, 2, 3]
    for node in (1, 2, 3):
        nodes[node] = [(operation, same[source]) for operation, source in nodes[node]]
        if len(nodes[node]) == 1 and nodes[node][0][0] == SKIP:
            same[node] = nodes[node][0][1]
            nodes[node] = []
    for node in (2, 3):
        readers = [source for inputs in nodes for _, source in inputs]
        merged = [s for o, s in nodes[node] if o == SKIP and s and nodes[s] and readers.count(s) == 1]
        nodes[node] = [(o, s) for o, s in nodes[node] if s not in merged] + [t for s in merged for t in nodes[s]]
        for source in merged:
            nodes[source] = []
    return same[_OUTPUT]


def _describe(cell: Sequence[int], contracted: bool) -> list[float]:
    """Return counts that do not depend on how the inner nodes are numbered.

    Operations by kind, from the input and into the output; additions and how many of them no convolution can absorb;
    nodes that need a ReLU and those where it can be fused into the sum; chains of two operations; operations that share
    a sink or a source.
    """
    nodes = _inputs(cell)
    output = _contract(nodes) if contracted else _OUTPUT
    kinds, first, last = np.zeros(5), np.zeros(5), np.zeros(5)
    chains, sinks, sources = np.zeros((5, 5)), np.zeros((5, 5)), np.zeros((5, 5))
    readers: list[list[int]] = [[], [], [], []]
    additions = unabsorbed = 0
    for node in (1, 2, 3):
        operations = [operation for operation, _ in nodes[node]]
        convolutions = sum(operation in (CONV1, CONV3) for operation in operations)
        additions += max(len(operations) - 1, 0)
        unabsorbed += max(len(operations) - 1 - convolutions, 0)
        for operation, source in nodes[node]:
            kinds[operation] += 1
            first[operation] += source == 0
            last[operation] += node == _OUTPUT
            readers[source].append(operation)
            for before, _ in nodes[source]:
                chains[before, operation] += 1
        _count_pairs(operations, sinks)
    activated = [[operation in (CONV1, CONV3) for operation in operations] for operations in readers]
    for operations in readers:
        _count_pairs(operations, sources)
    sizes = [len(inputs) for inputs in nodes[1:]]
    triangle = np.triu_indices(4)
    return [
        *kinds[1:],
        *first[1:],
        *last[1:],
        additions,
        unabsorbed,
        sum(size > 0 for size in sizes),
        sum(any(flags) for flags in activated),
        sum(all(flags) for flags in activated[1:] if flags),
        any(activated[0]),
        len(nodes[_OUTPUT]),
        output == 0,
        output == _OUTPUT and not nodes[_OUTPUT],
        *(sizes.count(size) for size in (2, 3, 4)),
        *chains[1:, 1:].ravel(),
        *sinks[1:, 1:][triangle],
        *sources[1:, 1:][triangle],
    ]


def _count_pairs(operations: Sequence[int], counts: Array) -> None:
    for index, one in enumerate(operations):
        for other in operations[:index]:
            counts[min(one, other), max(one, other)] += 1


def _work(codes: Codes) -> Array:
    """Return MACs and bytes of the cells at fp32, every operation run as written; pooling counts 9 adds as MACs."""
    per_op = np.zeros((len(OPS), 2))
    for channels, size in _STAGES:
        pixels = size * size
        moved = 4 * 2 * pixels * channels
        for operation, macs, weights in (
            (SKIP, 0, 0),
            (CONV1, pixels * channels**2, channels**2),
            (CONV3, 9 * pixels * channels**2, 9 * channels**2),
            (POOL, 9 * pixels * channels, 0),
        ):
            per_op[operation] += _CELLS_PER_STAGE * np.array([macs, moved + 4 * weights])
    work: Array = per_op[codes].sum(axis=1)
    return work
