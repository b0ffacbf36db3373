"""Nodes whose inputs are stored, evaluated when a program is planned; what would not stay small is refused before."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

# Elements of a result: a few bytes of a file may ask for any number of them.
LARGEST_RESULT = 2**26
# Inputs up to this many elements may be sizes on which the result's shape depends.
_SIZES = 64
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def evaluated(node: onnx.NodeProto, opset: int, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the outputs of a node of standard operators.

    Args:
        node: to evaluate.
        opset: version of its operators.
        arrays: by the names of its inputs.

    Raises:
        ValueError: it runs other graphs, draws at random, gives more than 2^26 elements, or cannot be evaluated.
    """
    from onnx.reference import ReferenceEvaluator

    if node.op_type in _RANDOM:
        raise ValueError(f"{node.op_type} gives other numbers every time")
    if any(item.HasField("g") or item.graphs for item in node.attribute):
        raise ValueError(f"{node.op_type} runs a graph of its own")
    for shape in _result_shapes(node, opset, arrays):
        if prod(shape) > LARGEST_RESULT:
            raise ValueError(f"it gives {prod(shape)} elements; expected at most {LARGEST_RESULT}")
    try:
        results = ReferenceEvaluator(node, opsets={"": opset}).run(None, dict(arrays))
    except Exception as error:
        raise ValueError(str(error)) from error
    return [np.asarray(result) for result in results]


def _result_shapes(node: onnx.NodeProto, opset: int, arrays: Mapping[str, NDArray[Any]]) -> list[tuple[int, ...]]:
    """Return the shapes that can be told without evaluating; sizes that stay open are left out."""
    from onnx import TensorProto, helper, numpy_helper, shape_inference

    values, stored = [], []
    for name, array in arrays.items():
        values.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
        if array.size <= _SIZES:
            stored.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
    outputs = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output if name]
    graph = helper.make_graph([node], "one", values, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    shapes = []
    for value in (*inferred.graph.output, *inferred.graph.value_info):
        shapes.append(tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim if axis.HasField("dim_value")))
    return shapes
