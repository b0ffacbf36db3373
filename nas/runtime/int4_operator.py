"""Our own operator ``hwnas::DequantizeInt4``: 4-bit weights of two-level scales, with a body in ONNX's own operators.

A weight is ``value * (multiplier + 1) * scale``: the value is signed 4 bits, the multiplier unsigned 4 bits and one per
group of the flattened inputs of an output channel, the scale a float per output channel (two-level scaling, Dai et al.
2021, "VS-Quant"). Value times multiplier is a whole number of -128..112, so the weights are exactly 8-bit ones with a
scale per channel: they run on 8-bit kernels, as fast and to the same bytes, and take 4.13 bits each in groups of 32.

The body is stored in the file as a local function. ONNX Runtime inlines it, folds everything before its
DequantizeLinear when a model is loaded, and fuses what remains as it does with 8-bit weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

DOMAIN = "hwnas"
OPERATOR = "DequantizeInt4"
# The first opset with 4-bit tensors, and the first version of the file format that holds them.
OPSET = 21
IR_VERSION = 10
LARGEST_MULTIPLIER = 16


def body(opset: int) -> onnx.FunctionProto:
    """Return the operator as a function of standard operators.

    Inputs: ``values`` of signed 4 bits (outputs, ...), ``multipliers`` of unsigned 4 bits (outputs, groups), less 1,
    ``scales`` of floats (outputs,). Attribute ``group``: weights that share a multiplier. Output: floats of the shape
    of ``values``.

    Args:
        opset: of the model.
    """
    from onnx import AttributeProto, TensorProto, helper

    node = helper.make_node
    group = node("Constant", [], ["group"])
    group.attribute.append(AttributeProto(name="value_int", ref_attr_name="group", type=AttributeProto.INT))
    nodes = [
        group,
        node("Constant", [], ["zero"], value_int=0),
        node("Constant", [], ["one"], value_int=1),
        node("Cast", ["one"], ["one32"], to=TensorProto.INT32),
        node("Cast", ["values"], ["wide"], to=TensorProto.INT32),
        node("Shape", ["values"], ["shape"]),
        node("Flatten", ["wide"], ["rows"], axis=1),
        node("Shape", ["rows"], ["inputs"], start=1),
        node("Squeeze", ["inputs"], ["depth"]),
        node("Range", ["zero", "depth", "one"], ["position"]),
        node("Div", ["position", "group"], ["group_of"]),
        node("Cast", ["multipliers"], ["less_one"], to=TensorProto.INT32),
        node("Add", ["less_one", "one32"], ["factors"]),
        node("Gather", ["factors", "group_of"], ["factor"], axis=1),
        node("Mul", ["rows", "factor"], ["product"]),
        node("Reshape", ["product", "shape"], ["shaped"]),
        node("Cast", ["shaped"], ["bytes"], to=TensorProto.INT8),
        # Without zero points ONNX Runtime would compute a Gemm in float.
        node("Shape", ["scales"], ["outputs"]),
        node("ConstantOfShape", ["outputs"], ["zeros"], value=helper.make_tensor("", TensorProto.INT8, [1], [0])),
        node("DequantizeLinear", ["bytes", "scales", "zeros"], ["weights"], axis=0),
    ]
    inputs = ["values", "multipliers", "scales"]
    return helper.make_function(
        DOMAIN, OPERATOR, inputs, ["weights"], nodes, [helper.make_opsetid("", opset)], ["group"]
    )


def add_operator(model: onnx.ModelProto) -> None:
    """Add the operator to a model, which is raised to the opset and file format of 4-bit tensors where it is below.

    Of the standard operators that these models hold, opset 21 differs from 20 by more types only.
    """
    from onnx import helper

    standard = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    standard.version = max(standard.version, OPSET)
    model.ir_version = max(model.ir_version, IR_VERSION)
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.functions.append(body(standard.version))


def check_operator(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that calls something else by the operator's name.

    Args:
        model: to look at.
        path: for the error's text.

    Raises:
        ModelFileError: its function has another body.
    """
    for function in model.functions:
        if (function.domain, function.name) != (DOMAIN, OPERATOR):
            continue
        opset = function.opset_import[0].version if function.opset_import else OPSET
        if _meaning(function) != _meaning(body(opset)):
            raise ModelFileError(
                f"{path}: its function {DOMAIN}::{OPERATOR} is not the one that is known here; expected the body that "
                "was written at the export. Use runtime=onnxruntime for this model, or export it again."
            )


def expanded(values: NDArray[Any], multipliers: NDArray[Any], group: int) -> NDArray[np.int8]:
    """Return the 8-bit weights of a call, of the shape of ``values``.

    Args:
        values: -8..7 of shape (outputs, ...).
        multipliers: 0..15, one less than they mean, of shape (outputs, groups).
        group: weights that share a multiplier.

    Raises:
        ValueError: the shapes do not belong together.
    """
    rows = values.astype(np.int32).reshape(values.shape[0], -1)
    if group < 1 or multipliers.shape != (len(rows), -(-rows.shape[1] // group)):
        raise ValueError(f"multipliers of shape {multipliers.shape} for weights {values.shape} in groups of {group}")
    factors = np.repeat(multipliers.astype(np.int32) + 1, group, axis=1)[:, : rows.shape[1]]
    return (rows * factors).astype(np.int8).reshape(values.shape)


def packed_tensor(name: str, values: NDArray[Any], signed: bool) -> onnx.TensorProto:
    """Return whole numbers as a tensor of 4 bits each, two to a byte."""
    from onnx import TensorProto, helper

    kind = TensorProto.INT4 if signed else TensorProto.UINT4
    return helper.make_tensor(name, kind, values.shape, packed_halves(values), raw=True)


def packed_halves(values: NDArray[Any]) -> bytes:
    """Return the last 4 bits of whole numbers, two to a byte, the first in the lower half."""
    halves = values.reshape(-1).astype(np.int64) & 15
    if halves.size % 2:
        halves = np.append(halves, 0)
    return (halves[::2] | halves[1::2] << 4).astype(np.uint8).tobytes()


def _meaning(function: onnx.FunctionProto) -> bytes:
    """Return what decides a function's results, in one form."""
    bare = type(function)()
    bare.input.extend(function.input)
    bare.output.extend(function.output)
    bare.attribute.extend(sorted(function.attribute))
    for node in function.node:
        kept = bare.node.add()
        kept.CopyFrom(node)
        kept.ClearField("name")
        kept.ClearField("doc_string")
    meaning: bytes = bare.SerializeToString(deterministic=True)
    return meaning
