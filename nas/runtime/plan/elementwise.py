"""Quantization, functions of one value, and arithmetic of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from nas.runtime.plan import arithmetic
from nas.runtime.plan.arithmetic import F32, Floats, Quant
from nas.runtime.plan.conv import clip_bounds, fuse_activation
from nas.runtime.plan.planner import Node, Planner, handles
from nas.runtime.plan.program import BINARIES, UNARIES
from nas.runtime.plan.values import Curve, Quantized, Real, Stored, Value, dequantized


@handles("QuantizeLinear")
def lower_quantize(planner: Planner, node: Node) -> None:
    """Quantize: a curve becomes a table, real values an operator that also puts channels last."""
    value, quant = planner.value(node, 0), planner.quant_of(node)
    if isinstance(value, Curve):
        table = arithmetic.quantize(value.values, quant)
        planner.finish_quantized(node, value.source.tensor, value.shape, value.source.nhwc, table)
        return
    real = planner.as_real(value, node.inputs[0])
    if real.tensor.dtype != "f32":
        raise planner.refused(node, f"it quantizes {real.tensor.dtype}; expected floats")
    physical, turned = real.tensor.shape, False
    nhwc = real.nhwc
    if len(real.shape) == 4 and not real.nhwc:
        batch, channels, height, width = real.shape
        physical, nhwc = (batch, height, width, channels), True
        turned = channels > 1 and height * width > 1
    tensor = planner.emit(
        *("quantize", node.name, [real.tensor], "u8", physical), ints=(quant.zero, int(turned)), floats=(quant.scale,)
    )
    planner.finish_quantized(node, tensor, real.shape, nhwc, None)


@handles("DequantizeLinear")
def lower_dequantize(planner: Planner, node: Node) -> None:
    """Dequantize: stored weights keep their integers, bytes become a curve."""
    value = planner.value(node, 0)
    if isinstance(value, Stored):
        scale, zero = planner.stored(node, 1), planner.stored(node, 2)
        if scale is None:
            raise planner.refused(node, "it has no scale")
        scales = np.asarray(scale.array, F32).reshape(-1)
        zeros = np.zeros(scales.size, np.int32) if zero is None else zero.array.astype(np.int32).reshape(-1)
        axis = int(node.get("axis", 1)) % max(value.array.ndim, 1)
        if node.get("block_size", 0) or scales.size not in (1, value.array.shape[axis] if value.array.ndim else 1):
            raise planner.refused(node, "expected one scale, or one per index of its axis")
        planner.values[node.outputs[0]] = Stored(value.array, scales, zeros, axis)
        return
    quant = planner.quant_of(node)
    if isinstance(value, Real) and value.tensor.dtype == "u8":
        value = Quantized(value.tensor, value.shape, value.nhwc, quant)
    if not isinstance(value, Quantized):
        raise planner.refused(node, "expected unsigned bytes")
    planner.values[node.outputs[0]] = dequantized(replace(value, quant=quant))


@handles(
    "Relu", "Clip", "HardSwish", "Sigmoid", "Gelu", "Tanh", "LeakyRelu", "HardSigmoid", "Sqrt", "Exp", "Erf", "Neg"
)
def lower_unary(planner: Planner, node: Node) -> None:
    """Apply a function: to the 256 values of a curve now, to real values by an operator."""
    value = planner.value(node, 0)
    code, floats, function = _function(planner, node)
    if isinstance(value, Curve):
        planner.values[node.outputs[0]] = Curve(value.source, function(value.values))
        return
    target = node
    if node.op_type == "Sigmoid" and (product := _times_own_input(planner, node)) is not None:
        code, target = UNARIES["SiLU"], product
        planner.done.add(id(product))
    real = planner.as_real(value, node.inputs[0])
    readers = len(planner.consumers[node.inputs[0]]) - (target is not node)
    fused = readers == 1 and node.inputs[0] not in planner.graph_outputs
    if fused and fuse_activation(planner, real.tensor, target.name, code, floats):
        planner.values[target.outputs[0]] = real
        return
    _float_only(planner, node, real)
    quantizer = planner.quantize_behind(target.outputs[0])
    if quantizer is not None:
        output = planner.quant_of(quantizer)
        tensor = planner.emit(
            *("unary_f32", target.name, [real.tensor], "u8", real.tensor.shape),
            ints=(code, output.zero),
            floats=(*(floats or (0.0, 0.0)), output.scale),
        )
        planner.finish_quantized(quantizer, tensor, real.shape, real.nhwc, None)
        return
    tensor = planner.emit(
        *("unary_f32", target.name, [real.tensor], "f32", real.tensor.shape), ints=(code,), floats=floats
    )
    planner.values[target.outputs[0]] = Real(tensor, real.shape, real.nhwc)


@handles("Add", "Sub", "Mul", "Div")
def lower_binary(planner: Planner, node: Node) -> None:
    """Combine two values: tables where both come from the same bytes, integers between quantized, else floats."""
    a, b = planner.value(node, 0), planner.value(node, 1)
    quantizer = planner.quantize_behind(node.outputs[0])
    exact = isinstance(a, Curve) and isinstance(b, Curve) and a.exact and b.exact
    if isinstance(a, Curve) and isinstance(b, Curve) and a.source.tensor is b.source.tensor and a.shape == b.shape:
        if exact and quantizer is not None and node.op_type in ("Add", "Mul"):
            combine = arithmetic.add if node.op_type == "Add" else arithmetic.multiply
            first, second = a.source, b.source
            table = combine(
                *(first.bytes_by_byte, second.bytes_by_byte),
                *(first.quant, second.quant, planner.quant_of(quantizer)),
            )
            planner.finish_quantized(quantizer, first.tensor, a.shape, first.nhwc, table)
        else:
            planner.values[node.outputs[0]] = Curve(a.source, _apply(node.op_type, a.values, b.values))
        return
    for one, other, turned in ((a, b, False), (b, a, True)):
        if isinstance(one, Curve) and isinstance(other, Stored) and other.scale is None and other.array.size == 1:
            if other.array.ndim > len(one.shape):
                break
            scalar = np.full(256, other.array.reshape(-1)[0], F32)
            pair = (scalar, one.values) if turned else (one.values, scalar)
            planner.values[node.outputs[0]] = Curve(one.source, _apply(node.op_type, *pair))
            return
    if node.exact and quantizer is not None and _with_stored_byte(planner, node, quantizer, a, b):
        return
    if exact and quantizer is not None and node.op_type in ("Add", "Mul"):
        assert isinstance(a, Curve)
        assert isinstance(b, Curve)
        if _integer_binary(planner, node, quantizer, a.source, b.source):
            return
    planner.in_floats(node)
    _real_binary(planner, node, a, b)


def _with_stored_byte(planner: Planner, node: Node, quantizer: Node, a: Value, b: Value) -> bool:
    """Combine bytes with one stored byte by a table; False where neither is one."""
    for one, other, turned in ((a, b, False), (b, a, True)):
        if not isinstance(one, Curve) or not isinstance(other, Stored) or other.scale is None:
            continue
        if other.array.size != 1 or other.array.dtype != np.uint8 or other.array.ndim > len(one.shape):
            continue
        assert other.zero is not None
        quant = Quant(float(other.scale[0]), int(other.zero[0]))
        sides = [(one.source.bytes_by_byte, one.source.quant), (np.full(256, other.array.reshape(-1)[0]), quant)]
        (x, qx), (y, qy) = sides[::-1] if turned else sides
        combine = arithmetic.add if node.op_type == "Add" else arithmetic.multiply
        table = combine(x, y, qx, qy, planner.quant_of(quantizer))
        planner.finish_quantized(quantizer, one.source.tensor, one.shape, one.source.nhwc, table)
        return True
    return False


def _integer_binary(planner: Planner, node: Node, quantizer: Node, a: Quantized, b: Quantized) -> bool:
    if len(a.shape) == 4 and a.shape[2:] == (1, 1) and b.shape[2:] != (1, 1):
        # Both formulas but the order of QLinearAdd's two fused sums are symmetric.
        if node.op_type == "Add":
            return False
        a, b = b, a
    gate = len(a.shape) == 4 and b.shape == (*a.shape[:2], 1, 1) and node.op_type == "Mul"
    if a.shape != b.shape and not gate:
        return False
    first, second = planner.as_real(a, node.inputs[0]), planner.as_real(b, node.inputs[1])
    if len(a.shape) == 4:
        first, second = planner.channels_last(first, node), planner.channels_last(second, node)
    output = planner.quant_of(quantizer)
    tensor = planner.emit(
        *("add_u8" if node.op_type == "Add" else "mul_u8", node.name, [first.tensor, second.tensor], "u8"),
        first.tensor.shape,
        ints=(a.quant.zero, b.quant.zero, output.zero),
        floats=(a.quant.scale, b.quant.scale, output.scale),
    )
    planner.finish_quantized(quantizer, tensor, a.shape, first.nhwc, None)
    return True


def _real_binary(planner: Planner, node: Node, a: Value, b: Value) -> None:
    first, second = planner.as_real(a, node.inputs[0]), planner.as_real(b, node.inputs[1])
    if first.nhwc or second.nhwc:
        first, second = (_beside(planner, node, real) for real in (first, second))
    nhwc = first.nhwc or second.nhwc
    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError as error:
        raise planner.refused(node, f"shapes {first.shape} and {second.shape} do not go together") from error
    physical = np.broadcast_shapes(first.tensor.shape, second.tensor.shape)
    _float_only(planner, node, first)
    _float_only(planner, node, second)
    tensor = planner.emit(
        *("binary_f32", node.name, [first.tensor, second.tensor], "f32", physical), ints=(BINARIES[node.op_type],)
    )
    planner.values[node.outputs[0]] = Real(tensor, shape, nhwc)


def _beside(planner: Planner, node: Node, real: Real) -> Real:
    """Return a value that broadcasts beside one with channels last."""
    if real.nhwc or prod(real.shape) == 1:
        return real
    lead = (1,) * (4 - len(real.shape)) + real.shape
    return planner.channels_last(Real(planner.reshaped(real.tensor, lead), lead), node)


def _function(planner: Planner, node: Node) -> tuple[int, tuple[float, float], Callable[[Floats], Floats]]:
    kind = node.op_type
    if kind in ("Relu", "Clip"):
        low, high = clip_bounds(planner, node)
        return UNARIES["Clip"], (low, high), lambda x: np.clip(x, F32(low), F32(high))
    if kind == "HardSigmoid":
        alpha, beta = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
        return UNARIES[kind], (alpha, beta), lambda x: arithmetic.hard_sigmoid(x, alpha, beta)
    if kind == "LeakyRelu":
        slope = float(node.get("alpha", 0.01))
        return UNARIES[kind], (slope, 0.0), lambda x: np.where(x < 0, x * F32(slope), x)
    if kind == "Gelu" and node.get("approximate", b"none") not in (b"none", "none"):
        raise planner.refused(node, "the approximation of Gelu by tanh is not offered; expected the exact one")
    functions: dict[str, Callable[[Floats], Floats]] = {
        "HardSwish": lambda x: x * arithmetic.hard_sigmoid(x, 1 / 6, 0.5),
        "Sigmoid": arithmetic.sigmoid,
        "Gelu": arithmetic.gelu,
        "Tanh": np.tanh,
        "Sqrt": np.sqrt,
        "Exp": np.exp,
        "Neg": np.negative,
        "Erf": arithmetic.erf,
    }
    return UNARIES[kind], (0.0, 0.0), functions[kind]


def _times_own_input(planner: Planner, node: Node) -> Node | None:
    readers = planner.consumers[node.outputs[0]]
    if len(readers) != 1 or node.outputs[0] in planner.graph_outputs or readers[0].op_type != "Mul":
        return None
    return readers[0] if sorted(readers[0].inputs) == sorted([node.inputs[0], node.outputs[0]]) else None


def _apply(op_type: str, a: Floats, b: Floats) -> Floats:
    operations: dict[str, Callable[..., Floats]] = {
        **{"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    }
    with np.errstate(all="ignore"):
        return operations[op_type](a, b).astype(F32)


def _float_only(planner: Planner, node: Node, real: Real) -> None:
    if real.tensor.dtype != "f32":
        raise planner.refused(node, f"{node.op_type} of {real.tensor.dtype}; expected floats")
