"""Files that lie about what they hold, or reach where they should not."""

import resource

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.errors import ModelFileError
from nas.runtime.model_file import check_model_file, tensors
from nas.testing.runtime_suite import write_dense

WEIGHT = np.ones((6, 4), np.float32)


def external(name, **entries):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def save(path, nodes, stored=(), functions=()):
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [], [output], list(stored))
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=domains[: 1 + bool(functions)], functions=functions, ir_version=8)
    path.write_bytes(model.SerializeToString())


def test_a_sound_model_is_returned_parsed(tmp_path):
    write_dense(tmp_path / "m.onnx", WEIGHT)
    model = check_model_file(tmp_path / "m.onnx")
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu"]


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("../w.bin", "leaves the folder"),
        ("a/../../w.bin", "leaves the folder"),
        ("..\\w.bin", "leaves the folder"),
        ("/etc/hostname", "no relative path"),
        ("C:\\w.bin", "no relative path"),
        ("", "no relative path"),
        ("missing.bin", "No such file"),
        ("folder", "no regular file"),
    ],
)
def test_external_data_must_be_a_file_below(tmp_path, location, says):
    (tmp_path / "m" / "folder").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    write_dense(tmp_path / "m" / "m.onnx", WEIGHT, location or "w.bin")
    if not location:
        save(tmp_path / "m" / "m.onnx", [helper.make_node("Identity", ["w"], ["output"])], [external("w")])
    with pytest.raises(ModelFileError, match=says):
        check_model_file(tmp_path / "m" / "m.onnx")


def test_a_linked_folder_is_refused_even_if_it_leads_back(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    write_dense(tmp_path / "m.onnx", WEIGHT, "linked/w.bin")
    with pytest.raises(ModelFileError, match="symbolic link"):
        check_model_file(tmp_path / "m.onnx")
    write_dense(tmp_path / "m.onnx", WEIGHT, "real/w.bin")
    check_model_file(tmp_path / "m.onnx")


def test_a_link_to_the_model_itself_is_fine(tmp_path):
    (tmp_path / "store").mkdir()
    write_dense(tmp_path / "store" / "m.onnx", WEIGHT)
    (tmp_path / "m.onnx").symlink_to(tmp_path / "store" / "m.onnx")
    check_model_file(tmp_path / "m.onnx")


@pytest.mark.parametrize(("offset", "length"), [("0", "999999999999"), ("90", "16"), ("-4", "8"), ("x", "8")])
def test_ranges_beyond_the_data_are_refused(tmp_path, offset, length):
    (tmp_path / "w.bin").write_bytes(bytes(96))
    stored = external("w", location="w.bin", offset=offset, length=length)
    save(tmp_path / "m.onnx", [helper.make_node("Identity", ["w"], ["output"])], [stored])
    with pytest.raises(ModelFileError, match=r"w\.bin"):
        check_model_file(tmp_path / "m.onnx")


def hidden_in_constant(bad):
    return [helper.make_node("Constant", [], ["output"], value=bad)], []


def hidden_in_branch(bad):
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Constant", [], ["b"], value=bad)], "branch", [], [value])
    condition = numpy_helper.from_array(np.array(True), "c")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=condition),
        helper.make_node("If", ["c"], ["output"], then_branch=branch, else_branch=branch),
    ]
    return nodes, []


def hidden_in_function(bad):
    body = [helper.make_node("Constant", [], ["y"], value=bad)]
    function = helper.make_function("local", "f", [], ["y"], body, [helper.make_opsetid("", 17)])
    return [helper.make_node("f", [], ["output"], domain="local")], [function]


@pytest.mark.parametrize("hide", [hidden_in_constant, hidden_in_branch, hidden_in_function])
def test_external_data_is_found_wherever_it_hides(tmp_path, hide):
    nodes, functions = hide(external("bad", location="/etc/hostname"))
    save(tmp_path / "m.onnx", nodes, functions=functions)
    with pytest.raises(ModelFileError, match="/etc/hostname"):
        check_model_file(tmp_path / "m.onnx")


def test_tensors_sees_initializers_and_attributes(tmp_path):
    nodes, _ = hidden_in_branch(numpy_helper.from_array(WEIGHT, "inner"))
    save(tmp_path / "m.onnx", nodes, [numpy_helper.from_array(WEIGHT, "outer")])
    names = {tensor.name for tensor in tensors(onnx.load(tmp_path / "m.onnx"))}
    assert {"inner", "outer", "c"} <= names


def test_claimed_sizes_are_not_allocated(tmp_path):
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40], raw_data=bytes(8))
    node = [helper.make_node("Identity", ["w"], ["output"])]
    save(tmp_path / "dense.onnx", node, [huge])
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [2**40])
    graph = helper.make_graph(node, "g", [], [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)])
    graph.sparse_initializer.append(sparse)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "sparse.onnx").write_bytes(model.SerializeToString())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("dense", "sparse"):
        with pytest.raises(ModelFileError, match=name):
            check_model_file(tmp_path / f"{name}.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("cut", [1, 10, 100, 1000, 5000])
def test_no_truncation_passes_with_other_weights(tmp_path, cut):
    path = tmp_path / "m.onnx"
    write_dense(path, np.ones((64, 64), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.raises(ModelFileError, match=r"m\.onnx"):
        check_model_file(path)


def test_folders_devices_and_missing_files_say_what_they_are(tmp_path):
    with pytest.raises(ModelFileError, match="no regular file"):
        check_model_file(tmp_path)
    with pytest.raises(ModelFileError, match="No such file"):
        check_model_file(tmp_path / "nothing.onnx")


def test_an_inconsistent_graph_is_refused(tmp_path):
    save(tmp_path / "m.onnx", [helper.make_node("Relu", ["nowhere"], ["output"])])
    with pytest.raises(ModelFileError, match="checker"):
        check_model_file(tmp_path / "m.onnx")


def test_ops_of_onnx_runtimes_own_domain_pass(tmp_path):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("input", "output")]
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["input"], ["output"], domain="com.microsoft")], "g", value[:1], value[1:]
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    check_model_file(tmp_path / "m.onnx")
