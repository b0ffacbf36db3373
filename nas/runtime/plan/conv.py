"""Convolutions, matrix products with stored weights, and pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from nas.runtime.plan.arithmetic import F32, Bytes, Quant, quantize
from nas.runtime.plan.planner import Node, Planner, floats_of, handles
from nas.runtime.plan.program import UNARIES, Constant, Grouped, Op, Tensor
from nas.runtime.plan.values import Curve, Quantized, Real, Shape, Stored, dequantized

_LEAST, _MOST = -128, 127
# Two products of the same float32 scales, rounded in any order, are nearer than this.
_SAME_SCALE = 1e-4


@dataclass(frozen=True)
class Window:
    """Where a convolution or a pooling reads.

    Args:
        kernel: height and width.
        strides: vertical and horizontal.
        pads: top, left, bottom, right.
        groups: of channels.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int = 1

    @property
    def ints(self) -> tuple[int, ...]:
        """As the program stores it."""
        return (*self.kernel, *self.strides, *self.pads, self.groups)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides of the result."""
        top, left, bottom, right = self.pads
        return (
            (height + top + bottom - self.kernel[0]) // self.strides[0] + 1,
            (width + left + right - self.kernel[1]) // self.strides[1] + 1,
        )


def window_of(planner: Planner, node: Node, kernel: Shape) -> Window:
    """Return the window of a node.

    Raises:
        ModelFileError: other than 2-dimensional, dilated, or padded automatically.
    """
    if len(kernel) != 2 or any(size != 1 for size in node.get("dilations", [])):
        raise planner.refused(node, f"kernel {kernel}, dilations {node.get('dilations', [])}; expected 2-d, undilated")
    if node.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or node.get("ceil_mode", 0):
        raise planner.refused(node, "auto_pad and ceil_mode are not offered; expected explicit pads")
    strides, pads = node.get("strides", [1, 1]), node.get("pads", [0, 0, 0, 0])
    return Window((int(kernel[0]), int(kernel[1])), (strides[0], strides[1]), tuple(pads), int(node.get("group", 1)))


@handles("Conv")
def lower_conv(planner: Planner, node: Node) -> None:
    """Lower a convolution: in integers where input, weights and output are quantized, else in float."""
    weights = planner.stored(node, 1)
    if weights is None or weights.array.ndim != 4:
        raise planner.refused(node, "expected 2-dimensional weights that are stored")
    window = window_of(planner, node, weights.array.shape[2:])
    source = planner.value(node, 0)
    batch, channels, height, width = _four(planner, node, source)
    if window.groups < 1 or weights.array.shape[1] * window.groups != channels:
        raise planner.refused(node, f"weights {weights.array.shape} do not fit {channels} channels")
    sides = window.output(height, width)
    if min(sides) < 1:
        raise planner.refused(node, f"its window does not fit a map of {height} x {width}")
    shape = (batch, weights.array.shape[0], *sides)
    physical = (batch, *sides, shape[1])
    integers = weights.scale is not None and isinstance(source, Curve) and source.exact
    behind = quantizer_behind(planner, node) if integers else None
    if isinstance(source, Curve) and behind is not None:
        quantizer, clamp = behind
        read = planner.channels_last(planner.as_real(source.source, node.inputs[0]), node)
        output = planner.quant_of(quantizer)
        tensor = integer_product(
            planner, node, read.tensor, source.source.quant, weights, output, physical, window.ints, (0, 2, 3, 1)
        )
        planner.finish_quantized(quantizer, tensor, shape, True, clamp)
        return
    planner.in_floats(node)
    real = planner.channels_last(planner.as_real(source, node.inputs[0]), node)
    kernel = weights.floats().transpose(0, 2, 3, 1)
    bias = floats_of(planner.stored(node, 2), shape[1])
    planner.values[node.outputs[0]] = Real(
        planner.emit(
            *("conv_f32", node.name, [real.tensor], "f32", physical),
            constants=[Constant("f32", np.ascontiguousarray(kernel)), Constant("f32", bias)],
            ints=(*window.ints, UNARIES["none"]),
            floats=(0.0, 0.0),
        ),
        shape,
        nhwc=True,
    )


def quantizer_behind(planner: Planner, node: Node) -> tuple[Node, Bytes | None] | None:
    """Return the QuantizeLinear that alone reads a node's output, directly or through one Relu or Clip.

    Quantization is monotone, so a clamp before it is a clamp of bytes behind it, which is returned as a table.
    """
    direct = planner.quantize_behind(node.outputs[0])
    if direct is not None:
        return direct, None
    readers = planner.consumers[node.outputs[0]]
    if len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip") or node.outputs[0] in planner.graph_outputs:
        return None
    quantizer = planner.quantize_behind(readers[0].outputs[0])
    if quantizer is None:
        return None
    low, high = clip_bounds(planner, readers[0])
    planner.done.add(id(readers[0]))
    ends = quantize(np.array([low, high], F32), planner.quant_of(quantizer))
    return quantizer, np.clip(np.arange(256), ends[0], ends[1]).astype(np.uint8)


def clip_bounds(planner: Planner, node: Node) -> tuple[float, float]:
    """Return the bounds of a Relu or Clip."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = [float(node.get("min", -np.inf)), float(node.get("max", np.inf))]
    for index in (1, 2):
        stored = planner.stored(node, index)
        if stored is not None:
            bounds[index - 1] = float(stored.floats().reshape(-1)[0])
    return bounds[0], bounds[1]


