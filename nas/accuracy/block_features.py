"""What the blocks of a network write, caught on the way through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the blocks in the order in which they are registered, which is that in which they run.

    A block is a child of the network. A child that is a plain chain of equal blocks, such as the cells of a stage,
    counts as its members.
    """
    found: list[nn.Module] = []
    for child in module.children():
        members = list(child.children())
        alike = len({type(member) for member in members}) == 1 and any(True for _ in members[0].children())
        found += members if isinstance(child, nn.Sequential) and alike else [child]
    return found


@contextmanager
def caught(module: nn.Module) -> Iterator[list[Tensor]]:
    """Give a list that a forward pass fills with the outputs of the blocks, but for those that write no features.

    Kept are outputs that are float tensors of two or more dimensions; the last one, the logits, is dropped by callers
    that want features only. Gradients flow through them as through the network.

    Args:
        module: a copy to be thrown away, since activations in it no longer work in place.
    """
    for layer in module.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim >= 2:
            outputs.append(output)

    handles = [block.register_forward_hook(keep) for block in blocks_of(module)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def as_rows(features: Tensor) -> Tensor:
    """Return features as rows of channels: (batch, c, h, w) and (batch, tokens, c) become (positions, c)."""
    if features.ndim == 4:
        return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    return features.reshape(-1, features.shape[-1])
