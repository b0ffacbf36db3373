"""Short names in quantized files: the same network, less that is no number."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from nas.architecture import Precision
from nas.data import Task
from nas.quantize.compact import compact
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.file_parts import file_parts
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from search_spaces.convnet import ConvNet


def made(nodes, tensors=(), inputs=("x",), outputs=("y",)):
    ends = [[helper.make_tensor_value_info(name, 1, ["batch", 2]) for name in names] for names in (inputs, outputs)]
    graph = helper.make_graph(list(nodes), "g", *ends, list(tensors))
    graph.value_info.append(helper.make_tensor_value_info("between_the_two", 1, ["batch", 2]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_names_inside_become_short_and_those_of_the_ends_stay():
    # One end is called as the first short name would be.
    nodes = [
        helper.make_node("Add", ["0", "a_stored_tensor"], ["between_the_two"], "/block/Add", doc_string="where from"),
        helper.make_node("Clip", ["between_the_two", "", "a_stored_tensor_too"], ["y"], "/block/Clip"),
    ]
    tensors = [
        numpy_helper.from_array(np.float32([1, 2]), "a_stored_tensor"),
        numpy_helper.from_array(np.float32(3), "a_stored_tensor_too"),
    ]
    model = made(nodes, tensors, inputs=("0",))
    compact(model)
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    assert [list(node.input) for node in graph.node] == [["0", "1"], ["2", "", "3"]]
    assert [list(node.output) for node in graph.node] == [["2"], ["y"]]
    assert [tensor.name for tensor in graph.initializer] == ["1", "3"]
    assert [node.name for node in graph.node] == ["/block/Add", "/block/Clip"]
    assert not graph.value_info
    assert not graph.node[0].doc_string


def test_a_graph_with_a_graph_inside_keeps_its_names():
    inside = helper.make_graph(
        [helper.make_node("Identity", ["outside_of_it"], ["z"])], "i", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    tensors = [numpy_helper.from_array(np.array(True), "asked")]
    nodes = [
        helper.make_node("Identity", ["x"], ["outside_of_it"]),
        helper.make_node("If", ["asked"], ["y"], then_branch=inside, else_branch=inside),
    ]
    model = made(nodes, tensors)
    compact(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.node[0].output[0] == "outside_of_it"


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_of_a_quantized_network_less_is_no_number_and_nothing_else_changed(tmp_path, kind, monkeypatch):
    torch.manual_seed(0)
    space = ConvNet(Task("image_classification", channels=3, classes=10), [12], precisions=[kind], depths=[1])
    architecture = space.sample(np.random.default_rng(0))
    pictures = np.random.default_rng(1).standard_normal((8, 3, 12, 12), dtype=np.float32)
    export_example(space.build(architecture), tmp_path / "full.onnx", pictures[:1])
    short, long = tmp_path / "short.onnx", tmp_path / "long.onnx"
    quantize_static(tmp_path / "full.onnx", short, pictures, architecture.precision, Precision.FP32)
    monkeypatch.setattr("nas.quantize.static.compact", lambda _model: None)
    quantize_static(tmp_path / "full.onnx", long, pictures, architecture.precision, Precision.FP32)
    assert file_parts(short).numbers == file_parts(long).numbers
    assert file_parts(short).rest < 0.5 * file_parts(long).rest
    for runtime in (OnnxRuntime(), NativeRuntime()):
        ours, theirs = (runtime.load(path).run({"input": pictures})[0] for path in (short, long))
        assert ours.tobytes() == theirs.tobytes()
    assert [node.name for node in onnx.load(short).graph.node] == [node.name for node in onnx.load(long).graph.node]


def test_a_network_that_stays_in_float_is_copied(tmp_path):
    node = helper.make_node("MatMul", ["x", "weights_in_float"], ["y"], "/head/MatMul")
    onnx.save(made([node], [numpy_helper.from_array(np.eye(2, dtype=np.float32), "weights_in_float")]), tmp_path / "a")
    quantize_static(tmp_path / "a", tmp_path / "b", np.ones((2, 2), np.float32), {"head": Precision.FP32})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
