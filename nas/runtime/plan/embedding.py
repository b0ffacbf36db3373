"""Rows of tables that are stored in fewer bits, as ``nas.quantize.embedding`` writes them."""

from __future__ import annotations

import numpy as np

from nas.runtime.plan.planner import Node, Planner, handles
from nas.runtime.plan.program import Constant
from nas.runtime.plan.values import Real, Stored


def lower_byte_rows(planner: Planner, node: Node, table: Stored, indices: Real) -> bool:
    """Emit one operator for 8-bit rows that become floats and are scaled, each by its own; False for anything else."""
    cast = planner.only_reader(node.outputs[0], "Cast")
    scaled = planner.only_reader(cast.outputs[0], "Mul") if cast is not None and cast.get("to", 0) == 1 else None
    if cast is None or scaled is None or table.array.dtype != np.int8:
        return False
    other = next((name for name in scaled.inputs if name != cast.outputs[0]), "")
    column = planner.producers.get(other)
    gathered = planner.producers.get(column.inputs[0]) if column is not None and column.op_type == "Unsqueeze" else None
    if column is None or gathered is None or gathered.op_type != "Gather" or gathered.inputs[1] != node.inputs[1]:
        return False
    scales, axes = planner.values.get(gathered.inputs[0]), planner.stored(column, 1)
    rank = len(indices.shape) + 1
    if not isinstance(scales, Stored) or axes is None or [int(axis) % rank for axis in axes.array] != [rank - 1]:
        return False
    if planner.only_reader(gathered.outputs[0], "Unsqueeze") is None or planner.only_reader(other, "Mul") is None:
        return False
    rows, width = table.array.shape
    if scales.array.dtype != np.float32 or scales.array.shape != (rows,):
        return False
    tensor = planner.emit(
        *("gather_s8", node.name, [indices.tensor], "f32", (*indices.shape, width)),
        constants=[Constant("s8", table.array), Constant("f32", scales.array)],
        ints=(rows, width),
    )
    planner.values[scaled.outputs[0]] = Real(tensor, (*indices.shape, width))
    planner.done.update(id(one) for one in (cast, scaled, column, gathered))
    return True


_BITS, _BLOCKS = 4, (16, 32, 64, 128, 256)
_KNOWN = {"gather_axis": (0,), "quantize_axis": (1, -1), "bits": (_BITS,), "block_size": _BLOCKS}
_DEFAULTS = {"gather_axis": 0, "quantize_axis": 1, "bits": _BITS, "block_size": 128}


@handles("GatherBlockQuantized")
def lower_int4_rows(planner: Planner, node: Node) -> None:
    """Take rows of a 4-bit table whose zero point is 8."""
    if unknown := sorted(set(node.attributes) - set(_KNOWN)):
        raise planner.refused(node, f"attribute {', '.join(unknown)} of GatherBlockQuantized is not known")
    given = {name: int(node.get(name, default)) for name, default in _DEFAULTS.items()}
    for name, known in _KNOWN.items():
        if given[name] not in known:
            expected = ", ".join(map(str, known))
            raise planner.refused(node, f"{name}={given[name]} of GatherBlockQuantized; expected {expected}")
    table, scales, zeros = (planner.stored(node, index) for index in (0, 2, 3))
    if zeros is not None and not (zeros.array == 0x88).all():
        raise planner.refused(node, "zero points other than 8 are not offered")
    indices = planner.real(node.inputs[1])
    fits = (
        table is not None and table.array.ndim == 2 and table.array.dtype == np.uint8 and indices.tensor.dtype == "i64"
    )
    if table is None or scales is None or not fits:
        raise planner.refused(node, "expected rows of a stored table of bytes, chosen by 64-bit integers")
    rows, width = table.array.shape[0], 2 * table.array.shape[1]
    if scales.array.dtype != np.float32 or scales.array.shape != (rows, -(-width // given["block_size"])):
        raise planner.refused(node, f"scales {scales.array.dtype} {scales.array.shape} for a table of {rows} x {width}")
    tensor = planner.emit(
        *("gather_int4", node.name, [indices.tensor], "f32", (*indices.shape, width)),
        constants=[Constant("u8", table.array), Constant("f32", scales.array)],
        ints=(rows, width, given["block_size"]),
    )
    planner.values[node.outputs[0]] = Real(tensor, (*indices.shape, width))
