"""Reading any ONNX file as a graph, and what the exporter guarantees to it."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nas.architecture import Precision
from nas.errors import ModelFileError
from nas.quantize.torch_to_onnx import export_fp32
from nas.runtime.onnx_graph import graph_from_onnx


def save(path, nodes, inputs, outputs, initializers, opset=20):
    stored = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    written = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *rest]) for name, rest in outputs.items()]
    graph = helper.make_graph(nodes, "g", described, written, stored)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def qdq(tensor, name):
    return [
        helper.make_node("QuantizeLinear", [tensor, "scale", "zero"], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [name]),
    ]


SCALES = {"scale": np.float32(0.1), "zero": np.uint8(128), "wscale": np.float32(0.1), "wzero": np.int8(0)}


def test_costs_of_a_file_that_nobody_here_made(tmp_path):
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "d"], ["e"], name="depthwise", group=4, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["e"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["y"], name="/head/fc/Gemm"),
    ]
    weights = {
        "w": np.zeros((4, 3, 3, 3), np.float32),
        "b": np.zeros(4, np.float32),
        "d": np.zeros((4, 1, 3, 3), np.float32),
        "g": np.zeros((4, 5), np.float32),
    }
    graph = graph_from_onnx(save(tmp_path / "m.onnx", nodes, {"image": ["n", 3, 8, 8]}, {"y": [5]}, weights))
    assert [op.macs for op in graph.ops] == [27 * 4 * 16, 9 * 4 * 16, 0, 0, 20]
    assert graph.weight_bytes == 4 * (108 + 4 + 36 + 20)
    assert graph.input_shape == (1, 3, 8, 8)
    assert [op.block for op in graph.ops] == ["", "", "", "", "head"]
    assert [op.inputs for op in graph.ops][:3] == [("input",), ("conv",), ("depthwise",)]


def test_products_of_activations_are_matmul_and_of_weights_gemm(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["h"]),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "t"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"a": ["n", 4, 6]}, {"y": [4, 4]}, {"w": np.zeros((6, 8), np.float32)})
    ops = graph_from_onnx(path).ops
    assert [(op.kind, op.macs) for op in ops] == [("gemm", 4 * 6 * 8), ("transpose", 0), ("matmul", 4 * 4 * 8)]


def test_scalars_and_shapes_are_no_weights(tmp_path):
    nodes = [
        helper.make_node("Mul", ["a", "half"], ["b"]),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["y"]),
    ]
    stored = {"half": np.float32(0.5), "shape": np.array([-1, 6]), "bias": np.zeros(6, np.float32)}
    graph = graph_from_onnx(save(tmp_path / "m.onnx", nodes, {"a": ["n", 2, 3]}, {"y": [6]}, stored))
    assert [op.parameters for op in graph.ops] == [0, 0, 6]
    assert graph.ops[1].output_shape == (1, 6)


def test_only_what_is_quantized_on_all_sides_is_int8(tmp_path):
    nodes = [
        *qdq("x", "x1"),
        helper.make_node("DequantizeLinear", ["w", "wscale", "wzero"], ["w1"]),
        helper.make_node("Conv", ["x1", "w1"], ["c"], name="/a/conv/Conv"),
        *qdq("c", "c1"),
        helper.make_node("Sigmoid", ["c1"], ["s"], name="/a/act/Sigmoid"),
        *qdq("s", "s1"),
        helper.make_node("HardSwish", ["s1"], ["h"], name="/b/act/HardSwish"),
        helper.make_node("Conv", ["h", "v"], ["y"], name="/b/conv/Conv"),
    ]
    stored = {**SCALES, "w": np.zeros((4, 3, 1, 1), np.int8), "v": np.zeros((2, 4, 1, 1), np.float32)}
    graph = graph_from_onnx(save(tmp_path / "m.onnx", nodes, {"x": ["n", 3, 5, 5]}, {"y": [None, None, None]}, stored))
    int8, fp32 = Precision.INT8, Precision.FP32
    assert [(op.kind, op.dtype, op.block) for op in graph.ops] == [
        ("conv", int8, "a"),
        ("sigmoid", int8, "a"),
        ("hardswish", fp32, "b"),
        ("conv", fp32, "b"),
    ]
    assert [op.inputs for op in graph.ops] == [
        ("input",),
        ("/a/conv/Conv",),
        ("/a/act/Sigmoid",),
        ("/b/act/HardSwish",),
    ]
    assert graph.weight_bytes == 12 + 4 * 8


def test_integer_operators_are_int8_and_their_scales_no_weights(tmp_path):
    inputs = ["xq", "scale", "zero", "w", "wscale", "wzero", "scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("QLinearConv", inputs, ["c"], name="/a/conv/Conv"),
        helper.make_node("DequantizeLinear", ["c", "scale", "zero"], ["y"]),
    ]
    stored = {**SCALES, "wscale": np.full(4, 0.1, np.float32), "wzero": np.zeros(4, np.int8)}
    stored["w"] = np.zeros((4, 3, 3, 3), np.int8)
    (op,) = graph_from_onnx(
        save(tmp_path / "m.onnx", nodes, {"x": ["n", 3, 5, 5]}, {"y": [None, None, None]}, stored)
    ).ops
    assert (op.kind, op.dtype, op.macs, op.weight_bytes) == ("conv", Precision.INT8, 27 * 4 * 9, 108)


def test_free_sizes_are_asked_for_by_name(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    weights = {"w": np.zeros((2, 3, 1, 1), np.float32)}
    path = save(tmp_path / "m.onnx", nodes, {"x": ["n", 3, "rows", 4]}, {"y": [2, "rows", 4]}, weights)
    with pytest.raises(ModelFileError, match="free size 'rows'"):
        graph_from_onnx(path)
    assert graph_from_onnx(path, sizes={"rows": 6}).macs == 6 * 6 * 4


def test_shapes_that_cannot_be_inferred_are_no_zero(tmp_path):
    nodes = [
        helper.make_node("Mystery", ["x"], ["m"], domain="com.microsoft"),
        helper.make_node("MatMul", ["m", "w"], ["y"], name="product"),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": ["n", 3]}, {"y": [2]}, {"w": np.zeros((3, 2), np.float32)})
    with pytest.raises(ModelFileError, match="product"):
        graph_from_onnx(path)


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_unreadable_files_are_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError):
        graph_from_onnx(path)


class TwoNorms(nn.Module):
    """Two fresh norms, whose equal tensors the exporter would merge."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.RMSNorm(8, eps=1e-6)
        self.second = nn.RMSNorm(8, eps=1e-6)

    def forward(self, x):
        rows = self.norm(self.conv(x)).reshape(-1, 8, 16).transpose(1, 2).reshape(-1, 8)
        return self.second(self.first(rows))


