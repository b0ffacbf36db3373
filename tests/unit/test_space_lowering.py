"""The lowered graph repeats the exported file op for op, and modules behave as described."""

import numpy as np
import pytest
import torch

from nas.architecture import Precision
from nas.data import Task
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_fp32
from nas.runtime.onnx_graph import graph_from_onnx
from search_spaces.convnet import ConvNet
from search_spaces.layers import build_block
from search_spaces.lowering import lower_block
from search_spaces.specs import (
    Attention,
    Bottleneck,
    ConvUnit,
    Mlp,
    Network,
    PatchStem,
    PooledHead,
    Residual,
    TokenHead,
)
from search_spaces.transformer import Transformer

TASK = Task("image_classification", channels=3, classes=10)


@pytest.mark.parametrize("space", [ConvNet(TASK, [16]), Transformer(TASK, [16])], ids=["convnet", "transformer"])
def test_every_op_has_the_name_kind_shapes_and_edges_of_its_node(space, tmp_path):
    rng = np.random.default_rng(11)
    for _ in range(4):
        architecture = space.sample(rng)
        export_fp32(space.build(architecture), tmp_path / "x.onnx", 3, 16, 16)
        exported = graph_from_onnx(tmp_path / "x.onnx")
        lowered = space.lower(architecture)
        assert lowered.input_shape == exported.input_shape
        assert len(lowered.ops) == len(exported.ops)
        for ours, theirs in zip(lowered.ops, exported.ops, strict=True):
            assert ours.name == theirs.name
            assert (ours.kind, ours.inputs, ours.block) == (theirs.kind, theirs.inputs, theirs.block)
            assert (ours.input_shapes, ours.output_shape) == (theirs.input_shapes, theirs.output_shape)
            assert sorted(ours.weights.values()) == sorted(theirs.weights.values())
            if ours.kind == "conv":
                assert ours.attributes == theirs.attributes


def test_dtype_is_the_precision_of_the_block():
    space = ConvNet(TASK, [16])
    architecture = space.sample(np.random.default_rng(1))
    assert len(set(architecture.precision.values())) == 2
    for op in space.lower(architecture).ops:
        assert op.dtype is architecture.precision[op.block]


def test_int8_shrinks_weights_but_not_biases():
    arguments = {"stem_widths": [8], "strides": ["12"], "widths": [[8]], "depths": [1], "head_widths": [0]}
    wide = ConvNet(TASK, [16], precisions=["fp32"], **arguments)
    narrow = ConvNet(TASK, [16], precisions=["int8"], **arguments)
    graphs = [space.lower(space.sample(np.random.default_rng(2))) for space in (wide, narrow)]
    assert graphs[0].macs == graphs[1].macs
    biases = sum(op.weights["bias"][0] for op in graphs[0].mac_ops)
    weights = graphs[0].parameters - biases
    assert graphs[0].weight_bytes == 4 * (weights + biases)
    assert graphs[1].weight_bytes == weights + 4 * biases
    assert all(op.dtype is Precision.INT8 for op in graphs[1].ops)


@pytest.mark.parametrize(
    "spec",
    [
        ConvUnit(4, 8, 5, 2, "relu6"),
        Residual(4, 4, 3, 1, "relu"),
        Residual(4, 8, 7, 2, "silu", squeeze=4),
        Bottleneck(4, 4, 4, 3, 1, "hswish"),
        Bottleneck(4, 4, 16, 7, 1, "relu", squeeze=4),
        Bottleneck(4, 8, 16, 5, 2, "relu", fused=True),
        Bottleneck(4, 4, 4, 3, 1, "gelu", squeeze=4, fused=True),
        PooledHead(4, 16, 3, "relu"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("side", [1, 7, 8])
def test_blocks_write_the_shape_that_they_are_lowered_to(spec, side):
    from search_spaces.lowering import lower_network

    graph = lower_network(Network((1, 4, side, side), (("only", spec),)), {})
    assert tuple(build_block(spec)(torch.randn(2, 4, side, side)).shape[1:]) == graph.ops[-1].output_shape[1:]


def test_attention_equals_torch_with_repeated_keys():
    torch.manual_seed(0)
    spec = Attention(width=12, heads=4, kv_heads=2, head_size=5, tokens=9, norm="layernorm")
    block, rows = build_block(spec), torch.randn(3 * 9, 12)
    joint = block.qkv(block.norm(rows)).reshape(3, 9, 8, 5).transpose(1, 2)
    query, key, value = joint[:, :4], joint[:, 4:6], joint[:, 6:]
    key, value = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    expected = rows + block.out(mixed.transpose(1, 2).reshape(27, 20))
    torch.testing.assert_close(block(rows), expected)


def test_pictures_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    space = Transformer(TASK, [16])
    rng = np.random.default_rng(5)
    for _ in range(3):
        module = space.build(space.sample(rng)).eval()
        images = torch.randn(3, 3, 16, 16)
        torch.testing.assert_close(module(images)[1:2], module(images[1:2]), atol=1e-5, rtol=1e-4)


def test_tokens_know_their_place():
    torch.manual_seed(0)
    stem = build_block(PatchStem(channels=3, width=8, patch=4, tokens=4))
    rows = stem(torch.ones(2, 3, 8, 8))
    assert rows.shape == (8, 8)
    torch.testing.assert_close(rows[:4], rows[4:])
    torch.testing.assert_close(rows[1] - rows[0], stem.table[1] - stem.table[0])


@pytest.mark.parametrize("spec", [Mlp(8, 16, "gelu", "rmsnorm"), TokenHead(8, 4, 3, "rmsnorm", "attention")], ids=repr)
def test_token_blocks_keep_the_batch(spec):
    out = build_block(spec)(torch.randn(2 * 4, 8))
    assert out.shape == ((8, 8) if isinstance(spec, Mlp) else (2, 3))


def test_unknown_blocks_say_how_to_register():
    with pytest.raises(TypeError, match=r"build_block\.register"):
        build_block("mystery")
    with pytest.raises(TypeError, match=r"lower_block\.register"):
        lower_block("mystery", None, None)


def test_quantized_file_has_the_precision_and_bytes_that_were_lowered(tmp_path):
    space, rng = ConvNet(TASK, [16], activations=["relu"]), np.random.default_rng(4)
    pictures = rng.standard_normal((8, 3, 16, 16)).astype(np.float32)
    for _ in range(2):
        architecture = space.sample(rng)
        assert len(set(architecture.precision.values())) == 2
        export_fp32(space.build(architecture), tmp_path / "x.onnx", 3, 16, 16)
        quantize_static(tmp_path / "x.onnx", tmp_path / "q.onnx", pictures, architecture.precision)
        quantized, lowered = graph_from_onnx(tmp_path / "q.onnx"), space.lower(architecture)
        assert {op.name: op.dtype for op in quantized.mac_ops} == {op.name: op.dtype for op in lowered.mac_ops}
        assert quantized.macs == lowered.macs
        assert quantized.weight_bytes == lowered.weight_bytes
