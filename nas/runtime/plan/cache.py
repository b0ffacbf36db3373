"""Caches of keys and values: inputs of a free length that the graph only lengthens by what is new.

Planned as such, they are no tensors of the program: its attentions read and extend buffers beside the arena, and one
program serves every length. The graph is walked at a given length all the same, so that shapes, positions and masks can
be evaluated and compared with what a cache of that length makes of them; whoever plans walks it at two lengths and
takes the program only where both are the same (see ``plan_cached``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Cache:
    """The caches of a graph, in the order of its inputs.

    Args:
        outputs: name of the output that is the cache grown, by the name of the input.
        shapes: (heads, size) by the name of the input.
        tokens: name of the free axis of the new tokens, in the first input.
        past: name of the free axis of those before.
    """

    outputs: Mapping[str, str]
    shapes: Mapping[str, tuple[int, int]]
    tokens: str
    past: str

    def buffer(self, name: str) -> int:
        """Return the number of an input's buffer."""
        return list(self.outputs).index(name)


def find_cache(graph: onnx.GraphProto) -> Cache | None:
    """Return the caches of a graph whose every input but the first is one; None where that is not so.

    A cache has the shape (1, heads, past, size) with ``past`` free and the same for all, is read by one Concat along
    that axis, as the first of two, and by Shape; the Concat's result is an output.
    """
    stored = {tensor.name for tensor in graph.initializer}
    first, *others = [value for value in graph.input if value.name not in stored] or [None]
    if first is None or not others:
        return None
    free = [axis.dim_param for axis in first.type.tensor_type.shape.dim if not axis.dim_value]
    outputs: dict[str, str] = {}
    shapes: dict[str, tuple[int, int]] = {}
    pasts = set()
    for value in others:
        axes = value.type.tensor_type.shape.dim
        readers = [node for node in graph.node if value.name in node.input and node.op_type != "Shape"]
        if value.type.tensor_type.elem_type != 1 or len(axes) != 4 or len(readers) != 1:
            return None
        sizes = [axis.dim_value for axis in axes]
        if sizes[0] != 1 or not (sizes[1] and sizes[3]) or sizes[2] or not _lengthens(readers[0], value.name):
            return None
        pasts.add(axes[2].dim_param)
        shapes[value.name] = (sizes[1], sizes[3])
        outputs[value.name] = readers[0].output[0]
    named = {value.name for value in graph.output}
    if len(free) != 1 or len(pasts) != 1 or "" in {*free, *pasts} or not named >= set(outputs.values()):
        return None
    return Cache(outputs, shapes, free[0], pasts.pop())


def _lengthens(node: onnx.NodeProto, name: str) -> bool:
    axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
    return node.op_type == "Concat" and len(node.input) == 2 and node.input[0] == name and axis in (2, -2)
