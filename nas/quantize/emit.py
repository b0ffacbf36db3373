"""From a lowered graph straight to an fp32 ONNX file with random weights, in milliseconds and without torch.

How long a network takes is decided by its operators and their shapes, not by what it has learned. The file has the
nodes, names, edges and free batch that the exporter would write of the built network, so that the quantizer and the
runtimes treat both alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nas.errors import CandidateError
from nas.graph import GRAPH_INPUT, Graph, Op, Shape

_OPSET = 20
_RMS_OPSET = 23  # the first that has RMSNormalization
_IR_VERSION = 9
_EPSILON = 1e-6

# Lower-case kind to the operator; a kind that is not here has no rule by which a node could be written.
OPERATORS: Mapping[str, str] = {
    name.lower(): name
    for name in (
        *("Add", "Clip", "Conv", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "HardSwish", "MatMul"),
        *("LayerNormalization", "Mul", "ReduceMean", "Relu", "Reshape", "RMSNormalization", "Sigmoid", "Softmax"),
        *("Split", "Transpose"),
    )
}


def emit_fp32(graph: Graph, path: Path, seed: int = 0) -> None:
    """Write a lowered graph as ONNX with random weights under which activations keep their magnitude.

    Args:
        graph: as a space lowers an architecture.
        path: file to write; its folder exists.
        seed: of the weights.

    Raises:
        CandidateError: an op of a kind, or in a place, for which there is no rule; it is named.
    """
    writer = _Writer(graph, np.random.default_rng(seed))
    for op in graph.ops:
        writer.add(op)
    onnx.save_model(writer.model(), str(path))


class _Writer:
    def __init__(self, graph: Graph, rng: np.random.Generator) -> None:
        self.graph = graph
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.by_name = {op.name: op for op in graph.ops}
        self.readers = Counter(source for op in graph.ops for source in op.inputs)
        self.taken: Counter[str] = Counter()

    def add(self, op: Op) -> None:
        """Append the node of an op, with its weights and constants."""
        operator = OPERATORS.get(op.kind)
        if operator is None:
            raise CandidateError(
                "error", f"op '{op.name}' is of kind '{op.kind}', of which no untrained file is written; "
                f"have {', '.join(sorted(OPERATORS))}",
            )  # fmt: skip
        if (op.kind == "gemm" and len(op.output_shape) != 2) or (op.kind == "gemm" and "bias" not in op.weights):
            operator = "MatMul"
        rule = _RULES.get(op.kind, _plain)
        inputs, outputs, attributes = rule(self, op)
        self.nodes.append(helper.make_node(operator, inputs, outputs, op.name, **attributes))

    def source(self, op: Op, position: int) -> str:
        """Return the tensor that an op reads; the readers of a Split take its outputs in turn."""
        name = op.inputs[position]
        if name == GRAPH_INPUT:
            return GRAPH_INPUT
        if self.by_name[name].kind == "split":
            self.taken[name] += 1
            return f"{name}_output_{self.taken[name] - 1}"
        return self.output(self.by_name[name])

    def sources(self, op: Op) -> list[str]:
        return [self.source(op, position) for position in range(len(op.inputs))]

    def output(self, op: Op) -> str:
        return "logits" if op is self.graph.ops[-1] else f"{op.name}_output_0"

    def store(self, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self.stored.append(numpy_helper.from_array(values, name))
        return name

    def weights(self, op: Op) -> list[str]:
        """Store an op's tensors in the order of the op and return their names."""
        return [self.store(f"{op.name}.{name}", self._drawn(op, name, shape)) for name, shape in op.weights.items()]

    def constant(self, op: Op, name: str, values: list[int] | float) -> str:
        """Append a Constant node, as the exporter does, and return its output."""
        made = np.array(values, np.float32 if isinstance(values, float) else np.int64)
        output = f"{op.name}_{name}_output_0"
        tensor = numpy_helper.from_array(made)
        self.nodes.append(helper.make_node("Constant", [], [output], f"{op.name}_{name}", value=tensor))
        return output

    def _drawn(self, op: Op, name: str, shape: Shape) -> NDArray[np.float32]:
        values = self.rng.standard_normal(shape, dtype=np.float32)
        if op.kind in ("layernormalization", "rmsnormalization"):
            return (1 + 0.1 * values if name == "weight" else 0.1 * values).astype(np.float32)
        if name != "weight":
            return (0.1 * values).astype(np.float32)
        fan_in = op.macs / max(prod(op.output_shape), 1)
        return (values * np.sqrt(2 / max(fan_in, 1.0)) if op.macs else values).astype(np.float32)

    def model(self) -> onnx.ModelProto:
        """Return the finished model."""
        last = self.graph.ops[-1]
        tokens = next((op for op in self.graph.ops if GRAPH_INPUT in op.inputs), last).kind == "gather"
        given = helper.make_tensor_value_info(
            GRAPH_INPUT, TensorProto.INT64 if tokens else TensorProto.FLOAT, ["batch", *self.graph.input_shape[1:]]
        )
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *last.output_shape[1:]])
        opset = _RMS_OPSET if any(node.op_type == "RMSNormalization" for node in self.nodes) else _OPSET
        made = helper.make_graph(self.nodes, "untrained", [given], [logits], self.stored)
        return helper.make_model(
            made, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION, producer_name="hwnas"
        )


