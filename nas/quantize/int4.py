"""Weights in 4 bits: products become MatMulNBits, tables GatherBlockQuantized, both of ONNX Runtime.

Weights are rounded to -8..7 times a scale per group along the inputs, the scale with the least squared error.
Activations stay floats in the file; accuracy level 4 lets a runtime round them to 8 bits per row and group, which is
what makes it fast. A table that is also the weight of a product (a tied language model) is stored once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import CandidateError
from nas.graph import int4_group
from nas.quantize.stored import drop_unread

if TYPE_CHECKING:
    import onnx

_DOMAIN = "com.microsoft"
_ROUND_ACTIVATIONS = 4
# Largest magnitude of a group over its scale, tried with either sign: 8 steps to one side and 7 to the other.
_SPANS = np.concatenate([np.linspace(5.5, 8.5, 13), -np.linspace(5.5, 8.5, 13)]).astype(np.float32)


def quantize_int4(model: onnx.ModelProto, chosen: Collection[str]) -> int:
    """Store the weights of the chosen nodes in 4 bits and return how many nodes changed.

    Gather nodes whose table became 4-bit, because a product shares it, are changed as well, chosen or not.

    Args:
        model: graph with names on its nodes; changed in place.
        chosen: names of nodes; those that are no product with stored float weights, nor rows of such, stay as they are.

    Raises:
        CandidateError: weights whose inputs are no multiple of 16.
    """
    from onnx import helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[tuple[str, bool], _Packed] = {}
    shared = {node.input[1] for node in graph.node if node.name in chosen and _is_product(node, stored)}
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in graph.node:
        chosen_table = _is_table(node, stored) and (node.name in chosen or node.input[0] in shared)
        if node.name in chosen and _is_product(node, stored):
            nodes += _product(node, _packed(graph, stored, made, node.input[1], not _by_output(node)))
        elif chosen_table:
            nodes += _rows(node, _packed(graph, stored, made, node.input[0], False))
        else:
            nodes.append(node)
            continue
        changed += 1
    if changed:
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
        drop_unread(graph)
        if all(entry.domain != _DOMAIN for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return changed


def rounded(weights: NDArray[np.float32], group: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return weights of shape (outputs, inputs) as 0..15 and the scale of each group; 8 stands for zero.

    Args:
        weights: finite.
        group: divides the inputs.
    """
    outputs, inputs = weights.shape
    grouped = weights.reshape(outputs, inputs // group, group)
    largest = np.abs(grouped).max(axis=2, keepdims=True)
    scales = np.ones_like(largest)
    least = np.full_like(largest, np.inf)
    for span in _SPANS:
        tried = np.where(largest > 0, largest / span, np.float32(1)).astype(np.float32)
        error = np.square(np.clip(np.rint(grouped / tried), -8, 7) * tried - grouped).sum(axis=2, keepdims=True)
        better = error < least
        scales, least = np.where(better, tried, scales), np.where(better, error, least)
    values = np.clip(np.rint(grouped / scales), -8, 7) + 8
    return values.astype(np.uint8).reshape(outputs, inputs), scales[:, :, 0].astype(np.float32)


class _Packed:
    """Names of a tensor's 4-bit values and scales, and its sizes."""

    def __init__(self, values: str, scales: str, outputs: int, inputs: int) -> None:
        self.values, self.scales, self.outputs, self.inputs = values, scales, outputs, inputs
        self.group = int4_group(inputs)
        assert self.group is not None


def _packed(
    graph: onnx.GraphProto,
    stored: dict[str, onnx.TensorProto],
    made: dict[tuple[str, bool], _Packed],
    name: str,
    turned: bool,
) -> _Packed:
    from onnx import numpy_helper

    if (name, turned) not in made:
        array = np.asarray(numpy_helper.to_array(stored[name]), np.float32)
        weights = np.ascontiguousarray(array.T) if turned else array
        outputs, inputs = weights.shape
        group = int4_group(inputs)
        if group is None:
            raise CandidateError(
                "error",
                f"weights '{name}' have {inputs} inputs; 4-bit weights need a multiple of 16. Take others, or int8.",
            )
        values, scales = rounded(weights, group)
        packed = (values[:, ::2] | (values[:, 1::2] << 4)).reshape(outputs, inputs // group, group // 2)
        names = f"{name}_int4", f"{name}_int4_scales"
        graph.initializer.append(numpy_helper.from_array(packed, names[0]))
        graph.initializer.append(numpy_helper.from_array(scales, names[1]))
        made[name, turned] = _Packed(*names, outputs, inputs)
    return made[name, turned]


def _product(node: onnx.NodeProto, packed: _Packed) -> list[onnx.NodeProto]:
    from onnx import helper

    settings: dict[str, Any] = {
        **{"K": packed.inputs, "N": packed.outputs, "bits": 4},
        **{"block_size": packed.group, "accuracy_level": _ROUND_ACTIVATIONS},
    }
    bias = ["", "", node.input[2]] if len(node.input) > 2 and node.input[2] else []
    given = [node.input[0], packed.values, packed.scales, *bias]
    return [helper.make_node("MatMulNBits", given, node.output, node.name, domain=_DOMAIN, **settings)]


def _rows(node: onnx.NodeProto, packed: _Packed) -> list[onnx.NodeProto]:
    from onnx import helper

    # As bytes of two, in rows; ONNX Runtime does this once.
    flat, shape = f"{node.output[0]}_int4_rows", f"{node.output[0]}_int4_shape"
    sizes = helper.make_tensor(shape, 7, [2], [packed.outputs, packed.inputs // 2])
    settings: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1, "bits": 4, "block_size": packed.group}
    given = [flat, node.input[1], packed.scales]
    return [
        helper.make_node("Constant", [], [shape], f"{node.name}_shape", value=sizes),
        helper.make_node("Reshape", [packed.values, shape], [flat], f"{node.name}_rows"),
        helper.make_node("GatherBlockQuantized", given, node.output, node.name, domain=_DOMAIN, **settings),
    ]


def _is_product(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> bool:
    """Return whether this is a product of rows with stored float weights, by output or by input."""
    if node.op_type not in ("Gemm", "MatMul") or len(node.input) < 2 or not _is_float_matrix(node.input[1], stored):
        return False
    plain = {item.name: item.f if item.name in ("alpha", "beta") else item.i for item in node.attribute}
    return not plain.get("transA", 0) and plain.get("alpha", 1.0) == 1.0 and plain.get("beta", 1.0) == 1.0


def _by_output(node: onnx.NodeProto) -> bool:
    return any(item.name == "transB" and item.i for item in node.attribute)


def _is_table(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> bool:
    by_rows = all(item.name != "axis" or item.i == 0 for item in node.attribute)
    return node.op_type == "Gather" and by_rows and _is_float_matrix(node.input[0], stored)


def _is_float_matrix(name: str, stored: dict[str, onnx.TensorProto]) -> bool:
    return name in stored and stored[name].data_type == 1 and len(stored[name].dims) == 2
