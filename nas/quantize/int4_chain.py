"""4-bit weights of layers whose activations are in 8 bits: convolutions, and products of blocks without tokens.

The float weights are rounded before activations are calibrated, so that the ranges are those of the network that ships;
the mean of what the rounding changes in a channel's sum goes into its bias. ONNX Runtime's quantizer then writes 8-bit
weights, in whose place the 4-bit ones are put.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.quantize.layer_inputs import Inputs, layer_inputs
from nas.quantize.stored import drop_unread
from nas.quantize.two_level import TwoLevel, two_level
from nas.runtime.int4_operator import DOMAIN, OPERATOR, add_operator, packed_tensor

if TYPE_CHECKING:
    import onnx

Batches = Callable[[], Iterator[Mapping[str, NDArray[Any]]]]
# A bias has 32 bits; one of them is left for what is added to it.
_LARGEST_BIAS = 2.0**30


def int4_layers(model: onnx.ModelProto, chosen: Collection[str]) -> list[str]:
    """Return those of the chosen nodes that are a convolution or a Gemm with stored float weights."""
    stored = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer if tensor.data_type == 1}
    ranks = {"Conv": (4,), "Gemm": (2,)}
    return [
        node.name
        for node in model.graph.node
        if node.name in chosen
        and stored.get(node.input[1] if len(node.input) > 1 else "") in ranks.get(node.op_type, ())
    ]


def round_layers(
    model: onnx.ModelProto, names: Sequence[str], batches: Batches, reduce_range: bool = False
) -> dict[str, TwoLevel]:
    """Round the weights of some layers to 4 bits, in the model too, and return them by the nodes' names.

    Args:
        model: float model with names on its nodes; changed in place.
        names: as :func:`int4_layers` gives them.
        batches: makes the calibration inputs anew.
        reduce_range: keep the weights that runtimes make of them to 7 bits.

    Raises:
        CandidateError: the model does not run.
    """
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.name in set(names)]
    for node in nodes:
        _by_outputs(node, stored)
    read = layer_inputs(model, names, batches())
    rounded: dict[str, TwoLevel] = {}
    for node in nodes:
        weights = np.asarray(numpy_helper.to_array(stored[node.input[1]]), np.float32)
        inputs = read[node.name].per_output(len(weights)) if node.name in read else None
        covariance = None if inputs is None else inputs.covariance
        found = two_level(weights, reduce_range=reduce_range, covariance=covariance)
        rounded[node.name] = found
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(found.floats, node.input[1]))
        if inputs is not None and len(node.input) > 2 and node.input[2] in stored:
            bias = numpy_helper.to_array(stored[node.input[2]])
            corrected = bias + _change(weights - found.floats, inputs).reshape(bias.shape)
            stored[node.input[2]].CopyFrom(numpy_helper.from_array(corrected.astype(np.float32), node.input[2]))
    return rounded


def store_layers(model: onnx.ModelProto, rounded: Mapping[str, TwoLevel], biases: Mapping[str, NDArray[Any]]) -> None:
    """Put 4-bit weights in the place of the 8-bit ones that the quantizer wrote.

    Args:
        model: quantized, from the model that :func:`round_layers` left; changed in place.
        rounded: by node.
        biases: in float, by node.
    """
    from onnx import helper

    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.name not in rounded:
            continue
        weights = producers[node.input[1]]
        source = _value(stored, producers[node.input[0]].input[1])
        bias = biases.get(node.name)
        layer = rounded[node.name] if bias is None else _with_room(rounded[node.name], bias, float(source))
        names = [f"{node.input[1]}_{what}" for what in ("int4", "multipliers", "scales")]
        graph.initializer.append(packed_tensor(names[0], layer.values, signed=True))
        graph.initializer.append(packed_tensor(names[1], layer.multipliers, signed=False))
        _put(graph, names[2], layer.scales)
        call = helper.make_node(OPERATOR, names, list(weights.output), weights.name, domain=DOMAIN, group=layer.group)
        weights.CopyFrom(call)
        if bias is not None:
            quantized = producers[node.input[2]]
            scales = (np.float32(source) * layer.scales).astype(np.float32)
            whole = np.rint(bias.reshape(-1).astype(np.float64) / scales).astype(np.int32)
            names = [f"{node.input[2]}_{what}" for what in ("int32", "scales")]
            _put(graph, names[0], whole)
            _put(graph, names[1], scales)
            made = helper.make_node("DequantizeLinear", names, list(quantized.output), quantized.name, axis=0)
            quantized.CopyFrom(made)
    drop_unread(graph)
    add_operator(model)


def float_biases(model: onnx.ModelProto, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return the stored biases of some nodes, by node."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.name: numpy_helper.to_array(stored[node.input[2]])
        for node in model.graph.node
        if node.name in names and len(node.input) > 2 and node.input[2] in stored
    }


def _by_outputs(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> None:
    """Put the weights of a Gemm into rows by output, as those of a convolution are."""
    from onnx import helper, numpy_helper

    if node.op_type != "Gemm" or any(item.name == "transB" and item.i for item in node.attribute):
        return
    kept = [item for item in node.attribute if item.name != "transB"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("transB", 1)])
    weights = numpy_helper.to_array(stored[node.input[1]])
    stored[node.input[1]].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights.T), node.input[1]))


def _change(difference: NDArray[np.float32], inputs: Inputs) -> NDArray[np.float64]:
    """Return by how much the mean of each output's sum has shrunk."""
    rows = difference.reshape(len(difference), -1)
    return np.asarray(rows @ inputs.mean if inputs.mean.ndim == 1 else (rows * inputs.mean).sum(axis=1), np.float64)


def _with_room(layer: TwoLevel, bias: NDArray[Any], source: float) -> TwoLevel:
    """Return a layer whose scales are large enough for the biases to fit into 32 bits, as beside dead channels."""
    least = (np.abs(bias.reshape(-1)) / (source * _LARGEST_BIAS)).astype(np.float32)
    if not (least > layer.scales).any():
        return layer
    growth = np.maximum(least / layer.scales, 1).reshape(-1, *[1] * (layer.values.ndim - 1))
    values = np.rint(layer.values / growth).astype(np.int8)
    return replace(layer, values=values, scales=np.maximum(layer.scales, least))


def _value(stored: Mapping[str, onnx.TensorProto], name: str) -> np.float32:
    from onnx import numpy_helper

    return np.float32(numpy_helper.to_array(stored[name]).reshape(-1)[0])


def _put(graph: onnx.GraphProto, name: str, array: NDArray[Any]) -> None:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