def integer_product(
    planner: Planner,
    node: Node,
    tensor: Tensor,
    quant: Quant,
    weights: Stored,
    output: Quant | None,
    physical: Shape,
    window: tuple[int, ...],
    order: tuple[int, ...],
) -> Tensor:
    """Emit a product of bytes with quantized weights; ``output`` None leaves the sums as floats.

    Args:
        order: of the weights' axes, so that output channels come first and summed channels last.
    """
    bias = planner.stored(node, 2)
    array, scale = weights.array, weights.scale
    outputs = physical[-1]
    if array.dtype not in (np.int8, np.uint8) or weights.zero is None or scale is None:
        raise planner.refused(node, f"weights of {array.dtype}; expected 8 bits")
    if scale.size > 1 and order[0] != weights.axis:
        raise planner.refused(node, f"weights scaled along axis {weights.axis}; expected one scale per output channel")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise planner.refused(node, "scales of the weights that are not positive numbers")
    if bias is not None and bias.array.dtype != np.int32:
        raise planner.refused(node, f"a bias of {bias.array.dtype}; expected 32-bit integers behind DequantizeLinear")
    if bias is not None and not _in_units_of_sums(bias, F32(quant.scale) * scale.astype(F32)):
        raise planner.refused(node, "a bias of other scales; expected those of the sums, input's times weights'")
    centred = array.transpose(order).astype(np.int32)
    centred -= weights.zero.reshape(-1, *(1,) * (array.ndim - 1))
    tensor, ordered = _in_signed_bytes(planner, node, tensor, centred, window[-1])
    sums = ordered.reshape(outputs, -1).astype(np.int64).sum(axis=1)
    given = np.zeros(outputs, np.int64) if bias is None else bias.array.astype(np.int64).reshape(-1)
    # In 32 bits with wrap-around, as the accumulators are.
    folded = (given - quant.zero * sums).astype(np.uint64).astype(np.uint32).view(np.int32)
    product = np.broadcast_to(F32(quant.scale) * scale.astype(F32), (outputs,))
    multiplier = product if output is None else product / F32(output.scale)
    return planner.emit(
        *("conv_u8", node.name, [tensor], "f32" if output is None else "u8", physical),
        constants=[
            Constant("s8", ordered, _grouped(weights, order)),
            Constant("i32", folded),
            Constant("f32", multiplier.astype(F32)),
        ],
        ints=(*window, quant.zero, 0 if output is None else output.zero),
    )


def _grouped(weights: Stored, order: tuple[int, ...]) -> Grouped | None:
    """Return the weights in 4 bits where these axes are those in which a program's file keeps such."""
    # Their 8-bit values lie in -128..112 and have no zero point, so that nothing was changed or doubled.
    return weights.grouped if order in ((0, 2, 3, 1), (0, 1)) else None


def _in_units_of_sums(bias: Stored, sums: NDArray[np.float32]) -> bool:
    """Return whether an integer bias can be added to the sums as it is; one of a QLinear operator always can."""
    if bias.scale is None or bias.zero is None:
        return True
    fits = bias.scale.size in (1, sums.size) and np.allclose(bias.scale, sums, rtol=_SAME_SCALE, atol=0.0)
    return fits and not bias.zero.any()