_Node = tuple[list[str], list[str], dict[str, Any]]


def _plain(writer: _Writer, op: Op) -> _Node:
    return [*writer.sources(op), *writer.weights(op)], [writer.output(op)], dict(op.attributes)


def _gemm(writer: _Writer, op: Op) -> _Node:
    attributes: dict[str, Any] = {}
    if len(op.output_shape) == 2 and "bias" in op.weights:
        attributes = {"alpha": 1.0, "beta": 1.0, **op.attributes}
    return [*writer.sources(op), *writer.weights(op)], [writer.output(op)], attributes


def _norm(writer: _Writer, op: Op) -> _Node:
    inputs, outputs, attributes = _plain(writer, op)
    return inputs, outputs, {**attributes, "epsilon": _EPSILON}


def _gather(writer: _Writer, op: Op) -> _Node:
    return [*writer.weights(op), *writer.sources(op)], [writer.output(op)], dict(op.attributes)


def _reshape(writer: _Writer, op: Op) -> _Node:
    # The leading axis holds the batch, whatever it is.
    shape = writer.constant(op, "shape", [-1, *op.output_shape[1:]])
    return [*writer.sources(op), shape], [writer.output(op)], {"allowzero": 0}


def _scaled(writer: _Writer, op: Op) -> _Node:
    if len(op.inputs) > 1 or op.weights:
        return _plain(writer, op)
    size = op.input_shapes[0][-1]
    return [*writer.sources(op), writer.constant(op, "factor", float(size) ** -0.5)], [writer.output(op)], {}


def _clip(writer: _Writer, op: Op) -> _Node:
    limits = [writer.constant(op, name, value) for name, value in (("min", 0.0), ("max", 6.0))]
    return [*writer.sources(op), *limits], [writer.output(op)], {}


def _mean(writer: _Writer, op: Op) -> _Node:
    axes = writer.constant(op, "axes", [1])
    return [*writer.sources(op), axes], [writer.output(op)], {"keepdims": 0}


def _split(writer: _Writer, op: Op) -> _Node:
    axis = op.attributes.get("axis", 0)
    readers = [
        (other, place) for other in writer.graph.ops for place, name in enumerate(other.inputs) if name == op.name
    ]
    sizes = [other.input_shapes[place][axis] for other, place in readers] if isinstance(axis, int) else []
    if not isinstance(axis, int) or sum(sizes) != op.output_shape[axis]:
        raise CandidateError(
            "error", f"op '{op.name}' splits {op.output_shape} into {sizes} along {axis}; expected one reader per part"
        )
    names = [f"{op.name}_output_{index}" for index in range(len(sizes))]
    return [*writer.sources(op), writer.constant(op, "sizes", sizes)], names, {"axis": axis}


_RULES: Mapping[str, Callable[[_Writer, Op], _Node]] = {
    "gemm": _gemm,
    "layernormalization": _norm,
    "rmsnormalization": _norm,
    "gather": _gather,
    "reshape": _reshape,
    "mul": _scaled,
    "clip": _clip,
    "reducemean": _mean,
    "split": _split,
}
