"""4-bit weights of convolutions: our own operator, what is stored of it, and that it costs and says what int8 does."""

import struct

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from nas import _kernels
from nas.architecture import Precision
from nas.data import Task
from nas.errors import ConfigError, ModelFileError
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.quantize.two_level import GROUP, two_level
from nas.runtime.file_parts import file_parts
from nas.runtime.int4_operator import DOMAIN, IR_VERSION, OPERATOR, OPSET, body, expanded, packed_tensor
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_graph import graph_from_onnx
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.program_file import write_program
from search_spaces.convnet import ConvNet
from search_spaces.hybrid import Hybrid
from search_spaces.toy import Toy

torch.set_num_threads(1)
PICTURES = Task("image_classification", channels=3, classes=10)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (5, 7), (3, 5, 3, 3), (2, 33, 1, 1), (4, 1, 5, 5), (2, 64)]),
    group=st.sampled_from([1, 3, 32, 128]),
    seed=st.integers(0, 2**16),
)
def test_the_body_says_what_our_own_expansion_says(shape, group, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-8, 8, shape)
    multipliers = rng.integers(0, 16, (shape[0], -(-int(np.prod(shape[1:])) // group)))
    scales = rng.uniform(0.01, 1, shape[0]).astype(np.float32)
    tensors = [
        packed_tensor("v", values, signed=True),
        packed_tensor("m", multipliers, signed=False),
        numpy_helper.from_array(scales, "s"),
    ]
    call = helper.make_node(OPERATOR, ["v", "m", "s"], ["y"], domain=DOMAIN, group=group)
    graph = helper.make_graph([call], "g", [], [helper.make_tensor_value_info("y", 1, shape)], tensors)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, functions=[body(OPSET)], opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    ours = expanded(values, multipliers, group)
    assert ours.dtype == np.int8
    assert np.array_equal(
        ours.reshape(shape[0], -1)[:, 0], values.reshape(shape[0], -1)[:, 0] * (multipliers[:, 0] + 1)
    )
    expected = ours.astype(np.float32) * scales.reshape(-1, *[1] * (len(shape) - 1))
    assert np.array_equal(ReferenceEvaluator(model).run(None, {})[0], expected)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {})[0], expected)


def test_rounding_is_exact_where_it_can_be_and_close_to_groups_of_their_own_scale():
    rng = np.random.default_rng(0)
    values, multipliers = rng.integers(-8, 8, (6, 96)), rng.integers(1, 17, (6, 3))
    values[:, ::GROUP], multipliers[:, 0] = -8, 16
    exact = (values * np.repeat(multipliers, GROUP, axis=1)).astype(np.float32) * np.float32(0.25)
    # The scale at which a channel's largest weight is 8 x 16 steps is among those that are tried.
    assert np.abs(two_level(exact).floats - exact).mean() < 0.06 * np.abs(exact).mean()
    weights = rng.standard_normal((40, 32, 3, 3), dtype=np.float32)
    found = two_level(weights)
    assert found.multipliers.max() <= 15
    error = np.square(found.floats - weights).mean()
    by_channel = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 7
    assert error < 0.5 * np.square(np.rint(weights / by_channel) * by_channel - weights).mean()
    assert np.abs(two_level(weights, reduce_range=True).bytes.astype(int)).max() <= 64
    dead = two_level(np.zeros((3, 8), np.float32))
    assert not dead.values.any()
    assert (dead.scales > 0).all()


@pytest.mark.parametrize("own", [False, True])
def test_feedback_lowers_the_error_of_what_the_layer_says(own):
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((8, 72), dtype=np.float32)
    inputs = rng.standard_normal((8 if own else 1, 500, 12)) @ rng.standard_normal((8 if own else 1, 12, 72))
    inputs += 0.3 * rng.standard_normal(inputs.shape)
    covariance = inputs.swapaxes(1, 2) @ inputs / 500
    nearest, fed = two_level(weights), two_level(weights, covariance=covariance if own else covariance[0])

    def error(layer):
        difference = (layer.floats - weights)[:, None, :] @ inputs.swapaxes(1, 2)
        return np.square(difference).mean()

    assert error(fed) < 0.4 * error(nearest)


def exported(space, seed, folder, change=None):
    """Write a drawn network in float and quantized; return architecture, graph and both paths."""
    rng = np.random.default_rng(seed)
    architecture = space.sample(rng)
    torch.manual_seed(seed)
    module = space.build(architecture)
    graph = space.lower(architecture)
    full, small = folder / "full.onnx", folder / "small.onnx"
    export_example(module, full, np.zeros(graph.input_shape, np.float32))
    if change is not None:
        change(full)
    pictures = rng.standard_normal((24, *graph.input_shape[1:]), dtype=np.float32)
    quantize_static(full, small, pictures, architecture.precision, Precision.FP32)
    return architecture, graph, full, small


def differing(small, shape, count=100):
    rng = np.random.default_rng(9)
    ours, theirs = NativeRuntime().load(small), OnnxRuntime().load(small)
    total = 0
    for _ in range(count):
        picture = rng.standard_normal((1, *shape[1:]), dtype=np.float32)
        mine, other = ours.run({"input": picture})[0], theirs.run({"input": picture})[0]
        assert np.abs(other).max() > 0
        total += int((mine.view(np.uint8) != other.view(np.uint8)).sum())
    return total


@pytest.mark.parametrize("seed", range(4))
def test_mixed_convnets_equal_onnxruntime_byte_for_byte(seed, tmp_path):
    space = ConvNet(PICTURES, [12, 16], precisions=["int8", "int4"], depths=[1, 2])
    architecture, graph, full, small = exported(space, seed, tmp_path)
    assert set(architecture.precision.values()) == {Precision.INT8, Precision.INT4}
    assert differing(small, graph.input_shape) == 0
    model = onnx.load(small)
    onnx.checker.check_model(model, full_check=True)
    # The bytes in the file are those that the lowered graph counts, but for odd halves.
    wanted = {op.name: op for op in graph.mac_ops if op.dtype is Precision.INT4}
    packed = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT4}
    assert len(packed) == len(wanted)
    counted = sum(-(-int(np.prod(op.weights["weight"])) // 2) for op in wanted.values())
    assert sum(len(tensor.raw_data) for tensor in packed.values()) == counted
    read = {op.name: op for op in graph_from_onnx(small).mac_ops}
    assert {name: op.dtype for name, op in read.items()} == {op.name: op.dtype for op in graph.mac_ops}
    assert all(read[name].weights["weight"] == op.weights["weight"] for name, op in wanted.items())
    picture = np.random.default_rng(3).standard_normal(graph.input_shape, dtype=np.float32)
    exact, said = (OnnxRuntime().load(path).run({"input": picture})[0] for path in (full, small))
    assert 0 < np.abs(said - exact).max() < 0.5 * np.abs(exact).max()


def test_onnxruntime_runs_the_operators_that_it_runs_in_int8(tmp_path):
    kinds = {}
    for precision in ("int8", "int4"):
        space = ConvNet(PICTURES, [16], precisions=[precision])
        _, _, _, small = exported(space, 5, tmp_path)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])
        kinds[precision] = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds["int8"] == kinds["int4"]
    assert kinds["int4"].count("QLinearConv") > 3


