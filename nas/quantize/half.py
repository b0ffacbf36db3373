"""Blocks in half precision: weights stored in 16 bits, values turned to 16 bits where the block begins."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from nas.errors import CandidateError, ConfigError
from nas.quantize.stored import drop_unread, stored_tensors

# Operators whose float inputs and outputs may all be of 16 bits; others of a block stay in float, between conversions.
_HALVED = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Erf", "Flatten", "Gelu", "Gemm"}
    | {"GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization", "LeakyRelu", "MatMul"}
    | {"MaxPool", "Mul", "Pad", "Pow", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Softmax", "Split", "Sqrt"}
    | {"Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"}
)
_LARGEST = float(np.finfo(np.float16).max)


def require_half_precision(isa: str, features: Collection[str], device: str, runtime: str) -> None:
    """Refuse half precision where nothing computes in it: ONNX Runtime would convert every value there and back.

    Args:
        isa: of the device, such as ``aarch64``.
        features: of its fingerprint.
        device: its name.
        runtime: name of the one that ships.

    Raises:
        ConfigError: with the reason.
    """
    if "asimdhp" not in features:
        raise ConfigError(
            f"the precisions name fp16, but device '{device}' ({isa}) does not compute in half precision, and would "
            "convert every value to fp32 and back. Leave fp16 out of space.precisions, or search for an Arm processor "
            "with asimdhp."
        )
    if runtime == "native":
        raise ConfigError(
            f"the precisions name fp16, and runtime '{runtime}' has no kernels for it; expected "
            "onnxruntime. Leave fp16 out of space.precisions, or take runtime=onnxruntime."
        )


def to_half(model: onnx.ModelProto, chosen: Collection[str]) -> int:
    """Let operators compute in 16 bits, and return how many do.

    Args:
        model: graph with names on its operators; changed in place. What is quantized stays so.
        chosen: names of operators; kinds that need 32 bits stay in float.

    Raises:
        CandidateError: a weight is beyond what 16 bits hold.
    """
    graph = model.graph
    shapes = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*shapes.input, *shapes.value_info, *shapes.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    stored = {n: t for n, t in stored_tensors(graph).items() if t.data_type == onnx.TensorProto.FLOAT}
    halved = [node for node in graph.node if node.name in chosen and node.op_type in _HALVED]
    if not halved:
        return 0
    names = {node.name for node in halved}
    inside = {output for node in halved for output in node.output if output in floats}
    borders = _Borders(graph, stored, inside)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in names:
            for index, name in enumerate(node.input):
                if name in stored or (name in floats and name not in inside):
                    node.input[index] = borders.half(name, nodes)
        else:
            for index, name in enumerate(node.input):
                if name in inside:
                    node.input[index] = borders.full(name, nodes)
        nodes.append(node)
    for output in graph.output:
        if output.name in inside:
            borders.hand_out(output.name, nodes)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    nodes = [node for node in nodes if node.op_type != "Constant" or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)
    # Types that the exporter noted are no longer those of the tensors.
    del graph.value_info[:]
    return len(halved)


class _Borders:
    """Conversions between 16 and 32 bits, each made once."""

    def __init__(self, graph: onnx.GraphProto, stored: dict[str, onnx.TensorProto], inside: Collection[str]) -> None:
        self._graph, self._stored, self._inside = graph, stored, inside
        self._made: dict[tuple[str, str], str] = {}

    def half(self, name: str, nodes: list[onnx.NodeProto]) -> str:
        """Return a 16-bit twin of a float tensor."""
        if name in self._stored:
            return self._weight(name)
        return self._cast(name, "fp16", onnx.TensorProto.FLOAT16, nodes)

    def full(self, name: str, nodes: list[onnx.NodeProto]) -> str:
        """Return a float twin of a 16-bit tensor."""
        return self._cast(name, "fp32", onnx.TensorProto.FLOAT, nodes)

    def hand_out(self, name: str, nodes: list[onnx.NodeProto]) -> None:
        """Let an output of the graph keep name and type."""
        inner = f"{name}_fp16"
        for node in nodes:
            for names in (node.input, node.output):
                for index, found in enumerate(names):
                    if found == name:
                        names[index] = inner
        nodes.append(onnx.helper.make_node("Cast", [inner], [name], f"{name}_to_fp32", to=onnx.TensorProto.FLOAT))

    def _weight(self, name: str) -> str:
        key = (name, "fp16")
        if key not in self._made:
            values = onnx.numpy_helper.to_array(self._stored[name])
            if np.abs(values).max(initial=0.0) > _LARGEST and np.isfinite(values).all():
                raise CandidateError("nan", f"weight '{name}' is beyond {_LARGEST:g}, the largest number of 16 bits")
            self._made[key] = f"{name}_fp16"
            self._graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float16), self._made[key]))
        return self._made[key]

    def _cast(self, name: str, word: str, to: int, nodes: list[onnx.NodeProto]) -> str:
        key = (name, word)
        if key not in self._made:
            self._made[key] = f"{name}_as_{word}"
            nodes.append(onnx.helper.make_node("Cast", [name], [self._made[key]], f"{name}_to_{word}", to=to))
        return self._made[key]
