"""From block descriptions to the ops of :mod:`nas.graph`, without torch.

The graph repeats the exported ONNX file op for op: names, kinds, shapes, weights and edges. What the exporter folds
(batch norm into convolutions) and what is no tensor of the network (shape and scalar constants) is absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from nas.architecture import Precision
from nas.graph import GRAPH_INPUT, Attribute, Graph, Op, Shape
from search_spaces.specs import (
    Attention,
    Bottleneck,
    CausalAttention,
    CausalStem,
    ConvUnit,
    LanguageHead,
    Mlp,
    Network,
    PatchStem,
    PooledHead,
    Residual,
    TokenHead,
    TokenStem,
)

_ACTIVATION_OPS = {"relu": "Relu", "relu6": "Clip", "hswish": "HardSwish", "gelu": "Gelu"}
_NORM_OPS = {"layernorm": "LayerNormalization", "rmsnorm": "RMSNormalization"}


@dataclass(frozen=True)
class Value:
    """An activation: the op that writes it and its shape, batch of 1 included."""

    op: str
    shape: Shape


class Tape:
    """Writes down the ops of one block after another.

    Args:
        precision: block to precision; fp32 where absent.
    """

    def __init__(self, precision: Mapping[str, Precision]) -> None:
        self.ops: list[Op] = []
        self._precision = precision
        self._block = ""
        self._names: Counter[str] = Counter()

    def enter(self, block: str) -> None:
        """Make ``block`` the owner of the ops that follow."""
        self._block = block

    def add(
        self,
        path: str,
        operator: str,
        inputs: Sequence[Value],
        shape: Shape,
        weights: Mapping[str, Shape] | None = None,
        **attributes: Attribute,
    ) -> Value:
        """Append an op and return what it writes.

        Args:
            path: dotless module path inside the block, such as ``conv1/conv``; empty for the block itself.
            operator: ONNX operator type.
            inputs: activations read.
            shape: of the activation written.
            weights: name to shape of the stored tensors.
            attributes: by their ONNX names.
        """
        scope = "/".join(("", self._block, path, operator) if path else ("", self._block, operator))
        name = f"{scope}_{self._names[scope]}" if self._names[scope] else scope
        self._names[scope] += 1
        kind = "gemm" if operator == "MatMul" and weights else operator.lower()
        op = Op(
            name=name,
            kind=kind,
            inputs=tuple(value.op for value in inputs),
            input_shapes=tuple(value.shape for value in inputs),
            output_shape=shape,
            dtype=self._precision.get(self._block, Precision.FP32),
            weights=weights or {},
            attributes=attributes,
            block=self._block,
        )
        self.ops.append(op)
        return Value(name, shape)

    def conv(self, path: str, value: Value, outputs: int, kernel: int, stride: int, groups: int = 1) -> Value:
        """Append a convolution with bias and ``kernel // 2`` padding."""
        return self._conv(path, value, outputs, kernel, stride, kernel // 2, groups)

    def patches(self, path: str, value: Value, outputs: int, patch: int) -> Value:
        """Append a convolution whose kernel and stride are the patch, without padding."""
        return self._conv(path, value, outputs, patch, patch, 0, 1)

    def _conv(self, path: str, value: Value, outputs: int, kernel: int, stride: int, pad: int, groups: int) -> Value:
        _, channels, height, width = value.shape
        rows, columns = ((side + 2 * pad - kernel) // stride + 1 for side in (height, width))
        return self.add(
            path,
            "Conv",
            [value],
            (1, outputs, rows, columns),
            {"weight": (outputs, channels // groups, kernel, kernel), "bias": (outputs,)},
            dilations=(1, 1),
            group=groups,
            kernel_shape=(kernel, kernel),
            pads=(pad, pad, pad, pad),
            strides=(stride, stride),
        )

    def unit(self, path: str, value: Value, spec: ConvUnit) -> Value:
        """Append a convolution, its folded norm, and its activation."""
        prefix = f"{path}/" if path else ""
        value = self.conv(f"{prefix}conv", value, spec.outputs, spec.kernel, spec.stride, spec.groups)
        return self.activation(f"{prefix}act", value, spec.activation)

    def activation(self, path: str, value: Value, name: str) -> Value:
        """Append an activation; ``none`` appends nothing, ``silu`` two ops."""
        if name == "none":
            return value
        if name == "silu":
            gate = self.add(path, "Sigmoid", [value], value.shape)
            return self.add(path, "Mul", [value, gate], value.shape)
        return self.add(path, _ACTIVATION_OPS[name], [value], value.shape)

    def squeeze(self, path: str, value: Value, hidden: int) -> Value:
        """Append squeeze-and-excite; 0 hidden channels append nothing."""
        if not hidden:
            return value
        channels = value.shape[1]
        gate = self.pool(f"{path}/pool", value)
        gate = self.activation(f"{path}/act", self.conv(f"{path}/reduce", gate, hidden, 1, 1), "relu")
        gate = self.conv(f"{path}/expand", gate, channels, 1, 1)
        gate = self.add(f"{path}/gate", "Sigmoid", [gate], gate.shape)
        return self.add(path, "Mul", [value, gate], value.shape)

    def pool(self, path: str, value: Value) -> Value:
        """Append global average pooling."""
        return self.add(path, "GlobalAveragePool", [value], (*value.shape[:2], 1, 1))

    def sum(self, left: Value, right: Value) -> Value:
        """Append the addition of two activations of one shape, or of one that broadcasts to the left's."""
        return self.add("", "Add", [left, right], left.shape)

    def linear(self, path: str, value: Value, outputs: int) -> Value:
        """Append a linear layer with bias on rows of shape (rows, features)."""
        rows, features = value.shape
        weights = {"weight": (outputs, features), "bias": (outputs,)}
        return self.add(path, "Gemm", [value], (rows, outputs), weights, transB=1)

    def norm(self, path: str, value: Value, name: str) -> Value:
        """Append a norm over the last axis."""
        weights = {"weight": value.shape[-1:]}
        if name == "layernorm":
            weights["bias"] = value.shape[-1:]
        return self.add(path, _NORM_OPS[name], [value], value.shape, weights, axis=-1)

    def reshape(self, value: Value, *shape: int) -> Value:
        """Append a reshape of the block's own forward method."""
        return self.add("", "Reshape", [value], shape)

    def transpose(self, value: Value, *perm: int) -> Value:
        """Append a transpose of the block's own forward method."""
        return self.add("", "Transpose", [value], tuple(value.shape[axis] for axis in perm), perm=perm)

    def softmax(self, value: Value) -> Value:
        """Append a softmax over the last axis."""
        return self.add("", "Softmax", [value], value.shape, axis=-1)

    def matmul(self, left: Value, right: Value) -> Value:
        """Append a product of two activations, (..., m, k) and (..., k, n)."""
        return self.add("", "MatMul", [left, right], (*left.shape[:-1], right.shape[-1]))


def lower_network(network: Network, precision: Mapping[str, Precision]) -> Graph:
    """Return the ops of all blocks at batch size 1.

    Args:
        network: blocks in order.
        precision: block to precision; fp32 where absent.
    """
    tape = Tape(precision)
    value = Value(GRAPH_INPUT, network.input_shape)
    for name, spec in network.blocks:
        tape.enter(name)
        value = lower_block(spec, tape, value)
    return Graph(tuple(tape.ops), network.input_shape)


@singledispatch
def lower_block(spec: Any, tape: Tape, value: Value) -> Value:
    """Append one block's ops and return what it writes; register a function per kind of block."""
    raise TypeError(f"no lowering for {type(spec).__name__}; register one with lower_block.register")


@lower_block.register
def _(spec: ConvUnit, tape: Tape, value: Value) -> Value:
    return tape.unit("", value, spec)


@lower_block.register
def _(spec: Residual, tape: Tape, value: Value) -> Value:
    first = ConvUnit(spec.inputs, spec.outputs, spec.kernel, spec.stride, spec.activation)
    inner = tape.unit("conv1", value, first)
    inner = tape.conv("conv2/conv", inner, spec.outputs, spec.kernel, 1)
    inner = tape.squeeze("squeeze", inner, spec.squeeze)
    if spec.projects:
        value = tape.conv("shortcut/conv", value, spec.outputs, 1, spec.stride)
    return tape.activation("act", tape.sum(inner, value), spec.activation)


@lower_block.register
def _(spec: Bottleneck, tape: Tape, value: Value) -> Value:
    inner = value
    if spec.fused:
        outputs = spec.hidden if spec.widens else spec.outputs
        unit = ConvUnit(spec.inputs, outputs, spec.kernel, spec.stride, spec.activation)
        inner = tape.unit("expand", inner, unit)
    else:
        if spec.widens:
            inner = tape.unit("expand", inner, ConvUnit(spec.inputs, spec.hidden, 1, 1, spec.activation))
        unit = ConvUnit(spec.hidden, spec.hidden, spec.kernel, spec.stride, spec.activation, spec.hidden)
        inner = tape.unit("depthwise", inner, unit)
    inner = tape.squeeze("squeeze", inner, spec.squeeze)
    if not spec.fused or spec.widens:
        inner = tape.conv("project/conv", inner, spec.outputs, 1, 1)
    return tape.sum(inner, value) if spec.adds_input else inner


@lower_block.register
def _(spec: PooledHead, tape: Tape, value: Value) -> Value:
    if spec.hidden:
        value = tape.unit("conv", value, ConvUnit(spec.inputs, spec.hidden, 1, 1, spec.activation))
    value = tape.pool("pool", value)
    value = tape.add("flatten", "Flatten", [value], (1, value.shape[1]), axis=1)
    return tape.linear("classifier", value, spec.classes)


@lower_block.register
def _(spec: PatchStem, tape: Tape, value: Value) -> Value:
    value = tape.patches("conv", value, spec.width, spec.patch)
    value = tape.transpose(tape.reshape(value, 1, spec.width, spec.tokens), 0, 2, 1)
    value = tape.add("", "Add", [value], value.shape, {"table": (spec.tokens, spec.width)})
    return tape.reshape(value, spec.tokens, spec.width)


@lower_block.register
def _(spec: TokenStem, tape: Tape, value: Value) -> Value:
    weights = {"weight": (spec.vocabulary, spec.width)}
    value = tape.add("embed", "Gather", [value], (1, spec.tokens, spec.width), weights)
    value = tape.add("", "Add", [value], value.shape, {"table": (spec.tokens, spec.width)})
    return tape.reshape(value, spec.tokens, spec.width)


@lower_block.register
def _(spec: Attention, tape: Tape, value: Value) -> Value:
    tokens, size, group = spec.tokens, spec.head_size, spec.heads // spec.kv_heads
    together = spec.heads + 2 * spec.kv_heads
    joint = tape.linear("qkv", tape.norm("norm", value, spec.norm), together * size)
    joint = tape.transpose(tape.reshape(joint, 1, tokens, together, size), 0, 2, 1, 3)
    split = tape.add("", "Split", [joint], joint.shape, axis=1).op
    query = Value(split, (1, spec.heads, tokens, size))
    key = value_ = Value(split, (1, spec.kv_heads, tokens, size))
    if group > 1:
        query = tape.reshape(query, 1, spec.kv_heads, group * tokens, size)
    query = tape.add("", "Mul", [query], query.shape)
    scores = tape.softmax(tape.matmul(query, tape.transpose(key, 0, 1, 3, 2)))
    mixed = tape.matmul(scores, value_)
    if group > 1:
        mixed = tape.reshape(mixed, 1, spec.heads, tokens, size)
    mixed = tape.reshape(tape.transpose(mixed, 0, 2, 1, 3), tokens, spec.heads * size)
    return tape.sum(value, tape.linear("out", mixed, spec.width))


@lower_block.register
def _(spec: Mlp, tape: Tape, value: Value) -> Value:
    inner = tape.linear("fc1", tape.norm("norm", value, spec.norm), spec.hidden)
    inner = tape.linear("fc2", tape.activation("act", inner, spec.activation), spec.width)
    return tape.sum(value, inner)


@lower_block.register
def _(spec: TokenHead, tape: Tape, value: Value) -> Value:
    value = tape.norm("norm", value, spec.norm)
    if spec.pooling == "mean":
        tokens = tape.reshape(value, 1, spec.tokens, spec.width)
        pooled = tape.add("", "ReduceMean", [tokens], (1, spec.width))
    else:
        score = tape.add("score", "MatMul", [value], (spec.tokens, 1), {"weight": (spec.width, 1)})
        weights = tape.softmax(tape.reshape(score, 1, 1, spec.tokens))
        pooled = tape.matmul(weights, tape.reshape(value, 1, spec.tokens, spec.width))
        pooled = tape.reshape(pooled, 1, spec.width)
    return tape.linear("classifier", pooled, spec.classes)


@lower_block.register
def _(spec: CausalStem, tape: Tape, value: Value) -> Value:
    # A shared table is the head's; the mask's arithmetic on whole numbers is left out.
    weights = {} if spec.shared else {"weight": (spec.vocabulary, spec.width)}
    value = tape.add("embed", "Gather", [value], (1, spec.tokens, spec.width), weights)
    value = tape.add("", "Add", [value], value.shape, {"table": (spec.context, spec.width)})
    return tape.reshape(value, spec.tokens, spec.width)


@lower_block.register
def _(spec: CausalAttention, tape: Tape, value: Value) -> Value:
    tokens, size, group = spec.tokens, spec.head_size, spec.heads // spec.kv_heads
    together = spec.heads + 2 * spec.kv_heads
    joint = tape.linear("qkv", tape.norm("norm", value, spec.norm), together * size)
    joint = tape.transpose(tape.reshape(joint, 1, tokens, together, size), 0, 2, 1, 3)
    split = tape.add("", "Split", [joint], joint.shape, axis=1).op
    query = Value(split, (1, spec.heads, tokens, size))
    fresh = Value(split, (1, spec.kv_heads, tokens, size))
    grown = (1, spec.kv_heads, spec.past + tokens, size)
    key, kept = (tape.add("", "Concat", [fresh], grown, axis=2) for _ in range(2))
    if group > 1:
        query = tape.reshape(query, 1, spec.kv_heads, group * tokens, size)
    query = tape.add("", "Mul", [query], query.shape)
    scores = tape.matmul(query, tape.transpose(key, 0, 1, 3, 2))
    scores = tape.softmax(tape.add("", "Add", [scores], scores.shape))
    mixed = tape.matmul(scores, kept)
    if group > 1:
        mixed = tape.reshape(mixed, 1, spec.heads, tokens, size)
    mixed = tape.reshape(tape.transpose(mixed, 0, 2, 1, 3), tokens, spec.heads * size)
    return tape.sum(value, tape.linear("out", mixed, spec.width))


@lower_block.register
def _(spec: LanguageHead, tape: Tape, value: Value) -> Value:
    return tape.reshape(
        tape.linear("", tape.norm("norm", value, spec.norm), spec.vocabulary), 1, spec.tokens, spec.vocabulary
    )
