"""Our operator ``hwnas.QuantizedProgram``: a planned model as one node of an ONNX graph.

Its kernel is ``kernels/custom_op``, compiled into ``nas/lib/libhwnas_ops.so``; its reference are the portable kernels,
which every other level equals bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nas.runtime.custom_op import DOMAIN, Arrays, CustomOp, Example

QUANTIZED_PROGRAM = "QuantizedProgram"
LIBRARY = Path(__file__).parents[1] / "lib" / "libhwnas_ops.so"


@cache
def quantized_program() -> CustomOp:
    """Return the operator; its attributes are ``program``, a planned model's bytes, and ``batched``.

    Where ``batched`` is 1 the first axis of all inputs and outputs counts inferences that run one after the other.

    Raises:
        ConfigError: the library was not built.
    """
    return CustomOp(QUANTIZED_PROGRAM, _reference, _example, DOMAIN, LIBRARY)


def _reference(inputs: Arrays, attributes: Mapping[str, Any]) -> Arrays:
    from nas import _kernels

    batch = inputs[0].shape[0] if attributes["batched"] else 1
    return _kernels.Program(attributes["program"], "portable").run(list(inputs), batch)


def _example(rng: np.random.Generator) -> Example:
    """Return a quantized convolution of random size and weights, and some pictures for it."""
    from onnx import TensorProto, helper, numpy_helper

    from nas.runtime.plan.model import plan

    inputs, outputs, side, batch = (int(size) for size in rng.integers(1, 9, 4))
    scale_x, scales_w = np.float32(0.03), rng.uniform(0.001, 0.02, outputs).astype(np.float32)
    stored = {
        "scale_x": scale_x,
        "scale_y": np.float32(0.05),
        "zero": np.uint8(rng.integers(0, 256)),
        "w": rng.integers(-127, 128, (outputs, inputs, 3, 3)).astype(np.int8),
        "scales_w": scales_w,
        "zeros_w": np.zeros(outputs, np.int8),
        "bias": rng.integers(-1000, 1000, outputs).astype(np.int32),
        "scales_bias": scale_x * scales_w,
        "zeros_bias": np.zeros(outputs, np.int32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale_x", "zero"], ["qx"]),
        helper.make_node("DequantizeLinear", ["qx", "scale_x", "zero"], ["dx"]),
        helper.make_node("DequantizeLinear", ["w", "scales_w", "zeros_w"], ["dw"], axis=0),
        helper.make_node("DequantizeLinear", ["bias", "scales_bias", "zeros_bias"], ["db"], axis=0),
        helper.make_node("Conv", ["dx", "dw", "db"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "scale_y", "zero"], ["qy"]),
        helper.make_node("DequantizeLinear", ["qy", "scale_y", "zero"], ["y"]),
    ]
    shapes = {"x": [1, inputs, side, side], "y": [1, outputs, side, side]}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    weights = [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()]
    graph = helper.make_graph(nodes, "example", [x], [y], weights)
    program = plan(Path("example"), helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), {})
    pictures = rng.standard_normal((batch, inputs, side, side), dtype=np.float32)
    return Example([pictures], {"program": program.to_bytes(), "batched": 1})
