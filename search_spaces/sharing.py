"""How the networks of a space share weights: under which names, at which sizes, and which networks are its extremes.

Blocks at the same place share when they are of one kind: a narrower one reads the first channels of the widest, a
smaller kernel is the middle of the largest, a shorter stage is the first blocks of the longest (Cai et al. 2020,
section 3). Of blocks on tokens see :mod:`search_spaces.sharing_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from nas.architecture import Architecture, Choice
from nas.data import Task
from nas.protocols import Suggester
from nas.suggest import ReplayingSuggester
from search_spaces.genes import draw
from search_spaces.specs import (
    Attention,
    Bottleneck,
    ConvUnit,
    Mlp,
    Network,
    PatchStem,
    PooledHead,
    Residual,
    TokenHead,
    TokenStem,
)
from search_spaces.stages import StageOptions, stage_block

# Genes, or their last words, whose options are parts of each other; the largest has the weights of all.
_ELASTIC = ("width", "kernel", "expansion", "depth", "ratio", "size")
_ELASTIC_WHOLE = ("heads", "layers")


class SharingOptions(StageOptions, Protocol):
    """What a space offers; :class:`search_spaces.convnet.ConvNet` says what each list is."""

    task: Task
    resolutions: Sequence[int]
    stem_widths: Sequence[int]
    depths: Sequence[int]


def shared_names(network: Network) -> dict[str, str]:
    """Return for each block the name under which its weights are shared: place and kind."""
    return {name: f"{name}.{_kind(spec)}" for name, spec in network.blocks}


def named(blocks: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    """Yield for each block the name under which its weights are shared, and its description."""
    for name, spec in blocks:
        yield f"{name}.{_kind(spec)}", spec


def stages_at(options: SharingOptions, end: Callable[[Sequence[int]], int]) -> Iterator[tuple[str, object]]:
    """Yield the name and the description of stems and stages of every width, with kernels of one size.

    Those of ``max`` together have every weight at its full size, those of ``min`` every weight at its smallest. A
    shortcut is projected only where channels or stride differ, so all pairs of channels are among them.

    Args:
        options: of the space.
        end: ``max`` or ``min``.
    """
    activation = options.activations[0]
    yield "stem", ConvUnit(options.task.channels, end(options.stem_widths), 3, 1, activation)
    before = options.stem_widths
    for stage, widths in enumerate(options.widths):
        for outputs in sorted(widths, reverse=True):
            for choices in _kinds(options, stage, outputs, end):
                for inputs in sorted(before, reverse=True):
                    for stride in sorted({int(placement[stage + 1]) for placement in options.strides}):
                        yield f"stage{stage}_block0", stage_block(choices, stage, inputs, stride)
                for block in range(1, max(options.depths)):
                    yield f"stage{stage}_block{block}", stage_block(choices, stage, outputs, 1)
        before = widths


def sandwich(
    suggest: Callable[[Suggester], Architecture],
    sizes: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
    others: int,
) -> list[Architecture]:
    """Return the widest network, the narrowest and some others, all reading inputs of one size (Yu et al. 2020).

    What is no matter of size, such as the kind of block, is drawn for each.

    Args:
        suggest: of the space.
        sizes: gene of the input's size to its options.
        rng: draws.
        others: besides the two extremes.
    """
    record: dict[str, Choice] = {gene: int(rng.choice(np.asarray(options))) for gene, options in sizes.items()}
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
        elastic = name in _ELASTIC_WHOLE or name.rpartition("_")[2] in _ELASTIC
        if self._end is not None and elastic:
            return self._end(choices)
        return super()._answer(name, choices)


def _kinds(
    options: SharingOptions, stage: int, width: int, end: Callable[[Sequence[int]], int]
) -> Iterator[dict[str, Choice]]:
    """Yield the choices of a stage of each kind, its kernels at one end and its gates at their largest."""
    common: dict[str, Choice] = {
        "activation": options.activations[0],
        f"stage{stage}_width": width,
        f"stage{stage}_squeeze": max(options.squeeze_ratios),
        f"stage{stage}_kernel": end(options.kernels),
        f"stage{stage}_dense_kernel": end(options.dense_kernels),
    }
    for kind in options.blocks:
        expansions = {"mbconv": options.expansions, "fused": options.fused_expansions}.get(kind, (1,))
        gene = "fused_expansion" if kind == "fused" else "expansion"
        for expansion in sorted(expansions, reverse=True):
            yield {**common, f"stage{stage}_block": kind, f"stage{stage}_{gene}": expansion}


def _kind(spec: object) -> str:
    if isinstance(spec, Residual):
        return "residual"
    if isinstance(spec, Bottleneck):
        # Without widening the one convolution of a fused block writes what otherwise the second one writes, and the
        # depthwise one of the other kind reads the block's input instead of what was made of it.
        kind = "fused" if spec.fused else "mbconv"
        return kind if spec.widens else f"{kind}_plain"
    if isinstance(spec, PooledHead):
        return "wide" if spec.hidden else "plain"
    if isinstance(spec, PatchStem):
        return f"patch{spec.patch}_tokens{spec.tokens}"
    if isinstance(spec, Attention):
        return f"kv{spec.kv_heads}"
    if isinstance(spec, TokenHead):
        return spec.pooling
    return {Mlp: "mlp", TokenStem: "tokens", ConvUnit: "conv"}[type(spec)]