def _in_signed_bytes(
    planner: Planner, node: Node, tensor: Tensor, weights: NDArray[np.int32], groups: int
) -> tuple[Tensor, NDArray[np.int8]]:
    """Return input and weights without zero point, as two halves over the channels twice where one is too narrow."""
    if weights.min() >= _LEAST and weights.max() <= _MOST:
        return tensor, np.ascontiguousarray(weights.astype(np.int8))
    if groups != 1:
        raise planner.refused(node, "weights further than 127 from their zero point, in groups; expected signed ones")
    low = np.clip(weights, _LEAST, _MOST)
    high = weights - low
    if high.min() < _LEAST or high.max() > _MOST:
        high, low = weights - weights // 2, weights // 2
    physical = (*tensor.shape[:-1], 2 * tensor.shape[-1])
    axis = len(physical) - 1
    twice = planner.emit("concat", f"{node.name}_twice", [tensor, tensor], "u8", physical, ints=(axis,))
    return twice, np.ascontiguousarray(np.concatenate([low, high], axis=-1).astype(np.int8))


@handles("Gemm", "MatMul")
def lower_product(planner: Planner, node: Node) -> None:
    """Lower a product with stored weights as a 1x1 convolution over rows, one of two activations as itself."""
    from nas.runtime.plan.tokens import lower_matmul

    weights = planner.values.get(node.inputs[1])
    if not isinstance(weights, Stored) or weights.array.ndim != 2:
        if node.op_type == "Gemm":
            raise planner.refused(node, "expected 2-dimensional weights that are stored")
        planner.in_floats(node)
        lower_matmul(planner, node)
        return
    if node.get("alpha", 1.0) != 1.0 or node.get("beta", 1.0) != 1.0 or node.get("transA", 0):
        raise planner.refused(node, "alpha, beta and transA are not offered; expected 1, 1 and 0")
    order = (0, 1) if node.get("transB", 0) else (1, 0)
    depth, outputs = weights.array.shape[order[1]], weights.array.shape[order[0]]
    source = planner.value(node, 0)
    given = source.array.shape if isinstance(source, Stored) else source.shape
    if not given or given[-1] != depth or (node.op_type == "Gemm" and len(given) != 2):
        raise planner.refused(node, f"inputs of shape {given} do not fit weights {weights.array.shape}")
    shape = (*given[:-1], outputs)
    rows = prod(given[:-1])
    physical, window = (1, rows, 1, outputs), (1, 1, 1, 1, 0, 0, 0, 0, 1)
    if weights.scale is not None and isinstance(source, Curve) and source.exact:
        quantizer = planner.quantize_behind(node.outputs[0])
        read = planner.plain(planner.as_real(source.source, node.inputs[0]))
        tensor = planner.reshaped(read.tensor, (1, rows, 1, depth))
        output = planner.quant_of(quantizer) if quantizer else None
        product = integer_product(planner, node, tensor, source.source.quant, weights, output, physical, window, order)
        result = planner.reshaped(product, shape)
        if quantizer is not None:
            planner.finish_quantized(quantizer, result, shape, False, None)
        else:
            planner.values[node.outputs[0]] = Real(result, shape)
        return
    planner.in_floats(node)
    real = planner.plain(planner.as_real(source, node.inputs[0]))
    bias = planner.stored(node, 2)
    if bias is not None and bias.array.size not in (1, outputs):
        raise planner.refused(node, f"a bias of shape {bias.array.shape}; expected one per output")
    values = np.broadcast_to(floats_of(bias, outputs), (outputs,))
    product = planner.emit(
        *("conv_f32", node.name, [planner.reshaped(real.tensor, (1, rows, 1, depth))], "f32", physical),
        constants=[Constant("f32", weights.floats().transpose(order)), Constant("f32", values)],
        ints=(*window, UNARIES["none"]),
        floats=(0.0, 0.0),
    )
    planner.values[node.outputs[0]] = Real(planner.reshaped(product, shape), shape)


@handles("GlobalAveragePool")
def lower_global_average(planner: Planner, node: Node) -> None:
    """Lower the mean over height and width: in integers between quantized tensors, else in float."""
    source = planner.value(node, 0)
    batch, channels, height, width = _four(planner, node, source)
    shape, physical = (batch, channels, 1, 1), (batch, 1, 1, channels)
    quantizer = planner.quantize_behind(node.outputs[0])
    if isinstance(source, Curve) and source.exact and quantizer is not None:
        read = planner.channels_last(planner.as_real(source.source, node.inputs[0]), node)
        quant, output = source.source.quant, planner.quant_of(quantizer)
        multiplier = F32(quant.scale) / (F32(output.scale) * F32(height * width))
        tensor = planner.emit(
            *("mean_u8", node.name, [read.tensor], "u8", physical),
            ints=(quant.zero, output.zero),
            floats=(float(multiplier),),
        )
        planner.finish_quantized(quantizer, tensor, shape, True, None)
        return
    planner.in_floats(node)
    real = planner.channels_last(planner.as_real(source, node.inputs[0]), node)
    planner.values[node.outputs[0]] = Real(
        planner.emit("mean_f32", node.name, [real.tensor], "f32", physical), shape, nhwc=True
    )