def test_export_folds_batch_norm_and_keeps_rms_norm_whole(tmp_path):
    export_fp32(nn.Sequential(TwoNorms()), tmp_path / "m.onnx", 3, 4, 4)
    graph = graph_from_onnx(tmp_path / "m.onnx")
    assert [op.kind for op in graph.ops] == [
        *("conv", "reshape", "transpose", "reshape", "rmsnormalization", "rmsnormalization"),
    ]
    assert graph.ops[0].weights == {"weight": (8, 3, 1, 1), "bias": (8,)}
    stored = [tensor for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer if tensor.data_type == 1]
    assert len(stored) == 4, "one copy of each tensor per reader"


def test_rms_norm_runs_as_in_torch(tmp_path):
    import onnxruntime

    module = nn.Sequential(TwoNorms())
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    export_fp32(module, tmp_path / "m.onnx", 3, 4, 4)
    images = torch.randn(5, 3, 4, 4)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"input": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(out, module.eval()(images).numpy(), atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_export_leaves_the_module_as_it_was(tmp_path, training):
    module = nn.Sequential(TwoNorms()).train(training)
    module[0].norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_fp32(module, tmp_path / "m.onnx", 3, 4, 4)
    assert module.training == training
    assert not module[0].norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_export_names_input_output_and_a_free_batch(tmp_path):
    export_fp32(nn.Sequential(TwoNorms()), tmp_path / "m.onnx", 3, 4, 4)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["logits"]
    dimensions = graph.input[0].type.tensor_type.shape.dim
    assert dimensions[0].dim_param == "batch"
    assert [dimension.dim_value for dimension in dimensions[1:]] == [3, 4, 4]
