"""QLinear operators, each alone and whole networks of them, give ONNX Runtime's bytes; others are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from nas import _kernels
from nas.errors import ModelFileError
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.zoo import write_zoo_model

INPUTS = 100
needs_vnni = pytest.mark.skipif(
    "avx512_vnni" not in _kernels.available_isas(), reason="ONNX Runtime is exact only with AVX512-VNNI"
)
X, X2, Y = ("x", "xs", "xz"), ("x2", "xs", "yz"), ("ys", "yz")
MAP = (1, 6, 5, 7)


def stored(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    signed, unsigned = (rng.integers(low, low + 256, (8, 6, 3, 3)) for low in (-128, 0))
    return {
        "xs": np.float32(0.0317),
        "xz": np.uint8(131),
        "ys": np.float32(0.0713),
        "yz": np.uint8(97),
        "ws": (rng.random(8) * 0.01 + 0.001).astype(np.float32),
        "wz": np.zeros(8, np.int8),
        "us": np.float32(0.0041),
        "uz": np.uint8(77),
        "w": signed.astype(np.int8),
        "u": unsigned.astype(np.uint8),
        "depthwise": rng.integers(-127, 128, (6, 1, 3, 3)).astype(np.int8),
        "b": rng.integers(-900, 900, 8).astype(np.int32),
        "m": rng.integers(-128, 128, (6, 8)).astype(np.int8),
        "mu": rng.integers(0, 256, (6, 8)).astype(np.uint8),
        "t": rng.integers(-128, 128, (8, 6)).astype(np.int8),
        "one": np.array(200, np.uint8),
        "sz": np.int8(0),
    }


# Operator, domain, inputs, shape of x, attributes.
MS = "com.microsoft"
CASES: dict[str, tuple[str, str, tuple[str, ...], tuple[int, ...], dict[str, Any]]] = {
    "conv": ("QLinearConv", "", (*X, "w", "ws", "wz", *Y, "b"), MAP, {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "conv_unsigned": ("QLinearConv", "", (*X, "u", "us", "uz", *Y), MAP, {"pads": [1, 1, 1, 1]}),
    "depthwise": ("QLinearConv", "", (*X, "depthwise", "us", "sz", *Y), MAP, {"group": 6}),
    "matmul": ("QLinearMatMul", "", (*X, "m", "ws", "wz", *Y), (5, 6), {}),
    "matmul_unsigned": ("QLinearMatMul", "", (*X, "mu", "us", "uz", *Y), (1, 5, 6), {}),
    "gemm": ("QGemm", MS, (*X, "m", "ws", "wz", "b", *Y), (3, 6), {}),
    "gemm_turned": ("QGemm", MS, (*X, "t", "us", "sz", "", *Y), (3, 6), {"transB": 1}),
    "gemm_floats": ("QGemm", MS, (*X, "t", "us", "sz", "b"), (3, 6), {"transB": 1}),
    "add": ("QLinearAdd", MS, (*X, *X2, *Y), MAP, {}),
    "add_itself": ("QLinearAdd", MS, (*X, "x", "xs", "xz", *Y), MAP, {}),
    "add_one": ("QLinearAdd", MS, (*X, "one", "us", "uz", *Y), MAP, {}),
    "multiply": ("QLinearMul", MS, (*X, *X2, *Y), MAP, {}),
    "multiply_one": ("QLinearMul", MS, ("one", "us", "uz", *X, *Y), MAP, {}),
    "average": ("QLinearAveragePool", MS, (*X, *Y), MAP, {"kernel_shape": [2, 3], "pads": [1, 1, 0, 1]}),
    "global_average": ("QLinearGlobalAveragePool", MS, (*X, *Y), MAP, {}),
    "concat": ("QLinearConcat", MS, (*Y, *X, *X2), MAP, {"axis": 1}),
    "leaky": ("QLinearLeakyRelu", MS, (*X, *Y), MAP, {"alpha": 0.13}),
    "sigmoid": ("QLinearSigmoid", MS, (*X, *Y), MAP, {}),
}


def written(case: str, path: Path) -> tuple[int, ...]:
    op_type, domain, names, shape, attributes = CASES[case]
    constants = stored(np.random.default_rng(3))
    node = helper.make_node(op_type, list(names), ["y"], f"/{case}", domain=domain, **attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.UINT8, shape) for n in ("x", "x2") if n in names]
    floats = op_type == "QGemm" and Y[0] not in names
    output = helper.make_tensor_value_info(
        "y",
        TensorProto.FLOAT if floats else TensorProto.UINT8,
        ["a", "b", "c", "d"][: 2 if op_type == "QGemm" else len(shape)],
    )
    given = [numpy_helper.from_array(np.asarray(constants[n]), n) for n in dict.fromkeys(names) if n in constants]
    graph = helper.make_graph([node], "one", inputs, [output], given)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MS, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return shape


def differing(path: Path, draw: Any, count: int = INPUTS) -> int:
    """Return how many bytes differ over random inputs."""
    native, reference = NativeRuntime().load(path), OnnxRuntime().load(path)
    found = 0
    for seed in range(count):
        given = draw(np.random.default_rng(seed))
        given = {name: given[name] for name in native.inputs}
        for ours, theirs in zip(native.run(given), reference.run(given), strict=True):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            found += int((np.frombuffer(ours.tobytes(), "u1") != np.frombuffer(theirs.tobytes(), "u1")).sum())
    return found


@needs_vnni
@pytest.mark.parametrize("case", CASES)
def test_bytes_of_onnx_runtime(case, tmp_path):
    shape = written(case, tmp_path / "one.onnx")
    assert (
        differing(tmp_path / "one.onnx", lambda rng: {n: rng.integers(0, 256, shape, np.uint8) for n in ("x", "x2")})
        == 0
    )


class Pictures(CalibrationDataReader):
    """Random pictures to calibrate on."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.left = [{"input": rng.standard_normal((1, 3, 32, 32), dtype=np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return self.left.pop() if self.left else None


