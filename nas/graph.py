"""The lowered network: ops with shapes and derived costs, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from nas.architecture import Architecture, Precision

Shape = tuple[int, ...]
Attribute = int | float | str | tuple[int, ...]

GRAPH_INPUT = "input"
MAC_KINDS = frozenset({"conv", "gemm", "matmul"})
# Kinds whose tensor called ``weight`` is stored at the op's precision.
WEIGHT_KINDS = frozenset({"conv", "gemm", "gather"})

# Weights of 4 bits share a scale in groups of so many inputs, the largest that divides them.
INT4_GROUPS = (128, 32, 16)


def int4_group(inputs: int) -> int | None:
    """Return how many inputs of a layer share a scale of 4-bit weights; None where no group divides them."""
    return next((group for group in INT4_GROUPS if inputs % group == 0), None)


@dataclass(frozen=True)
class Op:
    """One operation at batch size 1, after batch norm was folded into its convolution.

    Kinds that bear multiply-accumulates: ``conv`` (input (1, c, h, w), weight (out, c / groups, kh, kw)), ``gemm``
    (input (..., features), weight (out, in) or (in, out)), ``matmul`` (two activations, (..., m, k) and
    (..., k, n)). Every other kind counts 0 MACs.

    Args:
        name: unique in its graph.
        kind: lower-case operator kind, such as ``conv``, ``add``, ``softmax``.
        inputs: names of the producing ops; ``input`` stands for the graph's input.
        input_shapes: shapes of the activations read, batch included.
        output_shape: shape of the activation written, batch included.
        dtype: precision at which the op computes.
        weights: name to shape of each stored tensor; ``bias`` is kept in 4 bytes at every precision.
        attributes: strides, groups, kernel and the like.
        block: block of the architecture to which it belongs, the key of its precision gene.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    dtype: Precision = Precision.FP32
    weights: Mapping[str, Shape] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    block: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        if self.kind == "conv":
            weight = self.weights["weight"]
            return prod(weight[1:]) * prod(self.output_shape)
        if self.kind == "gemm":
            return prod(self.output_shape) * self.input_shapes[0][-1]
        if self.kind == "matmul":
            return prod(self.output_shape) * self.input_shapes[0][-1]
        return 0

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return sum(prod(shape) for shape in self.weights.values())

    @property
    def weight_bytes(self) -> int:
        """Bytes of the stored values at this precision, scales and zero points not counted.

        Only the tensor called ``weight`` of a conv, gemm or gather (an embedding) shrinks with the precision; biases,
        norms and positions stay at 4 bytes each.
        """
        total = 0
        for name, shape in self.weights.items():
            shrinks = name == "weight" and self.kind in WEIGHT_KINDS
            bits = self.dtype.weight_bits if shrinks else 32
            total += -(-prod(shape) * bits // 8)
        return total

    @property
    def activation_bytes(self) -> int:
        """Bytes of the activations read and written for one sample."""
        width = 1 if self.dtype in (Precision.INT8, Precision.INT4) else 2 if self.dtype is Precision.FP16 else 4
        return width * (sum(prod(shape) for shape in self.input_shapes) + prod(self.output_shape))


@dataclass(frozen=True)
class Graph:
    """Ops in an order in which each follows its producers.

    Args:
        ops: in that order.
        input_shape: batch included.
        architecture: that was lowered, for models that look at choices too; None for a graph from elsewhere.
    """

    ops: tuple[Op, ...]
    input_shape: Shape
    architecture: Architecture | None = field(default=None, compare=False, repr=False)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return sum(op.macs for op in self.ops)

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return sum(op.parameters for op in self.ops)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the stored values at their precisions."""
        return sum(op.weight_bytes for op in self.ops)

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations moved for one sample, every op reading and writing memory."""
        return sum(op.activation_bytes for op in self.ops)

    @property
    def mac_ops(self) -> tuple[Op, ...]:
        """The ops that bear multiply-accumulates."""
        return tuple(op for op in self.ops if op.kind in MAC_KINDS)
