"""What of a model's file is stored numbers, against a count by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.errors import ModelFileError
from nas.runtime.file_parts import file_parts
from nas.runtime.int4_operator import packed_tensor
from nas.runtime.program_file import write_program


def write(path: Path, name: str = "w") -> Path:
    """Write a product of (batch, 4) with 4x3 floats, and beside it tensors of other types that nothing reads."""
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), name)
    small = packed_tensor("odd", np.array([1, -2, 7]), signed=True)
    shape = helper.make_node("Constant", [], ["shape"], value=helper.make_tensor("", TensorProto.INT64, [2], [-1, 3]))
    nodes = [helper.make_node("MatMul", ["x", name], ["m"]), shape, helper.make_node("Reshape", ["m", "shape"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights, small])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_numbers_are_counted_and_names_are_not(tmp_path):
    parts = file_parts(write(tmp_path / "m.onnx"))
    # 12 floats; three halves of a byte take two bytes; two 64-bit integers of a Constant node.
    assert parts.numbers == 4 * 12 + 2 + 2 * 8
    assert parts.file == (tmp_path / "m.onnx").stat().st_size
    assert parts.rest == parts.file - parts.numbers > 0
    longer = file_parts(write(tmp_path / "long.onnx", "w" * 101))
    assert longer.numbers == parts.numbers
    assert longer.rest == parts.rest + 200 + 1  # the name stands twice; one length takes a second byte


def test_a_planned_program_is_told_by_its_head(tmp_path):
    facts = write_program(write(tmp_path / "m.onnx"), tmp_path / "m.nasq")
    parts = file_parts(tmp_path / "m.nasq")
    assert parts.file == facts["bytes"]
    # Weights and a bias of zeros, each at a multiple of 64 bytes.
    assert parts.numbers == 64 + 4 * 3
    (tmp_path / "cut.nasq").write_bytes((tmp_path / "m.nasq").read_bytes()[:20])
    with pytest.raises(ModelFileError, match="within its head"):
        file_parts(tmp_path / "cut.nasq")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read"):
        file_parts(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelFileError, match="no ONNX"):
        file_parts(tmp_path / "text.onnx")
