"""From any ONNX file to the ops of :mod:`nas.graph`: shapes, costs, blocks and what runs in int8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from nas.architecture import Precision
from nas.errors import ModelFileError
from nas.graph import GRAPH_INPUT, MAC_KINDS, Attribute, Graph, Op, Shape
from nas.runtime.int4_graph import in_plain_terms
from nas.runtime.model_file import check_model_file

_TRANSPARENT = frozenset({"Identity", "QuantizeLinear", "DequantizeLinear"})
_KINDS = {
    **{"QLinearConv": "conv", "ConvInteger": "conv", "FusedConv": "conv", "NhwcFusedConv": "conv"},
    **{"QGemm": "gemm", "FusedGemm": "gemm"},
    **{
        "QLinearMatMul": "matmul",
        "MatMulInteger": "matmul",
        "FusedMatMul": "matmul",
        "DynamicQuantizeMatMul": "matmul",
    },
}
_INTEGER_OPS = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "QGemm"})
# Inputs that hold tensors of the network in the operators that carry scales and zero points among their inputs.
_OPERANDS = {
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3, 6),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
}
_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)
_INTEGERS = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4})


def graph_from_onnx(path: Path, sizes: Mapping[str, int] | None = None) -> Graph:
    """Read an ONNX file as a graph at batch size 1.

    The block of an op is the first part of its node's name, empty where the name has no slash. QuantizeLinear,
    DequantizeLinear and Identity are no ops of their own: an op is int8 where everything it reads was just
    dequantized and, unless it bears multiply-accumulates, everything it writes is quantized at once; int4 where its
    weights are. A tensor is a weight where it is stored, of a float type or behind a DequantizeLinear, and more than a
    scalar; one that several ops read counts at each. Of an op with several outputs the first gives the shape, but for
    Split, which gives its input's. Transposed convolutions, recurrent layers, Einsum and fused attention count 0 MACs.

    Args:
        path: ONNX file.
        sizes: size for each named free axis of the inputs other than the first (batch) axis, which is 1.

    Raises:
        ModelFileError: refused by ``check_model_file``, with a free axis that has no size, or with an op that bears
            multiply-accumulates between tensors whose shapes cannot be inferred.
    """
    model = check_model_file(path)
    _fix_input_sizes(model, path, sizes or {})
    int4 = in_plain_terms(model)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return _Reader(inferred.graph, path, int4).graph()


def _fix_input_sizes(model: onnx.ModelProto, path: Path, sizes: Mapping[str, int]) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in stored:
            continue
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.HasField("dim_value"):
                continue
            name = dimension.dim_param
            if axis != 0 and name not in sizes:
                raise ModelFileError(
                    f"{path}: axis {axis} of input '{value.name}' has the free size '{name}'; expected a number. "
                    "Give its size, or export the model with fixed sizes but for the batch."
                )
            dimension.dim_value = sizes.get(name, 1)
    # Sizes that the exporter wrote for its own batch name would contradict the batch of 1.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


@dataclass
class _Reader:
    graph_proto: onnx.GraphProto
    path: Path
    int4: Mapping[str, Shape]
    shapes: dict[str, Shape] = field(init=False)
    stored: dict[str, tuple[Shape, int]] = field(init=False)
    producers: dict[str, onnx.NodeProto] = field(init=False)
    readers: dict[str, list[str]] = field(init=False)
    names: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        proto = self.graph_proto
        values = (*proto.input, *proto.value_info, *proto.output)
        self.shapes = {value.name: shape for value in values if (shape := _shape(value)) is not None}
        self.stored = {tensor.name: (tuple(tensor.dims), tensor.data_type) for tensor in proto.initializer}
        self.stored |= {name: (shape, onnx.TensorProto.INT4) for name, shape in self.int4.items()}
        self.producers, self.readers = {}, {}
        for node in proto.node:
            if node.op_type == "Constant":
                tensor = next((item.t for item in node.attribute if item.name == "value"), onnx.TensorProto())
                self.stored[node.output[0]] = (tuple(tensor.dims), tensor.data_type)
                continue
            self.producers.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.readers.setdefault(name, []).append(node.op_type)

    def graph(self) -> Graph:
        used: Counter[str] = Counter()
        ops = []
        for node in self.graph_proto.node:
            if node.op_type == "Constant" or (node.op_type in _TRANSPARENT):
                continue
            base = node.name or node.output[0]
            name = f"{base}_{used[base]}" if used[base] else base
            used[base] += 1
            self.names.update(dict.fromkeys(node.output, name))
            ops.append(self._op(node, name))
        inputs = [value for value in self.graph_proto.input if value.name not in self.stored]
        return Graph(tuple(ops), self.shapes.get(inputs[0].name, ()) if inputs else ())

    def _op(self, node: onnx.NodeProto, name: str) -> Op:
        operands = _OPERANDS.get(node.op_type, range(len(node.input)))
        given = [node.input[index] for index in operands if index < len(node.input) and node.input[index]]
        sources = [(tensor, self._source(tensor)) for tensor in given]
        activations = [(tensor, source) for tensor, source in sources if source not in self.stored]
        weights = self._weights([source for _, source in sources])
        kind = _KINDS.get(node.op_type, node.op_type.lower())
        if kind == "matmul" and "weight" in weights:
            kind = "gemm"
        shape = self.shapes.get(node.output[0], ())
        if node.op_type == "Split" and activations:
            shape = self.shapes.get(activations[0][1], ())
        if kind in MAC_KINDS and not (shape and all(self.shapes.get(source) for _, source in activations)):
            raise ModelFileError(
                f"{self.path}: the shapes around node '{name}' ({node.op_type}) cannot be inferred; "
                "expected fixed shapes. Export the model again with fixed sizes but for the batch."
            )
        return Op(
            name=name,
            kind=kind,
            inputs=tuple(self.names.get(source, GRAPH_INPUT) for _, source in activations),
            input_shapes=tuple(self.shapes.get(source, ()) for _, source in activations),
            output_shape=shape,
            dtype=self._dtype(node, kind, [tensor for tensor, _ in sources], activations),
            weights=weights,
            attributes=_attributes(node),
            block=name.split("/")[1] if name.startswith("/") and name.count("/") > 1 else "",
        )

    def _source(self, tensor: str) -> str:
        """Return the tensor behind any chain of Identity, QuantizeLinear and DequantizeLinear."""
        while tensor in self.producers and self.producers[tensor].op_type in _TRANSPARENT:
            tensor = self.producers[tensor].input[0]
        return tensor

    def _weights(self, sources: list[str]) -> dict[str, Shape]:
        weights: dict[str, Shape] = {}
        for position, source in enumerate(sources):
            shape, kind = self.stored.get(source, ((), 0))
            if shape and (kind in _FLOATS or kind in _INTEGERS or kind == onnx.TensorProto.INT32):
                known = {0: "weight", 1: "weight", 2: "bias"}
                weights[known[position] if position in known and known[position] not in weights else source] = shape
        return weights

    def _dtype(
        self, node: onnx.NodeProto, kind: str, tensors: list[str], activations: list[tuple[str, str]]
    ) -> Precision:
        if self.int4.keys() & set(tensors):
            return Precision.INT4
        if node.op_type.startswith("QLinear") or node.op_type in _INTEGER_OPS:
            return Precision.INT8
        dequantized = [self._is_from(tensor, "DequantizeLinear") for tensor in tensors]
        reads = bool(activations) and all(self._is_from(tensor, "DequantizeLinear") for tensor, _ in activations)
        if kind in MAC_KINDS:
            return Precision.INT8 if reads and all(dequantized[:2]) else Precision.FP32
        writes = all(
            (readers := self.readers.get(output, [])) and all(reader == "QuantizeLinear" for reader in readers)
            for output in node.output
        )
        return Precision.INT8 if reads and writes else Precision.FP32

    def _is_from(self, tensor: str, op_type: str) -> bool:
        return tensor in self.producers and self.producers[tensor].op_type == op_type


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
        return None
    return tuple(dimension.dim_value for dimension in tensor.shape.dim)


def _attributes(node: onnx.NodeProto) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    for item in node.attribute:
        if item.type == onnx.AttributeProto.INT:
            attributes[item.name] = item.i
        elif item.type == onnx.AttributeProto.FLOAT:
            attributes[item.name] = item.f
        elif item.type == onnx.AttributeProto.STRING:
            attributes[item.name] = item.s.decode(errors="replace")
        elif item.type == onnx.AttributeProto.INTS:
            attributes[item.name] = tuple(item.ints)
    return attributes
