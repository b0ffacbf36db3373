"""Products with 4-bit weights: MatMulNBits of ONNX Runtime."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.runtime.plan.arithmetic import Floats
from nas.runtime.plan.planner import Node, Planner, floats_of, handles
from nas.runtime.plan.program import UNARIES, Constant
from nas.runtime.plan.values import Real, Stored

_BLOCKS = (16, 32, 64, 128, 256)
# 8 bits are the least that it asks of the activations; the others are kept in float, as ONNX Runtime does.
_ACCURACY_BYTES, _ACCURACIES = 4, (0, 1, 2, 3, 4)
_KNOWN = {"K", "N", "bits", "block_size", "accuracy_level"}


@handles("MatMulNBits")
def lower_matmul_nbits(planner: Planner, node: Node) -> None:
    """Multiply by grouped 4-bit weights: in integers with accuracy level 4, else by the weights as floats."""
    depth, outputs, block = _checked(planner, node)
    groups = -(-depth // block)
    weights, scales = _array(planner, node, 1, np.uint8), _array(planner, node, 2, np.float32)
    if weights.size != outputs * groups * block // 2 or scales.size != outputs * groups:
        raise planner.refused(
            node, f"{weights.size} bytes and {scales.size} scales do not hold {outputs} x {depth} weights"
        )
    zeros: NDArray[np.uint8] = np.full((outputs, (groups + 1) // 2), 0x88, np.uint8)
    if planner.stored(node, 3) is not None:
        zeros = _array(planner, node, 3, np.uint8)
        if zeros.size != outputs * ((groups + 1) // 2):
            raise planner.refused(node, f"{zeros.size} bytes of zero points; expected {outputs} x {(groups + 1) // 2}")
    bias = floats_of(planner.stored(node, 5), outputs)
    real = planner.plain(planner.as_real(planner.value(node, 0), node.inputs[0]))
    if not real.shape or real.shape[-1] != depth or real.tensor.dtype != "f32" or bias.size != outputs:
        raise planner.refused(node, f"inputs of shape {real.shape}; expected floats, {depth} in the last axis")
    rows, shape = prod(real.shape[:-1]), (*real.shape[:-1], outputs)
    if int(node.get("accuracy_level", 0)) == _ACCURACY_BYTES:
        tensor = planner.emit(
            *("matmul_int4", node.name, [planner.reshaped(real.tensor, (rows, depth))], "f32", (rows, outputs)),
            constants=[Constant("u8", weights), Constant("f32", scales), Constant("u8", zeros), Constant("f32", bias)],
            ints=(block,),
        )
    else:
        floats = unpacked(weights, scales, zeros, outputs, groups, block)[:, :depth]
        tensor = planner.emit(
            *(
                "conv_f32",
                node.name,
                [planner.reshaped(real.tensor, (1, rows, 1, depth))],
                "f32",
                (1, rows, 1, outputs),
            ),
            constants=[Constant("f32", np.ascontiguousarray(floats)), Constant("f32", bias)],
            ints=(1, 1, 1, 1, 0, 0, 0, 0, 1, UNARIES["none"]),
            floats=(0.0, 0.0),
        )
    planner.values[node.outputs[0]] = Real(planner.reshaped(tensor, shape), shape)


def unpacked(
    weights: NDArray[np.uint8], scales: Floats, zeros: NDArray[np.uint8], outputs: int, groups: int, block: int
) -> Floats:
    """Return weights of shape (outputs, groups * block) as floats."""
    values = _halves(weights).reshape(outputs, groups, block)
    offsets = _halves(zeros).reshape(outputs, -1)[:, :groups, None]
    floats = (values - offsets).astype(np.float32) * scales.reshape(outputs, groups, 1)
    return np.asarray(floats.reshape(outputs, groups * block), np.float32)


def _halves(array: NDArray[np.uint8]) -> NDArray[np.int32]:
    return np.stack([array & 15, array >> 4], axis=-1).astype(np.int32).reshape(-1)


def _checked(planner: Planner, node: Node) -> tuple[int, int, int]:
    """Return inputs, outputs and block size; refuse what is not offered by its name."""
    if unknown := sorted(set(node.attributes) - _KNOWN):
        raise planner.refused(node, f"attribute {', '.join(unknown)} of MatMulNBits is not known")
    depth, outputs, block = (int(node.get(name, 0)) for name in ("K", "N", "block_size"))
    wanted = {"bits": (4,), "block_size": _BLOCKS, "accuracy_level": _ACCURACIES}
    for name, known in wanted.items():
        given = int(node.get(name, 4 if name == "bits" else 0))
        if given not in known:
            raise planner.refused(node, f"{name}={given} of MatMulNBits; expected {', '.join(map(str, known))}")
    if depth < 1 or outputs < 1:
        raise planner.refused(node, f"K={depth}, N={outputs}; expected positive numbers")
    if planner.stored(node, 4) is not None:
        raise planner.refused(node, "input g_idx of MatMulNBits (groups in another order) is not offered")
    return depth, outputs, block


def _array(planner: Planner, node: Node, index: int, dtype: type) -> NDArray[Any]:
    stored = planner.stored(node, index)
    if not isinstance(stored, Stored) or stored.scale is not None or stored.array.dtype != dtype:
        found = "nothing" if stored is None else str(stored.array.dtype)
        raise planner.refused(node, f"input {index} of MatMulNBits is {found}; expected {np.dtype(dtype)}")
    return np.ascontiguousarray(stored.array).reshape(-1)
