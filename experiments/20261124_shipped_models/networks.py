"""Published networks as counts of operators, for the calibration of rooflines; joins both wings, as only scripts may."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from latency_models.calibration import Work
from latency_models.encodings import fbnet
from nas.data import Task
from nas.graph import Graph
from search_spaces.nasbench201 import NasBench201

VIEWS = {"flatten", "reshape", "identity"}


def work_of_cells(texts: Sequence[str]) -> Work:
    """Return the work of NAS-Bench-201 networks without dead edges, from the graphs that the search space lowers."""
    space = NasBench201(Task("image_classification", 3, 10), [32], precisions=["fp32"])
    return _counted([_operators(space.lower(space.of_string(text))) for text in texts])


def _operators(graph: Graph) -> list[tuple[int, int]]:
    return [(op.macs, op.activation_bytes + op.weight_bytes) for op in graph.ops if op.kind not in VIEWS]


def work_of_chains(codes: Sequence[Sequence[int]]) -> Work:
    """Return the work of FBNet networks on 224 pixels: stem, 22 places, last convolution, pooling, classifier."""
    blocks = _blocks()
    stem = [*_conv(3, 16, 224, 112, 3), (0, 8 * 112 * 112 * 16)]
    head = [*_conv(352, 1504, 7, 7, 1), (0, 8 * 49 * 1504), (0, 4 * 50 * 1504), (1504 * 1000, 4 * 1504 * 1000)]
    rows = [[*stem, *(op for place, code in enumerate(row) for op in blocks[place][code]), *head] for row in codes]
    return _counted(rows)


def _counted(networks: Sequence[Sequence[tuple[int, int]]]) -> Work:
    places: dict[tuple[int, int], int] = {}
    for operators in networks:
        for operator in operators:
            places.setdefault(operator, len(places))
    counts = np.zeros((len(networks), len(places)))
    for row, operators in enumerate(networks):
        for operator in operators:
            counts[row, places[operator]] += 1
    macs, moved = np.array(list(places), dtype=np.float64).T
    return Work(counts, macs, moved)


def _conv(inputs: int, outputs: int, size: int, after: int, kernel: int, groups: int = 1) -> list[tuple[int, int]]:
    weights = outputs * inputs // groups * kernel**2
    moved = 4 * (prod((size, size, inputs)) + prod((after, after, outputs)) + weights + outputs)
    return [(after * after * weights, moved)]


def _blocks() -> list[list[list[tuple[int, int]]]]:
    """Return operators per place and code: expansion, depthwise convolution and projection, with ReLUs and the sum."""
    found, before, size = [], 16, 112
    for channels, places, first_stride in (
        (16, 1, 1),
        (24, 4, 2),
        (32, 4, 2),
        (64, 4, 2),
        (112, 4, 1),
        (184, 4, 2),
        (352, 1, 1),
    ):
        for index in range(places):
            stride = first_stride if index == 0 else 1
            after, same = size // stride, stride == 1 and before == channels
            choices = []
            for kernel, expansion, groups in fbnet.BLOCKS:
                inner = before * expansion
                choices.append(
                    [
                        *_conv(before, inner, size, size, 1, groups),
                        (0, 8 * size * size * inner),
                        *_conv(inner, inner, size, after, kernel, inner),
                        (0, 8 * after * after * inner),
                        *_conv(inner, channels, after, after, 1, groups),
                        *([(0, 12 * after * after * channels)] if same else []),
                    ]
                )
            skip = [] if same else [*_conv(before, channels, size, after, 1), (0, 8 * after * after * channels)]
            found.append([*choices, skip])
            before, size = channels, after
    return found
