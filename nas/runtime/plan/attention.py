"""Attention written out as products, softmax and moves of memory, found in the graph and run as one operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.runtime.plan.planner import Node, Planner
from nas.runtime.plan.values import Cached, Real, Shape, Stored

_BY_HEAD = (0, 2, 1, 3)
_TURNED = (0, 1, 3, 2)
TargetShape = Callable[[Planner, Node, Shape], Shape]
# Among so few tokens attention in float takes no longer than in products of 16 bits.
_FEW_TOKENS = 64
# A score this much smaller than the others has no weight left.
_MASKED = -1e3


@dataclass(frozen=True)
class _Attention:
    """What a chain of nodes computes, from (1, tokens, heads + 2 * kv_heads, size) to (tokens, heads * size).

    Args:
        nodes: all but the first.
        result: the last value of the chain.
        shape: of the result.
        heads: of the queries.
        kv_heads: of keys and values, which are as many.
        scale: of the scores.
        causal: a query sees itself and what stands before it.
        buffers: of the caches of keys and values, where there are any.
    """

    nodes: tuple[Node, ...]
    result: str
    shape: Shape
    heads: int
    kv_heads: int
    scale: float
    causal: bool
    buffers: tuple[int, ...]


def lower_attention(planner: Planner, first: Node, given: Shape, target_shape: TargetShape) -> bool:
    """Emit one operator for the attention that begins with this Transpose; False where none does.

    Args:
        planner: of the graph.
        first: a Transpose.
        given: shape of its input.
        target_shape: what a Reshape gives, from the planner, the node and the shape of its input.
    """
    found = _match(_Chain(planner, target_shape), first, given)
    if found is None:
        return False
    joint = planner.plain(planner.real(first.inputs[0]))
    quantizer = planner.quantize_behind(found.result)
    output = planner.quant_of(quantizer) if quantizer else None
    tokens, size = given[1], given[3]
    zero = 0 if output is None else output.zero
    if found.buffers:
        # Like the tokens that follow the prompt, whose attention is always in float.
        exact, kind = 1, "attention_cached"
        ints = (found.heads, found.kv_heads, *found.buffers, exact, zero, planner.most_tokens)
    else:
        exact = int(tokens <= _FEW_TOKENS or planner.writer(joint.tensor) == "conv_f32")
        kind, ints = "attention_f32", (found.heads, found.kv_heads, int(found.causal), zero, exact)
    tensor = planner.emit(
        *(kind, first.name, [joint.tensor], "f32" if output is None else "u8", (tokens, found.heads * size)),
        ints=ints,
        floats=(found.scale, 0.0 if output is None else output.scale),
    )
    tensor = planner.reshaped(tensor, found.shape)
    if quantizer is None:
        planner.values[found.result] = Real(tensor, found.shape)
    else:
        planner.finish_quantized(quantizer, tensor, found.shape, False, None)
    planner.done.update(id(node) for node in found.nodes)
    return True


class _Mismatch(Exception):  # noqa: N818
    """The chain is no attention, or one of another form."""


class _Chain:
    """Walks from a node to its only reader, noting the nodes that were passed."""

    def __init__(self, planner: Planner, target_shape: TargetShape) -> None:
        self.planner, self.target_shape = planner, target_shape
        self.nodes: list[Node] = []

    def reader(self, name: str, *op_types: str) -> Node:
        """Return the only reader of a value where it is of one of these kinds."""
        readers = self.planner.consumers[name]
        output = name in self.planner.graph_outputs and name not in self.planner.grown
        if len(readers) != 1 or output or readers[0].op_type not in op_types:
            raise _Mismatch
        if readers[0] not in self.nodes:
            self.nodes.append(readers[0])
        return readers[0]

    def stored(self, name: str) -> NDArray[Any]:
        """Return a constant of the graph."""
        value = self.planner.values.get(name)
        if not isinstance(value, Stored) or value.scale is not None:
            raise _Mismatch
        return value.array

    def reshape(self, node: Node, given: Shape, expected: Shape) -> None:
        """Check what a Reshape gives."""
        self.stored(node.inputs[1])
        if self.target_shape(self.planner, node, given) != expected:
            raise _Mismatch

    def lengthened(self, name: str) -> tuple[str, int]:
        """Return the cache behind these rows, grown by them, and the number of its buffer."""
        cache = self.planner.cache
        assert cache is not None
        step = self.reader(name, "Concat")
        before = self.planner.values.get(step.inputs[0])
        if not isinstance(before, Cached) or step.outputs[0] != cache.outputs[step.inputs[0]]:
            raise _Mismatch
        self.planner.grown.add(step.outputs[0])
        return step.outputs[0], before.buffer


def _match(chain: _Chain, first: Node, given: Shape) -> _Attention | None:
    try:
        if len(given) != 4 or given[0] != 1 or tuple(first.get("perm", ())) != _BY_HEAD:
            return None
        return _walk(chain, first, given)
    except _Mismatch:
        return None


def _walk(chain: _Chain, first: Node, given: Shape) -> _Attention:
    _, tokens, joint, size = given
    split = chain.reader(first.outputs[0], "Split")
    sizes = [int(number) for number in chain.stored(split.inputs[1])] if len(split.inputs) > 1 else []
    if len(sizes) != 3 or sizes[1] != sizes[2] or sum(sizes) != joint or int(split.get("axis", 0)) != 1:
        raise _Mismatch
    heads, kv_heads, _ = sizes
    if kv_heads < 1 or heads % kv_heads != 0:
        raise _Mismatch
    by_head, stacked = (1, heads, tokens, size), (1, kv_heads, heads // kv_heads * tokens, size)
    scores, scale = _scores(chain, split.outputs[0], by_head, stacked)
    key, value, past = split.outputs[1], split.outputs[2], 0
    buffers: tuple[int, ...] = ()
    if chain.planner.cache is not None and chain.planner.past is not None:
        if chain.planner.most_tokens == 0:
            raise _Mismatch
        (key, first_buffer), (value, second_buffer) = chain.lengthened(key), chain.lengthened(value)
        buffers, past = (first_buffer, second_buffer), chain.planner.past
    turned = chain.reader(key, "Transpose")
    if tuple(turned.get("perm", ())) != _TURNED or scores.inputs[1] != turned.outputs[0]:
        raise _Mismatch
    if chain.reader(turned.outputs[0], "MatMul") is not scores:
        raise _Mismatch
    step = chain.reader(scores.outputs[0], "Softmax", "Add")
    causal = step.op_type == "Add"
    if causal:
        _check_causal(chain.stored(step.inputs[1]), tokens, past, heads // kv_heads)
        step = chain.reader(step.outputs[0], "Softmax")
    if int(step.get("axis", -1)) not in (-1, 3) or (buffers and not causal):
        raise _Mismatch
    mixed = chain.reader(step.outputs[0], "MatMul")
    if mixed.inputs[0] != step.outputs[0] or chain.reader(value, "MatMul") is not mixed:
        raise _Mismatch
    step = chain.reader(mixed.outputs[0], "Reshape", "Transpose")
    if step.op_type == "Reshape":
        chain.reshape(step, stacked, by_head)
        step = chain.reader(step.outputs[0], "Transpose")
    if tuple(step.get("perm", ())) != _BY_HEAD:
        raise _Mismatch
    last = chain.reader(step.outputs[0], "Reshape")
    chain.stored(last.inputs[1])
    shape = chain.target_shape(chain.planner, last, (1, tokens, heads, size))
    return _Attention(tuple(chain.nodes), last.outputs[0], shape, heads, kv_heads, scale, causal, buffers)


def _check_causal(mask: NDArray[Any], tokens: int, past: int, group: int) -> None:
    """Accept a mask that hides what stands behind a query and nothing else, once per query head of a group."""
    rows, keys = group * tokens, past + tokens
    if mask.size != rows * keys or mask.shape[-2:] != (rows, keys):
        raise _Mismatch
    behind = np.tile(np.triu(np.ones((tokens, keys), dtype=bool), past + 1), (group, 1))
    square = mask.reshape(rows, keys)
    if not (np.all(square[behind] <= _MASKED) and np.all(square[~behind] == 0)):
        raise _Mismatch


def _scores(chain: _Chain, query: str, by_head: Shape, stacked: Shape) -> tuple[Node, float]:
    """Return the product of queries and keys, and what the queries were multiplied by."""
    scale = 1.0
    step = chain.reader(query, "Reshape", "Mul", "MatMul")
    if step.op_type == "Reshape":
        chain.reshape(step, by_head, stacked)
        step = chain.reader(step.outputs[0], "Mul", "MatMul")
    elif by_head != stacked:
        raise _Mismatch
    if step.op_type == "Mul":
        factor = chain.stored(step.inputs[1])
        if factor.size != 1:
            raise _Mismatch
        scale = float(factor.reshape(-1)[0])
        step = chain.reader(step.outputs[0], "MatMul")
    return step, scale
