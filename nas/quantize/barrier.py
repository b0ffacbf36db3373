"""Keeps ONNX Runtime from quantizing convolutions that were meant to stay in float.

At load it takes a float Conv or Gemm between DequantizeLinear and QuantizeLinear, with nothing but Relu or Clip behind
it, for one whose weights somebody forgot, and quantizes them per tensor (``WeightBiasQuantization``, seen in 1.32). A
search that asked for fp32 there would be timed and scored on something else. A Flatten and a Reshape behind such a
node break the pattern; both only rename memory.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import CandidateError

if TYPE_CHECKING:
    import onnx

_TARGETS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_ACTIVATIONS = frozenset({"Relu", "Clip"})
# Through these the runtime moves conversions along before it looks for the pattern.
_MOVABLE = frozenset({"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def keep_float(model: onnx.ModelProto) -> int:
    """Insert a barrier behind every float node that the runtime would quantize, and return how many.

    Args:
        model: quantized graph with inferred shapes; changed in place.

    Raises:
        CandidateError: the shape behind such a node is not known, batch aside.
    """
    links = _Links(model.graph)
    shapes = _shapes(model.graph)
    barriers = 0
    for node in list(model.graph.node):
        if node.op_type in _TARGETS and links.is_float(node) and links.reads_dequantized(node):
            last = links.end_of_activations(node)
            if links.is_quantized_behind(last):
                _insert(model.graph, links, last, shapes)
                barriers += 1
    return barriers


class _Links:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.stored = {tensor.name for tensor in graph.initializer}
        self.producers = {output: node for node in graph.node for output in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.consumers[name].append(node)

    def is_float(self, node: onnx.NodeProto) -> bool:
        return node.input[1] in self.stored

    def reads_dequantized(self, node: onnx.NodeProto) -> bool:
        producer = self.producers.get(node.input[0])
        while producer is not None and producer.op_type in _MOVABLE:
            producer = self.producers.get(producer.input[0])
        return producer is not None and producer.op_type == "DequantizeLinear"

    def end_of_activations(self, node: onnx.NodeProto) -> onnx.NodeProto:
        while len(behind := self.consumers[node.output[0]]) == 1 and behind[0].op_type in _ACTIVATIONS:
            node = behind[0]
        return node

    def is_quantized_behind(self, node: onnx.NodeProto) -> bool:
        while len(behind := self.consumers[node.output[0]]) == 1 and behind[0].op_type in _MOVABLE:
            node = behind[0]
        return len(behind) == 1 and behind[0].op_type == "QuantizeLinear"


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    values = (*graph.value_info, *graph.output)
    return {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _insert(graph: onnx.GraphProto, links: _Links, node: onnx.NodeProto, shapes: dict[str, list[int]]) -> None:
    from onnx import helper, numpy_helper

    source = node.output[0]
    sizes = shapes.get(source, [])
    if len(sizes) < 2 or not all(size > 0 for size in sizes[1:]):
        raise CandidateError(
            "error",
            f"the shape of '{source}' is not known, so node '{node.name}' cannot be kept in float between int8 blocks; "
            "expected a model whose sizes are fixed but for the batch",
        )
    # A 0 in the target of a Reshape keeps the batch, whatever it is.
    target = numpy_helper.from_array(np.array([0, *sizes[1:]], np.int64), f"{source}_kept_shape")
    flat, kept = f"{source}_kept_flat", f"{source}_kept_float"
    graph.initializer.append(target)
    for consumer in links.consumers[source]:
        consumer.input[:] = [kept if name == source else name for name in consumer.input]
    position = list(graph.node).index(node) + 1
    graph.node.insert(position, helper.make_node("Flatten", [source], [flat], f"{node.name}_kept_flat", axis=1))
    graph.node.insert(position + 1, helper.make_node("Reshape", [flat, target.name], [kept], f"{node.name}_kept_float"))