@needs_vnni
def test_a_network_in_the_operator_format_of_onnx_runtime(tmp_path):
    full, _ = write_zoo_model("mobilenetv2_32", tmp_path)
    path = tmp_path / "operators.onnx"
    quantize_static(
        *(full, path, Pictures()),
        quant_format=QuantFormat.QOperator,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= set(kinds)
    steps = [kind for _, kind, *_ in NativeRuntime().load(path).program({}).steps]
    assert not [kind for kind in steps if kind.endswith("_f32")]
    assert differing(path, lambda rng: {"input": rng.standard_normal((1, 3, 32, 32), dtype=np.float32)}) == 0


@pytest.mark.parametrize(
    ("inputs", "domain", "op_type", "attributes", "message"),
    [
        ((*X, *X2, *Y), "", "QLinearMatMul", {}, "QLinearMatMul|MatMul of these operands is not offered in 8 bits"),
        ((*X, *Y), MS, "QLinearSoftmax", {"opset": 13}, "QLinearSoftmax is not known"),
        ((*X, *Y), MS, "QLinearGlobalAveragePool", {"channels_last": 1}, "QLinearGlobalAveragePool is not known"),
        ((*X, "t", "us", "sz", *Y), "", "QLinearMul", {}, "QLinearMul"),
        ((*X, "b", "us", "uz", *Y), MS, "QLinearAdd", {}, "Add of these operands is not offered in 8 bits"),
    ],
)
def test_what_is_not_offered_is_refused(tmp_path, inputs, domain, op_type, attributes, message):
    constants = stored(np.random.default_rng(3))
    constants["b"] = constants["one"].repeat(6).reshape(6, 1)
    node = helper.make_node(op_type, list(inputs), ["y"], domain=domain, **attributes)
    given = [helper.make_tensor_value_info(n, TensorProto.UINT8, (1, 2, 6, 6)) for n in ("x", "x2") if n in inputs]
    output = helper.make_tensor_value_info("y", TensorProto.UINT8, ["a", "b", "c", "d"])
    kept = [numpy_helper.from_array(np.asarray(constants[n]), n) for n in dict.fromkeys(inputs) if n in constants]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MS, 1)]
    graph = helper.make_graph([node], "one", given, [output], kept)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "one.onnx")
    with pytest.raises(ModelFileError, match=message):
        NativeRuntime().load(tmp_path / "one.onnx")