def test_a_hybrid_has_both_kinds_of_4_bit_weights(tmp_path):
    space = Hybrid(PICTURES, [16], precisions=["int4"], patches=[1], layers=[1])
    _, graph, _, small = exported(space, 0, tmp_path)
    found = [node.op_type for node in onnx.load(small).graph.node]
    convolutions = sum(op.kind == "conv" for op in graph.ops)
    assert found.count(OPERATOR) == convolutions > 4
    assert found.count("MatMulNBits") == sum(op.kind == "gemm" for op in graph.ops) > 3
    assert {op.dtype for op in graph_from_onnx(small).mac_ops if "weight" in op.weights} == {Precision.INT4}
    pictures = np.random.default_rng(0).standard_normal((8, *graph.input_shape[1:]), dtype=np.float32)
    mine, other = (runtime.load(small).run({"input": pictures})[0] for runtime in (NativeRuntime(), OnnxRuntime()))
    assert np.abs(mine - other).max() < 0.1 * np.abs(other).max()


def test_a_dead_channel_with_a_large_bias_keeps_its_bias(tmp_path):
    def kill(path):
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor).copy()
            if array.ndim == 4:
                array[1] = 1e-14
            elif array.ndim == 1 and len(array) > 1:
                array[1] = 0.5
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        onnx.save(model, path)

    _, graph, full, small = exported(Toy(PICTURES, [16], precisions=["int4"]), 0, tmp_path, kill)
    assert differing(small, graph.input_shape, 5) == 0
    pictures = np.random.default_rng(0).standard_normal((8, *graph.input_shape[1:]), dtype=np.float32)
    exact, said = (OnnxRuntime().load(path).run({"input": pictures})[0] for path in (full, small))
    assert np.abs(said - exact).max() < 0.2 * np.abs(exact).max()


