"""Operators that only rename or move memory."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from nas.errors import ModelFileError
from nas.runtime.plan.attention import lower_attention
from nas.runtime.plan.embedding import lower_byte_rows
from nas.runtime.plan.planner import Node, Planner, handles
from nas.runtime.plan.program import Constant, Tensor
from nas.runtime.plan.values import Cached, Curve, Quantized, Real, Shape, Stored, Value


@handles("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def lower_reshape(planner: Planner, node: Node) -> None:
    """Give a value another shape; a Flatten whose only reader restores the shape is no operator at all."""
    value = planner.value(node, 0)
    if len(node.outputs) != 1:
        raise planner.refused(node, "expected one output")
    training = planner.stored(node, 2) if node.op_type == "Dropout" else None
    if training is not None and training.array.any():
        raise planner.refused(node, "training_mode is not offered; expected inference")
    given = value.array.shape if isinstance(value, Stored) else value.shape
    shape = target_shape(planner, node, given)
    readers = planner.consumers[node.outputs[0]]
    if len(readers) == 1 and readers[0].op_type == "Reshape" and node.outputs[0] not in planner.graph_outputs:
        behind = readers[0]
        if isinstance(planner.values.get(behind.inputs[1]), Stored) and target_shape(planner, behind, shape) == given:
            planner.values[behind.outputs[0]] = value
            planner.done.add(id(behind))
            return
    planner.values[node.outputs[0]] = reshaped(planner, value, shape)


def target_shape(planner: Planner, node: Node, given: Shape) -> Shape:
    """Return the shape that a reshaping operator gives.

    Raises:
        ModelFileError: the number of elements would change.
    """
    if node.op_type == "Flatten":
        axis = int(node.get("axis", 1))
        axis += len(given) if axis < 0 else 0
        shape: list[int] = [prod(given[:axis]), prod(given[axis:])]
    elif node.op_type in ("Identity", "Dropout"):
        shape = list(given)
    else:
        stored = planner.stored(node, 1)
        numbers = [int(number) for number in (stored.array.reshape(-1) if stored else node.get("axes", []))]
        if node.op_type == "Reshape":
            shape = [given[index] if size == 0 else size for index, size in enumerate(numbers)]
            if shape.count(-1) == 1:
                rest = prod([size for size in shape if size != -1])
                shape[shape.index(-1)] = prod(given) // max(rest, 1)
        elif node.op_type == "Unsqueeze":
            shape = list(given)
            for axis in sorted(number % (len(given) + len(numbers)) for number in numbers):
                shape.insert(axis, 1)
        else:
            drop = {number % len(given) for number in numbers} or {i for i, size in enumerate(given) if size == 1}
            shape = [size for index, size in enumerate(given) if index not in drop]
    if prod(shape) != prod(given) or any(size < 1 for size in shape):
        raise planner.refused(node, f"it turns shape {given} into {tuple(shape)}")
    return tuple(shape)


def reshaped(planner: Planner, value: Value, shape: Shape) -> Value:
    """Return the value in another shape, its channels moved first where they lay last and it matters."""
    if isinstance(value, Stored):
        return Stored(value.array.reshape(shape), value.scale, value.zero, value.axis)
    if value.shape == shape:
        return value
    if isinstance(value, Curve):
        source = reshaped(planner, value.source, shape)
        assert isinstance(source, Quantized)
        return value.viewed(source)
    if isinstance(value, Cached):
        raise ModelFileError(f"{planner.path}: a cache that something but attention reads.")
    plain = planner.plain(Real(value.tensor, value.shape, value.nhwc))
    tensor = planner.reshaped(plain.tensor, shape)
    if isinstance(value, Quantized):
        return replace(value, tensor=tensor, shape=shape, nhwc=False)
    return Real(tensor, shape)


@handles("Transpose")
def lower_transpose(planner: Planner, node: Node) -> None:
    """Permute axes; bytes stay bytes."""
    value = planner.value(node, 0)
    if isinstance(value, Curve):
        source = value.source
        moved = _transposed(planner, node, Real(source.tensor, source.shape, source.nhwc))
        viewed = replace(source, tensor=moved.tensor, shape=moved.shape, nhwc=False)
        planner.values[node.outputs[0]] = value.viewed(viewed)
        return
    if isinstance(value, Real) and lower_attention(planner, node, value.shape, target_shape):
        return
    planner.values[node.outputs[0]] = _transposed(planner, node, planner.as_real(value, node.inputs[0]))


def _transposed(planner: Planner, node: Node, real: Real) -> Real:
    real = planner.plain(real)
    order = tuple(node.get("perm", range(len(real.shape))[::-1]))
    if sorted(order) != list(range(len(real.shape))):
        raise planner.refused(node, f"perm {order} is no order of {len(real.shape)} axes")
    shape = tuple(real.shape[axis] for axis in order)
    return Real(planner.emit("transpose", node.name, [real.tensor], real.tensor.dtype, shape, ints=order), shape)


@handles("Split")
def lower_split(planner: Planner, node: Node) -> None:
    """Cut along an axis, one operator per piece."""
    real = planner.plain(planner.real(node.inputs[0]))
    axis = int(node.get("axis", 0)) % len(real.shape)
    stored = planner.stored(node, 1)
    pieces = len(node.outputs)
    sizes = [int(size) for size in stored.array] if stored else [real.shape[axis] // pieces] * pieces
    if sum(sizes) != real.shape[axis] or len(sizes) != pieces or min(sizes) < 1:
        raise planner.refused(node, f"pieces {sizes} of {real.shape[axis]}")
    start = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        shape = (*real.shape[:axis], size, *real.shape[axis + 1 :])
        part = f"{node.name}_{start}"
        tensor = planner.emit("slice", part, [real.tensor], real.tensor.dtype, shape, ints=(axis, start))
        planner.values[name] = Real(tensor, shape)
        start += size


@handles("Concat")
def lower_concat(planner: Planner, node: Node) -> None:
    """Join along an axis, in the graph's order of axes."""
    parts = [planner.plain(planner.real(name)) for name in node.inputs]
    axis = int(node.get("axis", 0)) % len(parts[0].shape)
    sides = {(*part.shape[:axis], *part.shape[axis + 1 :], part.tensor.dtype) for part in parts}
    if len(sides) != 1:
        raise planner.refused(node, f"shapes {[part.shape for part in parts]} do not join along axis {axis}")
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    dtype = parts[0].tensor.dtype
    tensor = planner.emit("concat", node.name, [part.tensor for part in parts], dtype, tuple(shape), ints=(axis,))
    planner.values[node.outputs[0]] = Real(tensor, tuple(shape))


