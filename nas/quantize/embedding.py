"""Embedding tables in 8 bits: only the rows that are read become floats again.

ONNX Runtime's quantizer would put DequantizeLinear between the table and Gather, so that the whole table is turned to
float for every inference. Here Gather reads 8-bit rows and their scales, one per row, and a product follows. A table
that is also the weight of a Gemm (a tied language model) is stored once: its rows are the Gemm's output channels.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from nas.quantize.stored import drop_dead

if TYPE_CHECKING:
    import onnx

_LEVELS = 127.0


def table_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the Gather nodes that read rows of a stored float table."""
    from onnx import TensorProto

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Gather"
        and node.input[0] in stored
        and stored[node.input[0]].data_type == TensorProto.FLOAT
        and len(stored[node.input[0]].dims) == 2
    ]


def quantize_tables(model: onnx.ModelProto, chosen: Collection[str]) -> int:
    """Store the tables of the chosen Gather nodes in 8 bits and return how many nodes changed.

    Nodes whose table was quantized already, because a Gemm shares it, are changed as well, chosen or not.

    Args:
        model: graph with names on its nodes; changed in place.
        chosen: names of Gather nodes that read a stored table.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in graph.node:
        source = producers.get(node.input[0]) if node.op_type == "Gather" else None
        if source is not None and source.op_type == "DequantizeLinear" and source.input[0] in stored:
            nodes += _row_nodes(graph, node, source.input[0], source.input[1])
        elif node.op_type == "Gather" and node.name in chosen:
            nodes += _row_nodes(graph, node, *_store(graph, stored[node.input[0]]))
        else:
            nodes.append(node)
            continue
        changed += 1
    if changed:
        _keep_read(graph, nodes)
    return changed


def _store(graph: onnx.GraphProto, table: onnx.TensorProto) -> tuple[str, str]:
    """Add the table in 8 bits, symmetric with a scale per row, and return the names of rows and scales."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(table)
    scales = np.maximum(np.abs(values).max(axis=1) / _LEVELS, np.finfo(np.float32).tiny).astype(np.float32)
    rows = np.clip(np.rint(values / scales[:, None]), -_LEVELS, _LEVELS).astype(np.int8)
    names = f"{table.name}_rows", f"{table.name}_row_scales"
    if names[0] not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(rows, names[0]))
        graph.initializer.append(numpy_helper.from_array(scales, names[1]))
    return names


def _row_nodes(graph: onnx.GraphProto, node: onnx.NodeProto, rows: str, scales: str) -> list[onnx.NodeProto]:
    from onnx import TensorProto, helper, numpy_helper

    output, name, ids = node.output[0], node.name, node.input[1]
    last = numpy_helper.from_array(np.array([-1], np.int64), f"{output}_row_axis")
    graph.initializer.append(last)
    return [
        helper.make_node("Gather", [rows, ids], [f"{output}_row_bytes"], name, axis=0),
        helper.make_node(
            "Cast", [f"{output}_row_bytes"], [f"{output}_row_float"], f"{name}_float", to=TensorProto.FLOAT
        ),
        helper.make_node("Gather", [scales, ids], [f"{output}_row_scales"], f"{name}_scales", axis=0),
        helper.make_node("Unsqueeze", [f"{output}_row_scales", last.name], [f"{output}_row_scale"], f"{name}_scale"),
        helper.make_node("Mul", [f"{output}_row_float", f"{output}_row_scale"], [output], f"{name}_scaled"),
    ]


def _keep_read(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the graph's nodes, leaving out what nobody reads any more; likewise of the stored tensors."""
    copies = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    drop_dead(graph)
