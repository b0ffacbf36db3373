"""Less of a model's file that is no number: short names of tensors, no shapes that inference finds again.

The quantizer names a tensor after the path of the module that it comes from, several times per layer, which was most of
the file of a small network. Nodes keep their names, by which blocks, profiles and reports go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def compact(model: onnx.ModelProto) -> None:
    """Shorten the names of tensors inside the graph and drop inferred shapes, in place.

    Names of inputs and outputs stay. A graph with graphs inside it, whose nodes may read from around them, keeps all
    names, as does one that names tensors elsewhere than in its nodes.
    """
    graph = model.graph
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("doc_string")
    inner = any(item.HasField("g") or item.graphs for node in graph.node for item in node.attribute)
    if inner or graph.sparse_initializer or graph.quantization_annotation:
        return
    ends = {value.name for value in (*graph.input, *graph.output)}
    shorter = _short_names(_names(model), ends)
    for node in graph.node:
        node.input[:] = [shorter.get(name, name) for name in node.input]
        node.output[:] = [shorter.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = shorter.get(tensor.name, tensor.name)


def _names(model: onnx.ModelProto) -> Iterator[str]:
    """Yield names in the order of the graph, with repeats, so that a name is as short as it is early."""
    for node in model.graph.node:
        yield from node.input
        yield from node.output
    for tensor in model.graph.initializer:
        yield tensor.name


def _short_names(names: Iterable[str], kept: set[str]) -> dict[str, str]:
    """Return a new name for each that is neither kept nor empty; an empty one stands for an input that is left out."""
    fresh = (name for name in map(_name, count()) if name not in kept)
    return {name: next(fresh) for name in dict.fromkeys(names) if name and name not in kept}


def _name(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
