"""Our operator and one of a user's own, whose body is an ONNX function, pass the suite that the package ships."""

from __future__ import annotations

import numpy as np
from onnx import helper

from nas.runtime.custom_op import Arrays, CustomOp, Example
from nas.runtime.quantized_program import quantized_program
from nas.testing.custom_op_suite import CustomOpSuite


class TestQuantizedProgram(CustomOpSuite):
    def make_op(self) -> CustomOp:
        return quantized_program()


def _example(rng: np.random.Generator) -> Example:
    return Example([rng.standard_normal((3, int(rng.integers(1, 9))), dtype=np.float32)], {"scale": 0.5})


def _reference(inputs: Arrays, attributes: object) -> Arrays:
    assert isinstance(attributes, dict)
    (x,) = inputs
    return [np.maximum(x * np.float32(attributes["scale"]), np.float32(0))]


class TestOperatorWithAFunction(CustomOpSuite):
    """max(scale * x, 0), in ONNX's operators."""

    def make_op(self) -> CustomOp:
        scale = helper.make_node("Constant", [], ["s"])
        scale.attribute.add(name="value_float", ref_attr_name="scale", type=1)
        nodes = [scale, helper.make_node("Mul", ["x", "s"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
        opsets = [helper.make_opsetid("", 17)]
        function = helper.make_function("my.ops", "ScaledRelu", ["x"], ["y"], nodes, opsets, attributes=["scale"])
        return CustomOp("ScaledRelu", _reference, _example, "my.ops", function=function)
