"""Weights of 4 bits as a precision of a block: what is stored, how many bytes it takes, and what it says."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nas.architecture import Precision
from nas.data import Task
from nas.errors import CandidateError, ConfigError
from nas.graph import int4_group
from nas.quantize.int4 import quantize_int4, rounded
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_graph import graph_from_onnx
from nas.runtime.onnx_runtime import OnnxRuntime
from search_spaces.decoder import Decoder
from search_spaces.transformer import Transformer

torch.set_num_threads(1)
TEXTS = Task("text_classification", channels=0, classes=10, vocabulary=90)
PICTURES = Task("image_classification", channels=1, classes=10)
SMALL = {
    **{"widths": [32], "depths": [2], "heads": [4], "kv_heads": [2], "head_sizes": [32], "mlp_ratios": [4]},
    **{"activations": ["gelu"], "norms": ["layernorm"]},
}
MIXED = {
    "stem": "int4",
    "layer0_attention": "int4",
    "layer0_mlp": "int8",
    "layer1_attention": "fp32",
    "layer1_mlp": "int4",
}


def test_groups_are_the_largest_that_divide():
    assert [int4_group(inputs) for inputs in (384, 128, 96, 48, 16, 24)] == [128, 128, 32, 16, 16, None]


def test_rounding_is_better_than_the_plain_span_and_exact_where_it_can_be():
    weights = np.random.default_rng(0).standard_normal((40, 64), dtype=np.float32)
    values, scales = rounded(weights, 32)
    error = np.square((values.astype(np.float32) - 8) * np.repeat(scales, 32, axis=1) - weights).mean()
    plain = np.repeat(np.abs(weights.reshape(40, 2, 32)).max(axis=2) / 7, 32, axis=1)
    assert error < 0.85 * np.square(np.clip(np.rint(weights / plain), -8, 7) * plain - weights).mean()
    assert values.max() <= 15
    zeros, ones = rounded(np.zeros((2, 16), np.float32), 16)
    assert (zeros == 8).all()
    assert np.isfinite(ones).all()
    grid = np.tile(np.arange(-8, 8, dtype=np.float32), (3, 1)) * np.float32(0.25)
    values, scales = rounded(grid, 16)
    assert np.allclose((values.astype(np.float32) - 8) * scales, grid, atol=1e-6)


def network(tmp_path, precision, classes=10):
    """Write a text classifier and its quantized form; return space, architecture and both paths."""
    space = Transformer(TEXTS, lengths=[8], precisions=["fp32", "int8", "int4"], poolings=["attention"], **SMALL)
    drawn = space.sample(np.random.default_rng(0))
    architecture = type(drawn)(drawn.space, drawn.choices, {**drawn.precision, **precision})
    space.check(architecture)
    torch.manual_seed(0)
    module = space.build(architecture)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
    full, small = tmp_path / "full.onnx", tmp_path / "small.onnx"
    tokens = np.random.default_rng(1).integers(0, 90, (16, 8))
    export_example(module, full, tokens[:1])
    quantize_static(full, small, tokens, architecture.precision, Precision.FP32)
    return space, architecture, full, small


def test_a_mixed_network_stores_what_was_asked_and_runs_everywhere(tmp_path):
    precision = {block: Precision(name) for block, name in {**MIXED, "head": "int4"}.items()}
    space, architecture, full, small = network(tmp_path, precision)
    model = onnx.load(small)
    four_bits = {node.name for node in model.graph.node if node.op_type == "MatMulNBits"}
    assert four_bits == {
        *("/layer0_attention/qkv/Gemm", "/layer0_attention/out/Gemm", "/layer1_mlp/fc1/Gemm", "/layer1_mlp/fc2/Gemm"),
        *("/head/score/MatMul", "/head/classifier/Gemm"),
    }
    assert [node.name for node in model.graph.node if node.op_type == "GatherBlockQuantized"] == ["/stem/embed/Gather"]
    # The real bytes of 4-bit values are those that the lowered graph counts.
    packed = sum(
        numpy_helper.to_array(tensor).nbytes
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.UINT8 and len(tensor.dims) == 3
    )
    lowered = space.lower(architecture)
    weights = [op for op in lowered.ops if "weight" in op.weights and op.kind in ("gemm", "gather")]
    assert packed == sum(np.prod(op.weights["weight"]) // 2 for op in weights if op.dtype is Precision.INT4)
    read = graph_from_onnx(small)
    found = {
        op.name: (op.kind, op.dtype, op.weights["weight"], op.macs) for op in read.ops if op.dtype is Precision.INT4
    }
    expected = {
        op.name: (op.kind, op.dtype, op.weights["weight"], op.macs) for op in weights if op.dtype is Precision.INT4
    }
    assert {name: (*one[:2], sorted(one[2]), one[3]) for name, one in found.items()} == {
        name: (*one[:2], sorted(one[2]), one[3]) for name, one in expected.items()
    }
    # In one group for 128 inputs, four for 32 inputs each.
    groups = {
        node.name: next(a.i for a in node.attribute if a.name == "block_size")
        for node in model.graph.node
        if a_int4(node)
    }
    assert groups["/layer0_attention/out/Gemm"] == groups["/layer1_mlp/fc2/Gemm"] == 128
    assert groups["/layer0_attention/qkv/Gemm"] == groups["/stem/embed/Gather"] == 32
    tokens = np.random.default_rng(2).integers(0, 90, (6, 8))
    exact, said = (OnnxRuntime().load(path).run({"input": tokens})[0] for path in (full, small))
    ours = NativeRuntime().load(small).run({"input": tokens})[0]
    assert 0 < np.abs(said - exact).max() < 0.25 * np.abs(exact).max()
    assert np.abs(ours - said).max() < 0.02 * np.abs(said).max()


def a_int4(node):
    return node.op_type in ("MatMulNBits", "GatherBlockQuantized")


def test_a_tied_table_is_stored_once(tmp_path):
    task = Task("language_model", channels=0, classes=90, vocabulary=90)
    space = Decoder(task, contexts=[12], prompt=6, embeddings=["tied"], precisions=["int4"], **SMALL)
    architecture = space.sample(np.random.default_rng(0))
    assert architecture.precision["shared_stem"] is Precision.FP32
    export_example(space.build(architecture), tmp_path / "full.onnx", np.zeros((1, 6), np.int64))
    tokens = np.random.default_rng(1).integers(0, 90, (4, 6))
    quantize_static(tmp_path / "full.onnx", tmp_path / "small.onnx", tokens, architecture.precision, Precision.FP32)
    model = onnx.load(tmp_path / "small.onnx")
    tables = [tensor for tensor in model.graph.initializer if 90 in tensor.dims and len(tensor.dims) > 1]
    assert sorted(tuple(tensor.dims) for tensor in tables) == [(90, 1), (90, 1, 16)]


def test_refusals_say_why(tmp_path):
    with pytest.raises(ConfigError, match=r"widths may be 24; weights of int4 need a multiple of 16"):
        Transformer(TEXTS, lengths=[8], precisions=["int4"], **{**SMALL, "widths": [32, 24]})
    with pytest.raises(ConfigError, match=r"heads times head_sizes may be 8"):
        Transformer(
            TEXTS, lengths=[8], precisions=["int4"], **{**SMALL, "heads": [1], "kv_heads": [1], "head_sizes": [8]}
        )
    weights = numpy_helper.from_array(np.ones((24, 4), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "/a/MatMul")
    ends = [onnx.helper.make_tensor_value_info(name, 1, None) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weights]))
    with pytest.raises(CandidateError, match="'w' have 24 inputs; 4-bit weights need a multiple of 16"):
        quantize_int4(model, {"/a/MatMul"})


def test_patches_and_tokens_may_both_have_4_bits():
    space = Transformer(PICTURES, resolutions=[8], patches=[2], precisions=["int8", "int4"], poolings=["mean"], **SMALL)
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(12)]
    for block in ("stem", "head"):
        assert {str(one.precision[block]) for one in drawn} == {"int8", "int4"}
    assert space.size() == 2**6


def test_defaults_do_not_offer_it():
    assert "int4" not in Transformer(TEXTS, lengths=[8]).precisions
