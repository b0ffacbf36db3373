"""Products with 4-bit weights in the native runtime equal ONNX Runtime's own MatMulNBits, or are refused by name."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas import _kernels
from nas.errors import ModelFileError
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime

# Of the largest output. With accuracy level 4 both round activations to 8 bits by row and block and sum exactly inside
# a block; what differs is the order of the sums over blocks. Otherwise both compute in float.
TOLERANCE = 2e-6
KERNELS = {
    "portable": "int4_f32_portable",
    "avx2": "int4_f32_1x32x8_avx2",
    "avx512vl_vnni": "int4_f32_1x32x8_avx512vlvnni",
    "avx512_vnni": "int4_f32_2x64x8_avx512vnni",
}
LEVELS = [isa for isa in KERNELS if isa in _kernels.available_isas()]


def write(
    path: Path, depth: int, outputs: int, block: int, accuracy: int = 4, parts: str = "", **attributes: int
) -> Path:
    """Write one MatMulNBits with random weights; ``parts``: optional inputs, z(ero points), g(_idx), b(ias)."""
    rng = np.random.default_rng(depth * outputs + block)
    groups = -(-depth // block)
    stored = {
        "w": rng.integers(0, 256, (outputs, groups, block // 2), np.uint8),
        "s": rng.uniform(0.001, 0.05, (outputs * groups,)).astype(np.float32),
        "z": rng.integers(0, 256, (outputs * ((groups + 1) // 2),), np.uint8) if "z" in parts else None,
        "g": np.zeros(groups * block, np.int32) if "g" in parts else None,
        "b": rng.standard_normal(outputs).astype(np.float32) if "b" in parts else None,
    }
    names = [name if array is not None else "" for name, array in stored.items()]
    while not names[-1]:
        names.pop()
    settings = {"K": depth, "N": outputs, "bits": 4, "block_size": block, "accuracy_level": accuracy, **attributes}
    node = helper.make_node("MatMulNBits", ["x", *names], ["y"], "product", domain="com.microsoft", **settings)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", depth]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items() if array is not None]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("parts", ["", "z", "b", "zb"])
def test_equal_to_onnx_runtime(tmp_path, block, parts):
    # Depths that fill their last block and that do not, outputs that fill a tile and that do not.
    for depth, outputs, rows, accuracy in ((256, 64, 1, 4), (block + 8, 70, 3, 4), (96, 33, 5, 0), (256, 17, 1, 1)):
        path = write(tmp_path / "m.onnx", depth, outputs, block, accuracy, parts)
        x = np.random.default_rng(rows).standard_normal((rows, depth), dtype=np.float32)
        ours, theirs = (runtime.load(path).run({"x": x})[0] for runtime in (NativeRuntime(), OnnxRuntime()))
        assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max(), (depth, outputs, accuracy)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("block", [32, 128])
def test_every_level_gives_the_same_bytes_with_the_kernel_of_its_name(tmp_path, isa, block):
    path = write(tmp_path / "m.onnx", 200, 130, block, parts="zb")
    session = NativeRuntime(isa).load(path)
    assert [kernel for *_, kernel, _, _ in session.program({}).steps] == [KERNELS[isa]]
    x = np.random.default_rng(0).standard_normal((5, 200), dtype=np.float32)
    x[2] = 0.0
    assert session.run({"x": x})[0].tobytes() == NativeRuntime("portable").load(path).run({"x": x})[0].tobytes()


@pytest.mark.parametrize(
    ("attributes", "parts", "reason"),
    [
        ({"bits": 8}, "", r"node 'product': bits=8 of MatMulNBits; expected 4"),
        ({"block_size": 512}, "", r"block_size=512 of MatMulNBits; expected 16, 32, 64, 128, 256"),
        ({"accuracy_level": 7}, "", r"accuracy_level=7 of MatMulNBits; expected 0, 1, 2, 3, 4"),
        ({"weight_prepacked": 1}, "", r"attribute weight_prepacked of MatMulNBits is not known"),
        ({}, "g", r"input g_idx of MatMulNBits \(groups in another order\) is not offered"),
        ({"N": 63}, "", r"bytes and .* scales do not hold 63 x 64 weights"),
        ({"K": 0}, "", r"K=0, N=64; expected positive numbers"),
    ],
)
def test_refused_by_name(tmp_path, attributes, parts, reason):
    path = write(tmp_path / "m.onnx", 64, 64, 32, parts=parts, **attributes)
    with pytest.raises(ModelFileError, match=reason):
        NativeRuntime().load(path)
