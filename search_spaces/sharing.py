"""How the networks of the convolutional space share weights: under which names, at which sizes, and its extremes.

Blocks at the same place share when they are of one kind: a narrower one reads the first channels of the widest, a
smaller kernel is the middle of the largest, a shorter stage is the first blocks of the longest (Cai et al. 2020,
section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from nas.architecture import Architecture, Choice
from nas.data import Task
from nas.protocols import Suggester
from nas.suggest import ReplayingSuggester
from search_spaces.genes import draw
from search_spaces.specs import Bottleneck, ConvUnit, Network, PooledHead, Residual
from search_spaces.stages import StageOptions, stage_block

# Genes whose options are parts of each other; the largest has the weights of all.
_ELASTIC = ("width", "kernel", "expansion", "depth")


class SharingOptions(StageOptions, Protocol):
    """What a space offers; :class:`search_spaces.convnet.ConvNet` says what each list is."""

    task: Task
    resolutions: Sequence[int]
    stem_widths: Sequence[int]
    head_widths: Sequence[int]
    depths: Sequence[int]


def shared_names(network: Network) -> dict[str, str]:
    """Return for each block the name under which its weights are shared: place and kind."""
    return {name: f"{name}.{_kind(spec)}" for name, spec in network.blocks}


def largest_blocks(options: SharingOptions) -> Iterator[tuple[str, object]]:
    """Yield the shared name and the description of blocks that together have every weight at its full size.

    A shortcut is projected only where channels or stride differ, so all pairs of channels are among them.
    """
    activation = options.activations[0]
    yield from _named("stem", ConvUnit(options.task.channels, max(options.stem_widths), 3, 1, activation))
    before = options.stem_widths
    for stage, widths in enumerate(options.widths):
        for outputs in sorted(widths, reverse=True):
            for choices in _kinds(options, stage, outputs):
                for inputs in sorted(before, reverse=True):
                    for stride in sorted({int(placement[stage + 1]) for placement in options.strides}):
                        yield from _named(f"stage{stage}_block0", stage_block(choices, stage, inputs, stride))
                for block in range(1, max(options.depths)):
                    yield from _named(f"stage{stage}_block{block}", stage_block(choices, stage, outputs, 1))
        before = widths
    for hidden in sorted({max(options.head_widths), min(options.head_widths)}, reverse=True):
        yield from _named("head", PooledHead(max(before), hidden, options.task.classes, activation))


def sandwich(
    suggest: Callable[[Suggester], Architecture], resolutions: Sequence[int], rng: np.random.Generator, others: int
) -> list[Architecture]:
    """Return the widest network, the narrowest and some others, all reading pictures of one size (Yu et al. 2020).

    What is no matter of size, such as the kind of block, is drawn for each.
    """
    record: dict[str, Choice] = {"resolution": int(rng.choice(np.asarray(resolutions)))}
    ends: tuple[Callable[..., Choice] | None, ...] = (max, min, *[None] * others)
    return [draw(_answered(suggest, record, rng, end), rng) for end in ends]


def _answered(
    suggest: Callable[[Suggester], Architecture],
    record: Mapping[str, Choice],
    rng: np.random.Generator,
    end: Callable[..., Choice] | None,
) -> Callable[[Suggester], Architecture]:
    return lambda _: suggest(_EndSuggester(record, rng, end))


class _EndSuggester(ReplayingSuggester):
    """Answers questions of size by one end of the options, others from a record or at random."""

    def __init__(
        self, record: Mapping[str, Choice], rng: np.random.Generator, end: Callable[..., Choice] | None
    ) -> None:
        super().__init__(record, rng)
        self._end = end

    def _answer(self, name: str, choices: tuple[Choice, ...]) -> Choice:
        if self._end is not None and name.rpartition("_")[2] in _ELASTIC:
            return self._end(choices)
        return super()._answer(name, choices)


def _kinds(options: SharingOptions, stage: int, width: int) -> Iterator[dict[str, Choice]]:
    """Yield the choices of a stage of each kind, at its largest but for the width."""
    largest: dict[str, Choice] = {
        "activation": options.activations[0],
        f"stage{stage}_width": width,
        f"stage{stage}_squeeze": max(options.squeeze_ratios),
        f"stage{stage}_kernel": max(options.kernels),
        f"stage{stage}_dense_kernel": max(options.dense_kernels),
    }
    for kind in options.blocks:
        expansions = {"mbconv": options.expansions, "fused": options.fused_expansions}.get(kind, (1,))
        gene = "fused_expansion" if kind == "fused" else "expansion"
        for expansion in sorted(expansions, reverse=True):
            yield {**largest, f"stage{stage}_block": kind, f"stage{stage}_{gene}": expansion}


def _named(block: str, spec: object) -> Iterator[tuple[str, object]]:
    yield f"{block}.{_kind(spec)}", spec


def _kind(spec: object) -> str:
    if isinstance(spec, Residual):
        return "residual"
    if isinstance(spec, Bottleneck):
        if not spec.fused:
            return "mbconv"
        # Without widening its one convolution writes what otherwise the second one writes.
        return "fused" if spec.widens else "fused_plain"
    if isinstance(spec, PooledHead):
        return "wide" if spec.hidden else "plain"
    return "conv"
