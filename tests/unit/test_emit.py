"""Untrained files are, node for node, what the exporter and the quantizer make of the built network."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from nas.config.campaign import write_untrained
from nas.data import Task
from nas.errors import CandidateError
from nas.graph import Graph, Op
from nas.quantize.emit import emit_fp32
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_graph import graph_from_onnx
from nas.runtime.onnx_runtime import OnnxRuntime
from search_spaces.convnet import ConvNet
from search_spaces.hybrid import Hybrid
from search_spaces.transformer import Transformer

TASK = Task("image_classification", channels=3, classes=10)
TEXTS = Task("text_classification", channels=0, classes=4, vocabulary=50)
SPACES = {
    "convnet": ConvNet(TASK, [16]),
    "hybrid": Hybrid(TASK, [16]),
    "transformer": Transformer(TASK, [16]),
    "texts": Transformer(TEXTS, lengths=[8]),
}


def described(path: Path) -> list[tuple[object, ...]]:
    return [
        (op.name, op.kind, op.inputs, op.input_shapes, op.output_shape, op.dtype, sorted(op.weights.values()), op.block)
        for op in graph_from_onnx(path).ops
    ]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node if node.op_type != "Constant")


@pytest.mark.parametrize("name", SPACES)
def test_an_untrained_file_has_the_operators_of_the_exported_one(name: str, tmp_path: Path) -> None:
    space, rng = SPACES[name], np.random.default_rng(5)
    for _ in range(2):
        architecture = space.sample(rng)
        graph = space.lower(architecture)
        shape = graph.input_shape
        sample = rng.integers(0, 50, shape) if name == "texts" else rng.standard_normal(shape, dtype=np.float32)
        export_example(space.build(architecture), tmp_path / "exported.onnx", sample)
        emit_fp32(graph, tmp_path / "emitted.onnx")
        onnx.checker.check_model(onnx.load(tmp_path / "emitted.onnx"), full_check=True)
        assert described(tmp_path / "emitted.onnx") == described(tmp_path / "exported.onnx")
        assert operators(tmp_path / "emitted.onnx") == operators(tmp_path / "exported.onnx")
        quantize_static(tmp_path / "exported.onnx", tmp_path / "q.onnx", sample, architecture.precision)
        write_untrained(graph, architecture.precision, tmp_path / "u.onnx", rng)
        assert described(tmp_path / "u.onnx") == described(tmp_path / "q.onnx")
        assert operators(tmp_path / "u.onnx") == operators(tmp_path / "q.onnx")
        logits = OnnxRuntime().load(tmp_path / "u.onnx").run({"input": sample})[0]
        assert logits.shape == graph.ops[-1].output_shape
        assert np.isfinite(logits).all()
        assert np.ptp(logits) > 0
        assert NativeRuntime().load(tmp_path / "u.onnx").run({"input": sample})[0].shape == logits.shape


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    graph = SPACES["convnet"].lower(SPACES["convnet"].sample(np.random.default_rng(1)))
    for file, seed in (("a", 1), ("b", 1), ("c", 2)):
        emit_fp32(graph, tmp_path / file, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_what_has_no_rule_is_named(tmp_path: Path) -> None:
    odd = Graph((Op("/b/Cumsum", "cumsum", ("input",), ((1, 4),), (1, 4)),), (1, 4))
    with pytest.raises(CandidateError, match=r"/b/Cumsum.*cumsum"):
        emit_fp32(odd, tmp_path / "x.onnx")
    split = Op("s", "split", ("input",), ((1, 4),), (1, 4), attributes={"axis": 1})
    reader = Op("r", "relu", ("s",), ((1, 3),), (1, 3))
    with pytest.raises(CandidateError, match="one reader per part"):
        emit_fp32(Graph((split, reader), (1, 4)), tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