@handles("Gather")
def lower_gather(planner: Planner, node: Node) -> None:
    """Take rows of a stored table, as an embedding does."""
    table = planner.stored(node, 0)
    indices = planner.real(node.inputs[1])
    if table is None or table.array.ndim != 2 or int(node.get("axis", 0)) != 0 or indices.tensor.dtype != "i64":
        raise planner.refused(node, "expected rows of a stored table, chosen by 64-bit integers")
    if table.array.dtype == np.int8 and table.scale is None:
        if not lower_byte_rows(planner, node, table, indices):
            raise planner.refused(
                node, "8-bit rows; expected Cast to float and a product with one scale per row behind it"
            )
        return
    shape = (*indices.shape, table.array.shape[1])
    constants = [Constant("f32", table.floats())]
    tensor = planner.emit("gather", node.name, [indices.tensor], "f32", shape, constants, ints=table.array.shape)
    planner.values[node.outputs[0]] = Real(tensor, shape)


@handles("Where")
def lower_where(planner: Planner, node: Node) -> None:
    """Choose between floats by truth values, with broadcasting."""
    reals = [planner.plain(planner.real(name)) for name in node.inputs]
    shape = np.broadcast_shapes(*(real.shape for real in reals))
    if [real.tensor.dtype for real in reals] != ["bool", "f32", "f32"]:
        raise planner.refused(node, "expected truth values and floats")
    tensors: list[Tensor] = [real.tensor for real in reals]
    planner.values[node.outputs[0]] = Real(planner.emit("where", node.name, tensors, "f32", shape), shape)


@handles("Shape")
def lower_shape(planner: Planner, node: Node) -> None:
    """Store the shape, which is known when a program is planned."""
    value = planner.value(node, 0)
    given = value.array.shape if isinstance(value, Stored) else value.shape
    stop = node.get("end", len(given))
    planner.values[node.outputs[0]] = Stored(np.array(given[int(node.get("start", 0)) : stop], np.int64))
