"""Fresh tensors that all networks of a space are cut out of; it builds blocks, so it imports torch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from search_spaces.layers import build_block


def shared_tensors(
    blocks: Iterable[tuple[str, object]], smallest: Iterable[tuple[str, object]] = ()
) -> dict[str, Tensor]:
    """Return for each weight of the blocks a tensor that holds the largest, initialised as a block is.

    Convolutions begin as the smallest one: weights of further inputs and of the kernel's rim are 0 at first. At random
    they would make of the same block's sums of few and of many channels two unrelated things, and what reads them
    would have to learn from both.

    Args:
        blocks: shared name and description, such as :func:`search_spaces.sharing.named` yields, the largest first, so
            that hardly anything has to grow.
        smallest: likewise, of blocks among which every convolution is found at its smallest.
    """
    found: dict[str, Tensor] = {}
    for name, spec in blocks:
        for path, weight in build_block(spec).named_parameters():
            key = f"{name}.{path}"
            found[key] = _grown(found[key], weight.detach()) if key in found else weight.detach()
    for key, sizes in _smallest(smallest).items():
        found[key] = _inner(found[key], sizes)
    return found


def _smallest(blocks: Iterable[tuple[str, object]]) -> dict[str, tuple[int, ...]]:
    """Return the least size in each axis of the weights of convolutions."""
    sizes: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        for name, spec in blocks:
            for path, weight in build_block(spec).named_parameters():
                if weight.ndim == 4:
                    key = f"{name}.{path}"
                    sizes[key] = tuple(map(min, weight.shape, sizes.get(key, weight.shape)))
    return sizes


def _inner(whole: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return a tensor with zeros beyond the first inputs and the middle of the kernel."""
    starts = [0, 0, *((have - size) // 2 for have, size in zip(whole.shape[2:], sizes[2:], strict=True))]
    lengths = (len(whole), *sizes[1:])
    kept = tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
    inner = torch.zeros_like(whole)
    inner[kept] = whole[kept]
    return inner


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
