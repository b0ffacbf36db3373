"""Fresh tensors that all networks of a space are cut out of; it builds blocks, so it imports torch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from search_spaces.layers import build_block


def shared_tensors(blocks: Iterable[tuple[str, object]]) -> dict[str, Tensor]:
    """Return for each weight of the blocks a tensor that holds the largest, initialised as a block is.

    Args:
        blocks: shared name and description, such as :func:`search_spaces.sharing.largest_blocks` yields, the largest
            first, so that hardly anything has to grow.
    """
    found: dict[str, Tensor] = {}
    for name, spec in blocks:
        for path, weight in build_block(spec).named_parameters():
            key = f"{name}.{path}"
            found[key] = _grown(found[key], weight.detach()) if key in found else weight.detach()
    return found


def _grown(kept: Tensor, other: Tensor) -> Tensor:
    """Return ``kept``, or where ``other`` is larger in some axis, a tensor of the larger sizes that begins with it."""
    sizes = [max(pair) for pair in zip(kept.shape, other.shape, strict=True)]
    if list(kept.shape) == sizes:
        return kept
    copies = [-(-size // have) for size, have in zip(sizes, other.shape, strict=True)]
    larger = other.repeat(copies)[tuple(slice(size) for size in sizes)].clone()
    with torch.no_grad():
        larger[tuple(slice(size) for size in kept.shape)] = kept
    return larger
