"""What the fuzzer of the planner found, one small graph each: all of them are errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas import _kernels
from nas.errors import ModelFileError
from nas.runtime.native import NativeRuntime
from nas.runtime.plan.folding import LARGEST_RESULT, evaluated
from nas.runtime.plan.program import Op, Program, Tensor

LARGEST = 2**63 - 1


def write(path: Path, nodes: list[onnx.NodeProto], shape: list[int], **stored: object) -> Path:
    """A graph from input x to output y of floats."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["free"]),
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        NativeRuntime().load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("shape", [[1, 2**32, 2], [2**20, 2**20, 2**20, 2**20], [1] * 7])
def test_tensors_that_no_program_can_hold(tmp_path: Path, shape: list[int]) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], shape)
    assert f"an input has a tensor of shape {tuple(shape)}; expected at most 6 axes" in refused(path)


def test_a_shape_whose_product_wraps_around(tmp_path: Path) -> None:
    # In 64 bits 3 * (2^63 - 1)^2 is 3.
    node = helper.make_node("Reshape", ["x", "sizes"], ["y"])
    path = write(tmp_path / "m.onnx", [node], [1, 3], sizes=np.array([3, LARGEST, LARGEST]))
    assert "it turns shape (1, 3) into" in refused(path)


def test_sizes_of_another_rank(tmp_path: Path) -> None:
    node = helper.make_node("Split", ["x", "sizes"], ["y", "z"], axis=1)
    assert "its graph is inconsistent" in refused(
        write(tmp_path / "m.onnx", [node], [1, 4], sizes=np.array([[2, 2], [1, 1]]))
    )


@pytest.mark.parametrize(
    ("op_type", "stored"),
    [
        ("ConstantOfShape", {"a": [2**20, 2**20]}),
        ("Expand", {"a": [[1.0]], "b": [2**20, 2**20]}),
        ("Tile", {"a": [[1.0]], "b": [2**20, 2**20]}),
        ("Range", {"a": 0, "b": 2**40, "c": 1}),
        ("Add", {"a": np.zeros((10_000, 1)), "b": np.zeros(10_000)}),
    ],
)
def test_constants_that_would_grow_are_refused_before_they_do(
    tmp_path: Path, op_type: str, stored: dict[str, object]
) -> None:
    arrays = {name: np.asarray(array) for name, array in stored.items()}
    node = helper.make_node(op_type, list(arrays), ["y"])
    with pytest.raises(ValueError, match=f"expected at most {LARGEST_RESULT}"):
        evaluated(node, 20, arrays)
    path = write(tmp_path / "m.onnx", [node], [1], **arrays)
    assert "its constant inputs could not be evaluated: it gives" in refused(path)


def test_constants_are_evaluated() -> None:
    node = helper.make_node("Range", ["a", "b", "c"], ["y"])
    arrays = {"a": np.int64(0), "b": np.int64(5), "c": np.int64(2)}
    (result,) = evaluated(node, 20, {name: np.asarray(array) for name, array in arrays.items()})
    assert result.tolist() == [0, 2, 4]


def test_what_runs_a_graph_of_its_own_or_draws_is_no_constant(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["z"])], "inner", [], [helper.make_tensor_value_info("z", 1, [1])]
    )
    branch = helper.make_node("If", ["sure"], ["y"], then_branch=inner, else_branch=inner)
    path = write(tmp_path / "if.onnx", [branch], [1], sure=True, a=np.zeros(1, np.float32))
    assert "If runs a graph of its own" in refused(path)
    drawn = helper.make_node("RandomNormal", [], ["y"], shape=[2])
    assert "RandomNormal gives other numbers every time" in refused(write(tmp_path / "random.onnx", [drawn], [1]))


def test_too_little_memory_for_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(_kernels, "Program", without)
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 3])
    assert "more memory than there is" in refused(path)


def quantized_product(path: Path, bias_scale: float, bias_zero: int = 0) -> Path:
    """A Gemm between pairs of QuantizeLinear and DequantizeLinear; the sums have a scale of 0.5 * 0.25."""
    stored = {
        **{"s": np.float32(0.5), "z": np.uint8(3), "w": np.arange(12, dtype=np.int8).reshape(3, 4)},
        **{"ws": np.float32(0.25), "wz": np.int8(0), "b": np.array([5, -6, 7], np.int32)},
        **{"bs": np.float32(bias_scale), "bz": np.int32(bias_zero)},
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"]),
        helper.make_node("Gemm", ["xd", "wd", "bd"], ["g"], transB=1),
        helper.make_node("QuantizeLinear", ["g", "s", "z"], ["gq"]),
        helper.make_node("DequantizeLinear", ["gq", "s", "z"], ["y"]),
    ]
    return write(path, nodes, [1, 4], **stored)


def test_a_bias_that_is_not_in_units_of_the_sums(tmp_path: Path) -> None:
    session = NativeRuntime().load(quantized_product(tmp_path / "whole.onnx", 0.125))
    x = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    expected = x @ (0.25 * np.arange(12).reshape(3, 4)).T + 0.125 * np.array([5, -6, 7])
    assert np.abs(session.run({"x": x})[0] - expected).max() <= 0.25
    for scale, zero in ((0.25, 0), (float("nan"), 0), (0.125, 1)):
        path = quantized_product(tmp_path / "other.onnx", scale, zero)
        assert "a bias of other scales; expected those of the sums" in refused(path)


@pytest.mark.parametrize("most", [2**30, 2**40, 2**62])
def test_an_attention_that_claims_a_longer_cache_than_the_other(most: int) -> None:
    def program(longest: int) -> bytes:
        joint = Tensor("f32", (1, 1, 3, 4))
        outputs = [Tensor("f32", (1, 4)) for _ in range(2)]
        ops = [
            Op(
                "attention_cached",
                f"a{i}",
                [joint],
                [out],
                ints=(1, 1, 2 * i, 2 * i + 1, 1, 0, tokens),
                floats=(1.0, 0.0),
            )
            for i, (out, tokens) in enumerate(zip(outputs, (8, longest), strict=True))
        ]
        return Program([joint], outputs, ops).to_bytes()

    assert _kernels.Program(program(16)).most_tokens == 8
    with pytest.raises(ValueError, match=r"operator 'a1' .* do not fit together"):
        _kernels.Program(program(most))
