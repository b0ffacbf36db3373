"""Quantized files: which nodes become int8, and that nothing but them does."""

import logging
import warnings
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.architecture import Precision
from nas.errors import CandidateError, ConfigError, ModelFileError
from nas.quantize.static import block_of, needs_reduced_range, quantize_static, quantized_nodes
from nas.runtime.onnx_runtime import OnnxRuntime

INT8, FP32 = Precision.INT8, Precision.FP32
RNG = np.random.default_rng(0)
PICTURES = RNG.standard_normal((24, 4, 8, 8)).astype(np.float32)


class Net:
    """Writes small networks node by node."""

    def __init__(self):
        self.nodes, self.stored, self.last = [], [], "input"

    def weight(self, *shape):
        name = f"w{len(self.stored)}"
        values = RNG.standard_normal(shape).astype(np.float32) * 0.3
        self.stored.append(numpy_helper.from_array(values, name))
        return name

    def add(self, op, name, *inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.last, *inputs], [output], name, **attributes))
        self.last = output
        return self

    def conv(self, block, channels=4):
        weight, bias = self.weight(channels, 4, 3, 3), self.weight(channels)
        self.add("Conv", f"/{block}/conv/Conv", weight, bias, pads=[1, 1, 1, 1])
        return self.add("Relu", f"/{block}/act/Relu")

    def save(self, path, shape):
        values = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])]
        self.nodes[-1].output[0] = "logits"
        result = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "net", values, result, self.stored)
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        )
        onnx.save(model, path)
        return path


@pytest.fixture
def convnet(tmp_path):
    net = Net().conv("stem").conv("a").conv("b").conv("c")
    net.add("GlobalAveragePool", "/head/GlobalAveragePool").add("Flatten", "/head/Flatten", axis=1)
    net.add("Gemm", "/head/fc/Gemm", net.weight(4, 10), net.weight(10))
    return net.save(tmp_path / "fp32.onnx", PICTURES.shape[1:])


@pytest.fixture
def mlp(tmp_path):
    """Token-wise layers as in a transformer block: weight MatMul, product of activations, Add."""
    net = Net()
    net.add("MatMul", "/block/up/MatMul", net.weight(8, 16))
    up = net.last
    net.add("Transpose", "/block/Transpose", perm=[0, 2, 1])
    net.add("MatMul", "/block/MatMul", up).add("Softmax", "/block/Softmax", axis=-1)
    net.add("MatMul", "/block/down/MatMul", net.weight(16, 8)).add("Add", "/block/Add", net.weight(8))
    return net.save(tmp_path / "mlp.onnx", (6, 8))


