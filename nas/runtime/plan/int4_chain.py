"""Our own operator for 4-bit weights: they are 8-bit ones with a scale per channel as soon as the file was read."""

from __future__ import annotations

import numpy as np

from nas.runtime.int4_operator import OPERATOR, expanded
from nas.runtime.plan.arithmetic import F32
from nas.runtime.plan.planner import Node, Planner, handles
from nas.runtime.plan.program import Grouped
from nas.runtime.plan.values import Stored

_TYPES = ("int4", "uint4", "float32")


@handles(OPERATOR)
def lower_int4_weights(planner: Planner, node: Node) -> None:
    """Expand stored 4-bit weights to 8 bits, and keep what the program's file will hold."""
    values, multipliers, scales = (planner.stored(node, index) for index in range(3))
    if values is None or multipliers is None or scales is None:
        raise planner.refused(node, "expected values, multipliers and scales")
    types = tuple(one.array.dtype.name for one in (values, multipliers, scales))
    if types != _TYPES or scales.array.shape != values.array.shape[:1]:
        raise planner.refused(
            node,
            f"values, multipliers and scales of {types}, {scales.array.size} scales; expected {_TYPES}, one per output",
        )
    group = int(node.get("group", 0))
    try:
        array = expanded(values.array, multipliers.array, group)
    except ValueError as error:
        raise planner.refused(node, str(error)) from error
    scale = np.asarray(scales.array, F32)
    grouped = Grouped(values.array, multipliers.array, group)
    planner.values[node.outputs[0]] = Stored(array, scale, np.zeros(scale.size, np.int32), 0, grouped)