def test_what_is_not_this_operator_is_refused_by_the_native_runtime(tmp_path):
    _, _, _, small = exported(Toy(PICTURES, [16], precisions=["int4"]), 0, tmp_path)

    def refused(change, part):
        model = onnx.load(small)
        change(model, next(node for node in model.graph.node if node.op_type == OPERATOR))
        onnx.save(model, tmp_path / "bad.onnx")
        with pytest.raises(ModelFileError, match=part):
            NativeRuntime().load(tmp_path / "bad.onnx")

    def other_body(model, _node):
        next(node for node in model.functions[0].node if node.op_type == "Add").op_type = "Sub"

    def other_group(_model, node):
        node.attribute[0].i = 7

    def other_type(model, node):
        graph = model.graph
        values = next(tensor for tensor in graph.initializer if tensor.name == node.input[0])
        values.CopyFrom(numpy_helper.from_array(np.zeros(tuple(values.dims), np.int8), values.name))

    refused(other_body, "is not the one that is known here")
    refused(other_group, "in groups of 7")
    refused(other_type, "expected .*int4")


def test_a_planned_program_keeps_4_bits_and_is_refused_where_they_are_damaged(tmp_path):
    sizes = {}
    for precision in ("int8", "int4"):
        space = ConvNet(PICTURES, [16], precisions=[precision])
        _, _, _, small = exported(space, 5, tmp_path)
        write_program(small, tmp_path / f"{precision}.nasq")
        sizes[precision] = file_parts(tmp_path / f"{precision}.nasq").numbers
    # Beside the weights a program holds biases and tables, and begins each constant at a multiple of 64 bytes.
    assert sizes["int4"] < 0.65 * sizes["int8"]
    whole = (tmp_path / "int4.nasq").read_bytes()
    records = [(index, whole[index + 20 : index + 32]) for index in _records(whole)]
    assert len(records) > 5
    for index, sizes_of in records[:3]:
        for place, number, reason in (
            (0, 0, "4 bits is damaged"),  # no channels
            (4, 0, "4 bits is damaged"),  # no window
            (8, 0, "4 bits is damaged"),  # no group
            (0, 2**32 - 1, "4 bits is damaged"),
            (8, 1, "outside the file|overlap|4 bits"),  # a multiplier for each value
        ):
            changed = bytearray(sizes_of)
            changed[place : place + 4] = struct.pack("<I", number)
            damaged = whole[: index + 20] + bytes(changed) + whole[index + 32 :]
            if number == 1:
                damaged = damaged[: index + 12] + struct.pack("<Q", len(whole) // 64 * 64) + damaged[index + 20 :]
            with pytest.raises(ValueError, match=reason):
                _kernels.Program(damaged)


def _records(program):
    """Return where records of constants of 4 bits begin: their type is 6, their group 32, their places in order."""
    found, expected = [], 0
    for index in range(0, len(program) - 32):
        kind, elements, offset, channels, window, group = struct.unpack_from("<IQQ3I", program, index)
        row = channels * window
        if kind == 6 and group == GROUP and offset >= expected and row and 0 < elements < 2**24 and elements % row == 0:
            found.append(index)
            expected = offset + elements // 2
    return found


def test_precisions_of_a_block_are_checked(tmp_path):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], "/a/Up")
    ends = [helper.make_tensor_value_info(name, 1, ["batch", 1, None, None]) for name in "xy"]
    weights = numpy_helper.from_array(np.ones((1, 1, 2, 2), np.float32), "w")
    model = helper.make_model(
        helper.make_graph([node], "g", ends[:1], ends[1:], [weights]), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 9
    onnx.save(model, tmp_path / "up.onnx")
    with pytest.raises(ConfigError, match="'/a/Up' is a transposed convolution"):
        quantize_static(
            tmp_path / "up.onnx", tmp_path / "q.onnx", np.ones((2, 1, 4, 4), np.float32), {"a": Precision.INT4}
        )
