"""What networks on tokens need beside products with weights: norms, softmax, products of activations, means."""

from __future__ import annotations

from math import prod

import numpy as np

from nas.runtime.plan.planner import Node, Planner, floats_of, handles
from nas.runtime.plan.program import Constant
from nas.runtime.plan.values import Real


def lower_matmul(planner: Planner, node: Node) -> None:
    """Multiply two computed matrices, batch axes equal."""
    a, b = (planner.plain(planner.real(name)) for name in node.inputs)
    fits = len(a.shape) == len(b.shape) >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    if not fits:
        raise planner.refused(node, f"shapes {a.shape} and {b.shape}; expected equal batch axes and fitting matrices")
    shape = (*a.shape[:-1], b.shape[-1])
    tensor = planner.emit("matmul_f32", node.name, [a.tensor, b.tensor], "f32", shape)
    planner.values[node.outputs[0]] = Real(tensor, shape)


@handles("Softmax")
def lower_softmax(planner: Planner, node: Node) -> None:
    """Softmax over the last axis."""
    real = planner.plain(planner.real(node.inputs[0]))
    if int(node.get("axis", -1)) % len(real.shape) != len(real.shape) - 1:
        raise planner.refused(node, f"axis {node.get('axis', -1)} of {len(real.shape)}; expected the last one")
    tensor = planner.emit("softmax_f32", node.name, [real.tensor], "f32", real.shape)
    planner.values[node.outputs[0]] = Real(tensor, real.shape)


@handles("LayerNormalization", "RMSNormalization")
def lower_norm(planner: Planner, node: Node) -> None:
    """Normalize over the last axis; the mean is kept where the kind is RMSNormalization."""
    real = planner.plain(planner.real(node.inputs[0]))
    if int(node.get("axis", -1)) % len(real.shape) != len(real.shape) - 1 or len(node.outputs) != 1:
        raise planner.refused(node, "expected the last axis and one output")
    width = real.shape[-1]
    scale, bias = planner.stored(node, 1), planner.stored(node, 2)
    gains = np.ones(width, np.float32) if scale is None else scale.floats().reshape(-1)
    layer = node.op_type == "LayerNormalization"
    quantizer = planner.quantize_behind(node.outputs[0])
    output = planner.quant_of(quantizer) if quantizer else None
    tensor = planner.emit(
        *("norm_f32", node.name, [real.tensor], "f32" if output is None else "u8", real.shape),
        constants=[Constant("f32", gains), Constant("f32", floats_of(bias, width))],
        ints=(int(layer), 0 if output is None else output.zero),
        floats=(float(node.get("epsilon", 1e-5)), 0.0 if output is None else output.scale),
    )
    if quantizer is None:
        planner.values[node.outputs[0]] = Real(tensor, real.shape)
    else:
        planner.finish_quantized(quantizer, tensor, real.shape, False, None)


@handles("ReduceMean")
def lower_mean(planner: Planner, node: Node) -> None:
    """Mean over neighbouring axes, none of them the last, in the order of the graph's axes."""
    real = planner.plain(planner.real(node.inputs[0]))
    stored = planner.stored(node, 1)
    given = stored.array.reshape(-1) if stored else node.get("axes", [])
    if len(given) == 0:
        if node.get("noop_with_empty_axes", 0):
            raise planner.refused(node, "noop_with_empty_axes is not offered; expected axes")
        given = range(len(real.shape))
    axes = sorted(int(axis) % len(real.shape) for axis in given)
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise planner.refused(node, f"axes {axes}; expected neighbours")
    before, middle = prod(real.shape[: axes[0]]), prod([real.shape[axis] for axis in axes])
    after = prod(real.shape[axes[-1] + 1 :])
    read = planner.reshaped(real.tensor, (before, middle, 1, after))
    tensor = planner.emit("mean_f32", node.name, [read], "f32", (before, 1, 1, after))
    keep = int(node.get("keepdims", 1))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(real.shape) if keep or axis not in axes)
    planner.values[node.outputs[0]] = Real(planner.reshaped(tensor, shape), shape)
