"""Quantized convolutions of any shape give ONNX Runtime's bytes, on every level; what is not offered is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model

from nas import _kernels
from nas.errors import ModelFileError
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime

LEVELS = [isa for isa in ("portable", "avx2", "avx512_vnni") if isa in _kernels.available_isas()]
# Without VNNI ONNX Runtime's own sums saturate, so there is nothing to equal.
needs_vnni = pytest.mark.skipif(
    "avx512_vnni" not in _kernels.available_isas(), reason="ONNX Runtime is exact only with AVX512-VNNI"
)
few = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Case:
    """A convolution of bytes; ``fill`` says what its numbers are."""

    height: int
    width: int
    channels: int
    outputs: int
    groups: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    zero_in: int
    zero_out: int
    bias: bool
    fill: str
    scale_out: float
    dilations: tuple[int, int] = (1, 1)

    @property
    def sides(self) -> tuple[int, int]:
        """Sides of the result."""
        reach = [dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]
        padded = (self.height + self.pads[0] + self.pads[2], self.width + self.pads[1] + self.pads[3])
        first, second = (
            (side - size) // stride + 1 for side, size, stride in zip(padded, reach, self.strides, strict=True)
        )
        return first, second

    def weights(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return signed bytes, all at one end where the sums shall saturate."""
        shape = (self.outputs, self.channels // self.groups, *self.kernel)
        if self.fill == "random":
            return rng.integers(-128, 128, shape).astype(np.int8)
        return np.full(shape, 127 if self.fill == "high" else -128, np.int8)

    def input(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return floats that reach and pass both ends of the bytes."""
        shape = (1, self.channels, self.height, self.width)
        if self.fill == "random":
            return rng.uniform(-12, 12, shape).astype(np.float32)
        return np.full(shape, 100.0, np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    edges = [draw(st.integers(0, min(2, size - 1))) for size in (*kernel, *kernel)]
    least = [max(1, size - edges[i] - edges[i + 2]) for i, size in enumerate(kernel)]
    height, width = (draw(st.integers(low, low + 7)) for low in least)
    depthwise = draw(st.booleans())
    channels = draw(st.one_of(st.just(1), st.integers(1, 37)))
    return Case(
        *(height, width, channels),
        outputs=channels if depthwise else draw(st.integers(1, 70)),
        groups=channels if depthwise else 1,
        kernel=kernel,
        strides=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        pads=(edges[0], edges[1], edges[2], edges[3]),
        zero_in=draw(st.one_of(st.sampled_from([0, 255]), st.integers(0, 255))),
        zero_out=draw(st.one_of(st.sampled_from([0, 255]), st.integers(0, 255))),
        bias=draw(st.booleans()),
        fill=draw(st.sampled_from(["random", "random", "high", "low"])),
        scale_out=draw(st.sampled_from([1e-3, 0.05, 0.25, 3.0])),
    )


def written(case: Case) -> ModelProto:
    """Return QuantizeLinear, convolution, QuantizeLinear, with a pair of DequantizeLinear between and behind."""
    rng = np.random.default_rng(0)
    weights = case.weights(rng)
    scales = rng.uniform(1e-3, 0.02, case.outputs).astype(np.float32)
    scale_in = np.float32(0.08)
    stored = {
        "sx": scale_in,
        "zx": np.uint8(case.zero_in),
        "w": weights,
        "sw": scales,
        "zw": np.zeros(case.outputs, np.int8),
        "sy": np.float32(case.scale_out),
        "zy": np.uint8(case.zero_out),
    }
    names = ["xd", "wd"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
    ]
    if case.bias:
        stored["b"] = rng.integers(-30000, 30000, case.outputs).astype(np.int32)
        stored["sb"] = scale_in * scales
        stored["zb"] = np.zeros(case.outputs, np.int32)
        nodes.append(helper.make_node("DequantizeLinear", ["b", "sb", "zb"], ["bd"], axis=0))
        names.append("bd")
    window = {"strides": case.strides, "pads": case.pads, "group": case.groups, "dilations": case.dilations}
    nodes += [
        helper.make_node("Conv", names, ["c"], "/the/Conv", kernel_shape=case.kernel, **window),
        helper.make_node("QuantizeLinear", ["c", "sy", "zy"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    shapes = {"x": [1, case.channels, case.height, case.width], "y": [1, case.outputs, *case.sides]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "conv", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# One channel under a window wider than the map, all saturated; a stride beyond the window; 65 outputs of one pixel.
HARD = (
    Case(1, 1, 1, 1, 1, (3, 3), (1, 1), (1, 1, 1, 1), 255, 0, True, "low", 1e-3),
    Case(7, 6, 33, 33, 33, (1, 2), (3, 3), (0, 1, 0, 0), 0, 255, False, "high", 1e-3),
    Case(1, 1, 5, 65, 1, (1, 1), (1, 1), (0, 0, 0, 0), 255, 255, True, "random", 0.05),
)


@needs_vnni
@given(case=cases())
@example(case=HARD[0])
@example(case=HARD[1])
@example(case=HARD[2])
@few
def test_quantized_convolutions_equal_onnx_runtime(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "conv.onnx"
    save_model(written(case), path)
    x = case.input(np.random.default_rng(1))
    (expected,) = OnnxRuntime().load(path).run({"x": x})
    for isa in LEVELS:
        (found,) = NativeRuntime(isa).load(path).run({"x": x})
        assert found.tobytes() == expected.tobytes(), f"{isa}: {int((found != expected).sum())} of {found.size} differ"


@given(case=cases(), dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)))
@few
def test_dilated_convolutions_are_right_or_refused(case: Case, dilations: tuple[int, int], tmp_path: Path) -> None:
    reach = [dilation * (size - 1) + 1 for size, dilation in zip(case.kernel, dilations, strict=True)]
    grown = {"height": case.height + reach[0], "width": case.width + reach[1], "dilations": dilations}
    dilated = Case(**{**vars(case), **grown})
    path = tmp_path / "conv.onnx"
    save_model(written(dilated), path)
    x = dilated.input(np.random.default_rng(1))
    if math.prod(dilations) == 1:
        assert NativeRuntime().load(path).run({"x": x})[0].shape == (1, case.outputs, *dilated.sides)
        return
    with pytest.raises(ModelFileError, match=r"/the/Conv.*dilations"):
        NativeRuntime().load(path)
