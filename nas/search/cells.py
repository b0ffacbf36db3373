"""Cells of NAS-Bench-201 (Dong and Yang 2020): four nodes, an operation on each of six edges, sums at the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# Edges in the order of the text: node 1 reads node 0; node 2 reads 0 and 1; node 3 reads 0, 1 and 2.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
# The four ways from node 0 to node 3, as edges.
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
_WEIGHED = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}


def parse_cell(text: str) -> tuple[str, ...]:
    """Return the operation on each edge of a text such as ``|nor_conv_3x3~0|+|none~0|none~1|+|...|``.

    Raises:
        ValueError: it does not have six edges, or an operation is unknown.
    """
    words = [word for node in text.split("+") for word in node.strip("|").split("|")]
    operations = tuple(word.partition("~")[0] for word in words)
    if len(operations) != len(EDGES) or not set(operations) <= set(OPERATIONS):
        raise ValueError(f"'{text}' is no cell of six edges with operations of {', '.join(OPERATIONS)}")
    return operations


def live_edges(operations: Sequence[str]) -> tuple[bool, ...]:
    """Return for each edge whether data flows through it from the cell's input to its output."""
    open_paths = [path for path in PATHS if all(operations[edge] != "none" for edge in path)]
    return tuple(any(edge in path for path in open_paths) for edge in range(len(EDGES)))


def live_cell(operations: Sequence[str]) -> dict[str, str]:
    """Return the operations by edge, ``none`` where nothing flows, so that cells that compute the same agree more."""
    live = live_edges(operations)
    return {f"edge{edge}": operations[edge] if live[edge] else "none" for edge in range(len(EDGES))}


def cell_features(operations: Sequence[str]) -> Mapping[str, float]:
    """Return counts of operations that data flows through, in all and along each path, and depths in convolutions."""
    live = live_edges(operations)
    features: dict[str, float] = {}
    for kind in OPERATIONS[1:]:
        features[f"live_{kind}"] = sum(alive and kind == found for alive, found in zip(live, operations, strict=True))
    depths, open_ = [], 0
    for number, path in enumerate(PATHS):
        along = [operations[edge] for edge in path]
        flows = "none" not in along
        open_ += flows
        for kind in OPERATIONS[1:]:
            features[f"path{number}_{kind}"] = along.count(kind) if flows else 0
        depths.append(sum(kind in _WEIGHED for kind in along) if flows else 0)
    features["depth"] = max(depths)
    features["paths"] = open_
    features["depths"] = sum(depths)
    features["residual"] = any(all(operations[edge] == "skip_connect" for edge in path) for path in PATHS)
    features["weight_taps"] = sum(_WEIGHED.get(kind, 0) for kind, alive in zip(operations, live, strict=True) if alive)
    return {name: float(value) for name, value in features.items()}
