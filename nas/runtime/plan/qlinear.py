"""QLinear operators, written as the pairs of DequantizeLinear and QuantizeLinear that mean the same.

ONNX Runtime fuses such pairs into these very operators, so that one lowering with one rounding rule serves both forms
of a file. What comes out of an operator here has to be computed in integers or by a table over bytes: where the
planner would take floats instead, which may be a quantum off, it refuses (see ``Node.exact``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

_FEWEST_INPUTS = 5
Writer = Callable[["onnx.NodeProto"], "list[onnx.NodeProto]"]


def expanded(proto: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return a node in plain terms: itself unless it is a QLinear operator that is known and whole."""
    writer = QLINEAR.get((proto.domain if proto.domain != "ai.onnx" else "", proto.op_type))
    # The shortest, a function of one tensor, has bytes, scale and zero point twice, the first time with bytes.
    if writer is None or len(proto.input) < _FEWEST_INPUTS or len(proto.output) != 1:
        return [proto]
    return writer(proto)


def _operands(op_type: str, operands: Sequence[int], result: int, extra: Sequence[int] = (), axis: int = 0) -> Writer:
    """Return the writer of an operator.

    Args:
        op_type: standard operator between the pairs.
        operands: places of the bytes among the inputs, each followed by its scale and zero point.
        result: place of the output's scale, likewise.
        extra: places of inputs that are taken as they are.
        axis: of the second operand's scales.
    """

    def write(proto: onnx.NodeProto) -> list[onnx.NodeProto]:
        from onnx import helper

        attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
        if attributes.pop("channels_last", 0):
            return [proto]
        along = (0 if attributes.get("transB", 0) else 1) if op_type == "Gemm" else axis
        name, output = proto.name or proto.output[0], proto.output[0]
        nodes, inputs = [], []
        for count, place in enumerate(operands):
            inputs.append(f"{output}__float{count}")
            nodes.append(_pair("DequantizeLinear", proto.input[place : place + 3], inputs[-1], name, axis=along))
        inputs += [proto.input[place] for place in extra if place < len(proto.input)]
        quantized = result < len(proto.input) and bool(proto.input[result])
        between = f"{output}__float" if quantized else output
        nodes.append(helper.make_node(op_type, inputs, [between], name, **attributes))
        if quantized:
            nodes.append(_pair("QuantizeLinear", [between, *proto.input[result : result + 2]], output, name))
        return nodes

    return write


def _pair(op_type: str, inputs: Sequence[str], output: str, name: str, **attributes: Any) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node(op_type, list(inputs), [output], f"{name}_{op_type}", **attributes)


def _concat(proto: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Bring every part to the scale of the result, then join bytes."""
    from onnx import helper

    name, output = proto.name or proto.output[0], proto.output[0]
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    nodes, parts = [], []
    for start in range(2, len(proto.input) - 2, 3):
        between = f"{output}__float{start}"
        parts.append(f"{output}__part{start}")
        nodes.append(_pair("DequantizeLinear", proto.input[start : start + 3], between, name))
        nodes.append(_pair("QuantizeLinear", [between, *proto.input[:2]], parts[-1], name))
    return [*nodes, helper.make_node("Concat", parts, [output], name, **attributes)]


_ONE = (0,)
QLINEAR: dict[tuple[str, str], Writer] = {
    ("", "QLinearConv"): _operands("Conv", (0, 3), 6, (8,)),
    ("", "QLinearMatMul"): _operands("MatMul", (0, 3), 6, axis=-1),
    **{
        ("com.microsoft", name): writer
        for name, writer in {
            "QGemm": _operands("Gemm", (0, 3), 7, (6,)),
            "QLinearAdd": _operands("Add", (0, 3), 6),
            "QLinearMul": _operands("Mul", (0, 3), 6),
            "QLinearAveragePool": _operands("AveragePool", _ONE, 3),
            "QLinearConcat": _concat,
            "QLinearGlobalAveragePool": _operands("GlobalAveragePool", _ONE, 3),
            "QLinearLeakyRelu": _operands("LeakyRelu", _ONE, 3),
            "QLinearSigmoid": _operands("Sigmoid", _ONE, 3),
        }.items()
    },
}