@handles("BatchNormalization")
def lower_batch_norm(planner: Planner, node: Node) -> None:
    """Lower a batch norm that no convolution took in: a factor and a summand per channel."""
    gain, shift, mean, variance = (floats_of(planner.stored(node, index), 1) for index in (1, 2, 3, 4))
    source = planner.value(node, 0)
    shape = _four(planner, node, source)
    channels = shape[1]
    if node.get("training_mode", 0):
        raise planner.refused(node, "training_mode is not offered; expected stored statistics")
    if len(node.outputs) != 1 or not gain.size == shift.size == mean.size == variance.size == channels:
        raise planner.refused(node, f"expected stored statistics of {channels} channels and one output")
    factor = (gain / np.sqrt(variance + F32(node.get("epsilon", 1e-5)))).astype(F32)
    real = planner.channels_last(planner.as_real(source, node.inputs[0]), node)
    tensor = planner.emit(
        *("conv_f32", node.name, [real.tensor], "f32", real.tensor.shape),
        constants=[Constant("f32", factor.reshape(channels, 1, 1, 1)), Constant("f32", shift - mean * factor)],
        ints=(*Window((1, 1), (1, 1), (0, 0, 0, 0), channels).ints, UNARIES["none"]),
        floats=(0.0, 0.0),
    )
    planner.values[node.outputs[0]] = Real(tensor, shape, nhwc=True)


@handles("MaxPool", "AveragePool")
def lower_pool(planner: Planner, node: Node) -> None:
    """Lower a pooling; the largest of bytes is taken among bytes, everything else in float."""
    if len(node.outputs) != 1 or node.get("storage_order", 0):
        raise planner.refused(node, "indices of the largest are not offered; expected one output")
    window = window_of(planner, node, tuple(node.get("kernel_shape", ())))
    source = planner.value(node, 0)
    batch, channels, height, width = _four(planner, node, source)
    sides = window.output(height, width)
    shape, physical = (batch, channels, *sides), (batch, *sides, channels)
    average = node.op_type == "AveragePool"
    ints = (*window.ints, 1 if average else 0, int(node.get("count_include_pad", 0)))
    if not average and (isinstance(source, Quantized) or (isinstance(source, Curve) and source.exact)):
        # A monotone map of the largest byte is the largest of the mapped; scales are positive.
        given = source if isinstance(source, Quantized) else source.source
        read = planner.channels_last(planner.as_real(given, node.inputs[0]), node)
        tensor = planner.emit("pool", node.name, [read.tensor], "u8", physical, ints=ints)
        pooled = Quantized(tensor, shape, True, given.quant)
        planner.values[node.outputs[0]] = dequantized(pooled) if isinstance(source, Curve) else pooled
        return
    real = planner.channels_last(planner.as_real(source, node.inputs[0]), node)
    tensor = planner.emit("pool", node.name, [real.tensor], "f32", physical, ints=ints)
    planner.values[node.outputs[0]] = Real(tensor, shape, nhwc=True)


def fuse_activation(planner: Planner, tensor: Tensor, name: str, code: int, floats: tuple[float, float]) -> bool:
    """Let the last operator apply an activation, if it is the float convolution that wrote ``tensor``."""
    if not planner.program.ops:
        return False
    last = planner.program.ops[-1]
    if last.kind != "conv_f32" or last.outputs[0] is not tensor.owner or last.ints[-1] != UNARIES["none"]:
        return False
    planner.program.ops[-1] = Op(
        "conv_f32", name, last.inputs, last.outputs, last.constants, (*last.ints[:-1], code), floats
    )
    return True


def _four(planner: Planner, node: Node, value: object) -> Shape:
    shape: Shape = getattr(value, "shape", ())
    if len(shape) != 4:
        raise planner.refused(node, f"its input has shape {shape}; expected (batch, channels, height, width)")
    return shape
