"""How blocks on tokens share weights: which entries of the largest block's weights a smaller one takes.

A narrower layer reads the first features, a smaller MLP the first hidden ones, a shallower network the first layers. Of
attention with fewer or smaller heads each head keeps its place: the queries that stay still ask the keys that they were
trained with, so the joint projection is cut by head, not from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from search_spaces.specs import Attention, Mlp, Network, TokenHead
from search_spaces.token_layers import LayerOptions

# Weight, as a built network names it, to axis to the entries of the shared tensor, where these are not the first.
Places = Mapping[str, Mapping[int, Sequence[int]]]


class SharedLayerOptions(LayerOptions, Protocol):
    """What a space offers besides; :class:`search_spaces.transformer.Transformer` says what each list is."""

    activations: Sequence[str]
    poolings: Sequence[str]


def largest_attention(options: SharedLayerOptions, kv_heads: int, width: int) -> Attention | None:
    """Return the attention that holds those with so many key and value heads, or None if none is legal."""
    legal = [heads for heads in options.heads if heads % kv_heads == 0]
    if not legal:
        return None
    # How many tokens there are changes no weight; of the norms, a layer norm has all that the other one has.
    return Attention(width, max(legal), kv_heads, max(options.head_sizes), 1, _norm(options))


def largest_layers(options: SharedLayerOptions, width: int, depth: int, classes: int) -> Iterator[tuple[str, object]]:
    """Yield the block's name and the description of layers and heads that hold every weight at its full size."""
    for layer in range(depth):
        for kv_heads in options.kv_heads:
            attention = largest_attention(options, kv_heads, width)
            if attention is not None:
                yield f"layer{layer}_attention", attention
        hidden = width * max(options.mlp_ratios)
        yield f"layer{layer}_mlp", Mlp(width, hidden, options.activations[0], _norm(options))
    for pooling in options.poolings:
        yield "head", TokenHead(width, 1, classes, _norm(options), pooling)


def head_places(network: Network, options: SharedLayerOptions) -> dict[str, Mapping[int, Sequence[int]]]:
    """Return which entries the weights of a network's attention take."""
    found: dict[str, Mapping[int, Sequence[int]]] = {}
    for block, spec in network.blocks:
        if not isinstance(spec, Attention):
            continue
        largest = largest_attention(options, spec.kv_heads, spec.width)
        assert largest is not None  # it holds this one
        rows, mixed = _rows(spec, largest)
        found[f"{block}.qkv.weight"] = {0: rows}
        found[f"{block}.qkv.bias"] = {0: rows}
        found[f"{block}.out.weight"] = {1: mixed}
    return found


def _rows(spec: Attention, largest: Attention) -> tuple[list[int], list[int]]:
    """Return the rows of the joint projection, and the columns of the output's, that a smaller attention takes."""
    group, most = spec.heads // spec.kv_heads, largest.heads // largest.kv_heads
    queries = [kv * most + head for kv in range(spec.kv_heads) for head in range(group)]
    keys = [largest.heads + kv for kv in range(spec.kv_heads)]
    values = [largest.heads + largest.kv_heads + kv for kv in range(spec.kv_heads)]
    rows = _features([*queries, *keys, *values], spec, largest)
    return rows, _features(queries, spec, largest)


def _features(heads: Sequence[int], spec: Attention, largest: Attention) -> list[int]:
    return [head * largest.head_size + feature for head in heads for feature in range(spec.head_size)]


def _norm(options: SharedLayerOptions) -> str:
    return "layernorm" if "layernorm" in options.norms else options.norms[0]
