"""What an ONNX graph stores: the tensors by name, constants of nodes included, and those that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def stored_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return every initializer and every tensor of a Constant node by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, by itself or in its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove initializers that neither a node of the graph nor an output reads."""
    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def drop_dead(graph: onnx.GraphProto) -> None:
    """Remove nodes that no output needs, and what was stored for them; nodes stand in the order that ONNX demands."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(type(node).FromString(node.SerializeToString()))
            needed.update(reads(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    drop_unread(graph)
