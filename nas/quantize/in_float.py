"""Takes the quantization of chosen parts out of a QDQ file again, so that these parts run in float."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from nas.quantize.barrier import keep_float
from nas.quantize.static import block_of
from nas.quantize.stored import drop_dead, stored_tensors

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})


def parts_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return operator name to the part that it belongs to, without QuantizeLinear and DequantizeLinear.

    A part is what the first component of the operators' names says, as in files of this package. Where that says
    nothing, every operator with stored weights is a part, and takes what follows until the next one.
    """
    nodes = [node for node in model.graph.node if node.op_type not in _PAIR and node.op_type != "Constant"]
    if len({block_of(node.name) for node in nodes} - {""}) > 1:
        return {_name(node): block_of(node.name) for node in nodes}
    stored = {tensor.name for tensor in model.graph.initializer}
    weights = stored | {n.output[0] for n in model.graph.node if n.op_type in _PAIR and n.input[0] in stored}
    found, part = {}, ""
    for node in nodes:
        if any(name in weights for name in node.input[1:2]):
            part = _name(node)
        found[_name(node)] = part
    return found


def in_float(model: onnx.ModelProto, parts: Collection[str] | None = None) -> onnx.ModelProto:
    """Return a copy in which some parts compute in float, on the values that their stored weights stand for.

    A pair of QuantizeLinear and DequantizeLinear goes where a float operator feeds a float operator; between float and
    int8 it stays, so values cross that border in 8 bits, as they did. Where its saturation stands for a ReLU or
    a Clip, a Clip is written instead.

    Args:
        model: QDQ file without external data; operators of other forms are left as they are.
        parts: as ``parts_of`` names them; None means all.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    belongs = parts_of(copy)
    plain = {name for name, part in belongs.items() if parts is None or part in parts}
    writers = {output: node for node in graph.node for output in node.output}
    constants = _constants(graph)
    _drop_pairs(graph, plain, writers, constants)
    _store_weights(graph, plain, writers, constants)
    drop_dead(graph)
    if parts is not None:
        copy = onnx.shape_inference.infer_shapes(copy)  # the barriers need the shapes of what is new
        keep_float(copy)
    return copy


def _drop_pairs(
    graph: onnx.GraphProto,
    plain: Collection[str],
    writers: Mapping[str, onnx.NodeProto],
    constants: Mapping[str, NDArray[np.generic]],
) -> None:
    given = {value.name for value in graph.input}
    clips: dict[str, onnx.NodeProto] = {}

    def source(name: str) -> str | None:
        """Return the float tensor behind a pair, if what wrote it computes in float or is an input."""
        second = writers.get(name)
        if second is None or second.op_type != "DequantizeLinear":
            return None
        first = writers.get(second.input[0])
        if first is None or first.op_type != "QuantizeLinear":
            return None
        behind: str = first.input[0]
        writer = writers.get(behind)
        if behind not in given and (writer is None or _name(writer) not in plain):
            return source(behind)
        bounds = None if behind in given else _bounds(first, constants)
        if bounds is None:
            return behind
        if behind not in clips:
            clipped = f"{behind}_clipped"
            ends = [f"{clipped}_{end}" for end in ("low", "high")]
            for end, value in zip(ends, bounds, strict=True):
                graph.initializer.append(onnx.numpy_helper.from_array(value, end))
            clips[behind] = onnx.helper.make_node("Clip", [behind, *ends], [clipped], _name(first))
        return str(clips[behind].output[0])

    nodes = list(graph.node)
    for node in nodes:
        if _name(node) in plain:
            for index, name in enumerate(node.input):
                node.input[index] = source(name) or name
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        graph.node.extend(clips[output] for output in node.output if output in clips)


def _bounds(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return what QuantizeLinear saturates at, where that stands for an activation.

    Quantizers fold ReLU and Clip into a range that begins at 0. Other ranges are those of the calibration samples,
    and a float network has none.
    """
    zero = constants.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
    scale = constants.get(node.input[1])
    if zero is None or scale is None or zero.itemsize != 1 or zero.size != 1 or scale.size != 1:
        return None
    kind = np.iinfo(np.int8 if zero.dtype == np.int8 else np.uint8)
    if int(zero.reshape(-1)[0]) != kind.min:
        return None
    high = np.float32(kind.max - kind.min) * scale.astype(np.float32).reshape(-1)[0]
    return np.zeros((), np.float32), np.asarray(high, np.float32)


def _store_weights(
    graph: onnx.GraphProto,
    plain: Collection[str],
    writers: Mapping[str, onnx.NodeProto],
    constants: Mapping[str, NDArray[np.generic]],
) -> None:
    made: dict[str, str] = {}
    for node in graph.node:
        if _name(node) not in plain:
            continue
        for index, name in enumerate(node.input):
            writer = writers.get(name)
            if writer is None or writer.op_type != "DequantizeLinear" or writer.input[0] not in constants:
                continue
            values = None if name in made else _dequantized(writer, constants)
            if values is not None:
                made[name] = f"{name}_in_float"
                graph.initializer.append(onnx.numpy_helper.from_array(values, made[name]))
            if name in made:
                node.input[index] = made[name]


def _dequantized(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32] | None:
    """Return (stored - zero point) * scale as ONNX defines it, or None where a part of it is computed or in blocks."""
    attributes = {item.name: item.i for item in node.attribute}
    if attributes.get("block_size") or any(name and name not in constants for name in node.input):
        return None
    stored = constants[node.input[0]].astype(np.int32)
    scale = constants[node.input[1]].astype(np.float32)
    zero = constants[node.input[2]].astype(np.int32) if len(node.input) > 2 and node.input[2] else np.int32(0)
    if scale.ndim == 1 and stored.ndim:
        shape = [1] * stored.ndim
        shape[attributes.get("axis", 1) if stored.ndim > 1 else 0] = -1
        scale, zero = scale.reshape(shape), np.reshape(zero, shape) if np.ndim(zero) else zero
    return np.asarray((stored - zero).astype(np.float32) * scale, np.float32)


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    return {
        name: onnx.numpy_helper.to_array(tensor)
        for name, tensor in stored_tensors(graph).items()
        if tensor.data_location != onnx.TensorProto.EXTERNAL
    }


def _name(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]
