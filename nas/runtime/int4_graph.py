"""Nodes with 4-bit weights of ONNX Runtime's and of our own, put in ONNX's own terms so that shapes can be inferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.runtime.int4_operator import DOMAIN, OPERATOR

if TYPE_CHECKING:
    import onnx

    from nas.graph import Shape


def in_plain_terms(model: onnx.ModelProto) -> dict[str, Shape]:
    """Turn MatMulNBits and GatherBlockQuantized into MatMul and Gather of float weights that are not there.

    Our own operator becomes DequantizeLinear.

    Args:
        model: changed in place.

    Returns:
        Name of each such tensor, and of what our own operator gives, to its shape: (inputs, outputs) of a product,
        (rows, width) of a table.
    """
    from onnx import TensorProto, helper

    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    reshaped = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Reshape"}
    made: dict[str, Shape] = {}
    for node in model.graph.node:
        if (node.domain, node.op_type) == (DOMAIN, OPERATOR):
            made[node.output[0]] = sizes.get(node.input[0], ())
            node.op_type, node.domain = "DequantizeLinear", ""
            node.input[:] = [node.input[0], node.input[2]]
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("axis", 0))
            continue
        if node.domain != "com.microsoft" or node.op_type not in ("MatMulNBits", "GatherBlockQuantized"):
            continue
        settings = {item.name: item.i for item in node.attribute}
        name = f"{node.name or node.output[0]}_weight"
        if node.op_type == "MatMulNBits":
            made[name] = (settings.get("K", 0), settings.get("N", 0))
            bias = [node.input[5]] if len(node.input) > 5 and node.input[5] else []
            node.input[:] = [node.input[0], name, *bias]
            node.op_type = "MatMul"
        else:
            *rows, width = sizes.get(reshaped.get(node.input[0], node.input[0]), (0, 0))
            for other in rows[1:]:
                width *= other
            made[name] = (rows[0] if rows else 0, 2 * width)
            node.input[:] = [name, node.input[1]]
            node.op_type = "Gather"
        node.domain = ""
        del node.attribute[:]
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, made[name]))
    return made