def optimized(path, tmp_path):
    """Kinds of the nodes that ONNX Runtime will run, by block."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(tmp_path / "optimized.onnx").graph.node


def run(path, pictures=PICTURES):
    return OnnxRuntime().load(path).run({"input": pictures})[0]


def test_precision_genes_decide_what_is_int8(convnet, tmp_path):
    target = tmp_path / "q.onnx"
    quantize_static(convnet, target, PICTURES, {"a": INT8, "b": FP32, "c": INT8}, default=FP32)
    convolutions = {block_of(node.name): node.op_type for node in optimized(target, tmp_path) if "Conv" in node.op_type}
    assert convolutions["a"] == convolutions["c"] == "QLinearConv"
    assert "QLinear" not in convolutions["stem"] + convolutions["b"]


def test_no_stray_conversions_remain(convnet, tmp_path):
    target = tmp_path / "q.onnx"
    quantize_static(convnet, target, PICTURES, {"a": INT8, "b": FP32, "c": INT8}, default=FP32)
    kinds = Counter(node.op_type for node in optimized(target, tmp_path))
    # fp32 | int8 | fp32 | int8 | fp32: each island of int8 is entered once and left once.
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (2, 2)
    quantize_static(convnet, target, PICTURES, {}, default=INT8)
    kinds = Counter(node.op_type for node in optimized(target, tmp_path))
    assert kinds["QLinearConv"] == 4
    assert kinds["Conv"] == kinds["Gemm"] == kinds["Relu"] == 0
    assert kinds["QuantizeLinear"] == 1
    assert kinds["DequantizeLinear"] <= 1


def test_weights_are_signed_per_channel_and_activations_unsigned(convnet, tmp_path):
    target = tmp_path / "q.onnx"
    quantize_static(convnet, target, PICTURES, {})
    graph = onnx.load(target).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [values for values in stored.values() if values.dtype == np.int8 and values.ndim == 4]
    assert len(weights) == 4
    dequantize = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    scales = [stored[node.input[1]] for node in dequantize if stored[node.input[0]].ndim == 4]
    assert all(scale.shape == (4,) for scale in scales)
    zeros = [stored[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}


def test_result_is_close_to_fp32_and_smaller(convnet, tmp_path):
    target = tmp_path / "q.onnx"
    quantize_static(convnet, target, PICTURES, {})
    exact, rounded = run(convnet), run(target)
    assert np.linalg.norm(exact - rounded) < 0.05 * np.linalg.norm(exact)
    assert np.abs(exact - rounded).max() > 0


def test_all_fp32_is_the_fp32_file(convnet, tmp_path):
    target = tmp_path / "q.onnx"
    quantize_static(convnet, target, PICTURES, {"a": FP32, "b": FP32}, default=FP32)
    assert target.read_bytes() == convnet.read_bytes()


def test_in_attention_only_weights_are_quantized(mlp, tmp_path):
    assert quantized_nodes(onnx.load(mlp), {}) == ["/block/up/MatMul", "/block/down/MatMul"]
    tokens = RNG.standard_normal((16, 6, 8)).astype(np.float32)
    quantize_static(mlp, tmp_path / "q.onnx", tokens, {"block": INT8}, default=FP32)
    kinds = Counter(node.op_type for node in optimized(tmp_path / "q.onnx", tmp_path))
    assert kinds["MatMulIntegerToFloat"] == 2
    assert kinds["Softmax"] == 1
    assert kinds["QLinearSoftmax"] == kinds["QLinearAdd"] == kinds["QLinearMatMul"] == 0
    exact, rounded = run(mlp, tokens), run(tmp_path / "q.onnx", tokens)
    assert np.linalg.norm(exact - rounded) < 0.05 * np.linalg.norm(exact)


def test_nodes_without_a_path_follow_what_feeds_them():
    net = Net().conv("a")
    left = net.last
    net.conv("b").add("Add", "/Add", left).add("Relu", "").add("Relu", "")
    model = helper.make_model(helper.make_graph(net.nodes, "net", [], [], net.stored))
    both = quantized_nodes(model, {"a": INT8, "b": INT8}, default=FP32)
    assert "/Add" in both
    assert len(both) == len(set(both)) == 7  # the two nameless ones got names of their own
    assert "/Add" not in quantized_nodes(model, {"a": INT8, "b": FP32}, default=FP32)
    assert "/Add" in quantized_nodes(model, {"a": INT8, "b": FP32}, default=INT8)


def test_a_graph_without_weights_to_quantize_stays_float():
    net = Net().conv("a").add("Add", "/tail/Add", "input")
    model = helper.make_model(helper.make_graph(net.nodes, "net", [], [], net.stored))
    assert quantized_nodes(model, {"a": FP32, "tail": INT8}, default=FP32) == []


@pytest.mark.parametrize(
    ("name", "block"),
    [("/stage1_block0/conv/Conv", "stage1_block0"), ("head/Gemm", "head"), ("/Add_1", ""), ("Conv_3", ""), ("", "")],
)
def test_blocks_are_read_from_node_names(name, block):
    assert block_of(name) == block


def test_the_quantizer_is_silent_and_leaves_nothing_behind(convnet, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_static(convnet, tmp_path / "q.onnx", PICTURES, {})
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    logging.getLogger().warning("still heard")
    assert [record.message for record in caplog.records] == ["still heard"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp32.onnx", "q.onnx"]


def test_activations_that_are_not_finite_fail_as_nan(convnet, tmp_path):
    pictures = PICTURES.copy()
    pictures[3, 0, 0, 0] = np.nan
    with pytest.raises(CandidateError) as failure:
        quantize_static(convnet, tmp_path / "q.onnx", pictures, {})
    assert failure.value.kind == "nan"
    assert not (tmp_path / "q.onnx").exists()


def test_refusals_name_what_was_given(convnet, tmp_path):
    with pytest.raises(ConfigError, match="block 'default' asks for fp16"):
        quantize_static(convnet, tmp_path / "q.onnx", PICTURES, {}, Precision.FP16)
    with pytest.raises(ConfigError, match=r"calibration has shape \(0, 4, 8, 8\)"):
        quantize_static(convnet, tmp_path / "q.onnx", PICTURES[:0], {})
    with pytest.raises(ModelFileError, match=r"missing\.onnx"):
        quantize_static(tmp_path / "missing.onnx", tmp_path / "q.onnx", PICTURES, {})


def test_reduced_range_keeps_weights_to_seven_bits(convnet, tmp_path):
    quantize_static(convnet, tmp_path / "q.onnx", PICTURES, {}, reduce_range=True)
    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer]
    assert max(int(np.abs(values.astype(int)).max()) for values in stored if values.dtype == np.int8) <= 64


def test_reduced_range_is_for_x86_without_vnni():
    assert needs_reduced_range("x86_64", ("avx2",))
    assert not needs_reduced_range("x86_64", ("avx2", "avx_vnni"))
    assert not needs_reduced_range("aarch64", ("asimd",))
