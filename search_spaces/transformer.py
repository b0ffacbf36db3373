"""Transformers on pictures or texts: patches or tokens, attention with grouped key and value heads, and MLPs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from nas.architecture import Architecture
from nas.data import Task
from nas.errors import ConfigError, DegenerateArchitectureError
from search_spaces.block_space import BlockSpace, require_task
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.sharing import named, sandwich, shared_names
from search_spaces.sharing_tokens import head_places, largest_layers
from search_spaces.specs import (
    ACTIVATIONS,
    NORMS,
    POOLINGS,
    Attention,
    Network,
    PatchStem,
    TokenHead,
    TokenStem,
    require_known,
)
from search_spaces.token_layers import ask_heads, ask_layers, check_layers, count_layers, layer_blocks

if TYPE_CHECKING:
    from torch import Tensor

MIN_TOKENS = 4


@dataclass(eq=False)
class Transformer(BlockSpace):
    """Embedding of patches or tokens, pre-norm layers of attention and MLP, and a pooled head.

    Every argument but ``task`` is the list of a gene's options. Precision is asked for the stem, for the attention
    and for the MLP of each layer, and for the head. Texts are read at a fixed length whose padding is a token like any
    other, not masked.

    Args:
        task: image or text classification.
        resolutions: sides of the square input, pixels; of pictures only, as are the patches.
        patches: sides of a patch, pixels.
        widths: features per token.
        depths: layers.
        heads: query heads.
        kv_heads: key and value heads; must divide ``heads``.
        head_sizes: features per head.
        mlp_ratios: hidden features of a layer's MLP over the width, asked per layer.
        activations: of the MLPs.
        norms: of ``layernorm`` and ``rmsnorm``.
        poolings: of ``mean`` and ``attention``.
        precisions: of ``fp32``, ``int8`` and ``int4``, the last with weights of 4 bits in the linear layers and the
            table of words and with the rest in float.
        lengths: tokens read of a text; of texts only.

    Raises:
        ConfigError: a list is empty, repeats itself, or names what does not exist.
    """

    task: Task
    resolutions: Sequence[int] = ()
    patches: Sequence[int] = (2, 4, 8)
    widths: Sequence[int] = (32, 48, 64, 96)
    depths: Sequence[int] = (2, 3, 4, 5, 6)
    heads: Sequence[int] = (2, 4)
    kv_heads: Sequence[int] = (1, 2)
    head_sizes: Sequence[int] = (8, 16, 32)
    mlp_ratios: Sequence[int] = (1, 2, 3, 4)
    activations: Sequence[str] = ("relu", "gelu", "hswish")
    norms: Sequence[str] = NORMS
    poolings: Sequence[str] = POOLINGS
    precisions: Sequence[str] = ("fp32", "int8")
    lengths: Sequence[int] = ()
    name: str = field(default="transformer", init=False)

    def __post_init__(self) -> None:
        require_task(self.name, self.task, "image_classification", "text_classification")
        for gene in (
            *(("lengths",) if self.reads_text else ("resolutions", "patches")),
            *("widths", "depths", "heads", "kv_heads", "head_sizes", "mlp_ratios"),
            *("activations", "norms", "poolings"),
        ):
            setattr(self, gene, options_of(gene, getattr(self, gene)))
        self.precisions = as_precisions(self.precisions)
        check_layers(self, "widths", self.widths)
        require_known("activation", tuple(self.activations), ACTIVATIONS)
        require_known("pooling", tuple(self.poolings), POOLINGS)
        if self.reads_text and min(self.lengths) < MIN_TOKENS:
            raise ConfigError(f"lengths hold {min(self.lengths)}; expected {MIN_TOKENS} tokens or more")

    @property
    def reads_text(self) -> bool:
        """True where the input is tokens, not pictures."""
        return self.task.kind == "text_classification"

    def ask(self, genes: Genes) -> None:
        """Ask for the global genes, then layer by layer."""
        if self.reads_text:
            genes.choose("length", self.lengths)
        else:
            genes.choose("resolution", self.resolutions)
            genes.choose("patch", self.patches)
        genes.choose("width", self.widths)
        ask_heads(genes, self)
        genes.choose("activation", self.activations)
        genes.choose("norm", self.norms)
        genes.choose("pooling", self.poolings)
        genes.choose_precision("stem", self.precisions)
        ask_layers(genes, self, "depth", self.depths)
        genes.choose_precision("head", self.precisions)

    def decode(self, architecture: Architecture) -> Network:
        """Return stem, layers and head.

        Raises:
            DegenerateArchitectureError: the patch does not tile the picture into at least 4 tokens, or the key and
                value heads do not divide the heads.
        """
        choices = architecture.choices
        width = int(choices["width"])
        norm = str(choices["norm"])
        input_shape, stem = self._stem(architecture)
        tokens = stem.tokens

        def attention(heads: int, kv_heads: int, head_size: int) -> Attention:
            return Attention(width, heads, kv_heads, head_size, tokens, norm)

        layers = layer_blocks(choices, int(choices["depth"]), width, attention)
        head = TokenHead(width, tokens, self.task.classes, norm, str(choices["pooling"]))
        return Network(input_shape, (("stem", stem), *layers, ("head", head)))

    def _stem(self, architecture: Architecture) -> tuple[tuple[int, ...], PatchStem | TokenStem]:
        choices, channels = architecture.choices, self.task.channels
        width = int(choices["width"])
        if self.reads_text:
            length = int(choices["length"])
            return (1, length), TokenStem(self.task.vocabulary, width, length)
        side, patch = int(choices["resolution"]), int(choices["patch"])
        return (1, channels, side, side), PatchStem(channels, width, patch, token_count(side, patch))

    def input_size(self, architecture: Architecture) -> tuple[int, ...]:
        """Return (height, width) of the pictures, or (length,) of the texts, that it reads."""
        if self.reads_text:
            return (int(architecture.choices["length"]),)
        return super().input_size(architecture)

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        everywhere = (
            *((self.lengths,) if self.reads_text else (self.resolutions, self.patches)),
            *(self.widths, self.heads, self.kv_heads, self.head_sizes),
            *(self.activations, self.norms, self.poolings),
        )
        return prod(map(len, everywhere)) * len(self.precisions) ** 2 * count_layers(self, self.depths)

    def shared_weights(self) -> Mapping[str, Tensor]:
        """Return fresh tensors, from torch's global generator, that the weights of every network are parts of."""
        from search_spaces.shared_layers import shared_tensors

        layers = largest_layers(self, max(self.widths), max(self.depths), self.task.classes)
        return shared_tensors(named(chain((("stem", stem) for stem in self._largest_stems()), layers)))

    def _largest_stems(self) -> Iterator[PatchStem | TokenStem]:
        width = max(self.widths)
        if self.reads_text:
            yield TokenStem(self.task.vocabulary, width, max(self.lengths))
        for side in self.resolutions:
            for patch in self.patches:
                with suppress(DegenerateArchitectureError):
                    yield PatchStem(self.task.channels, width, patch, token_count(side, patch))

    def shared_blocks(self, architecture: Architecture, /) -> Mapping[str, str]:
        """Return block to the prefix under which its weights stand among the shared ones."""
        return shared_names(self.decode(architecture))

    def shared_places(self, architecture: Architecture, /) -> Mapping[str, Mapping[int, Sequence[int]]]:
        """Return which entries the weights of attention take, so that each head keeps its place."""
        return head_places(self.decode(architecture), self)

    def sandwich(self, rng: np.random.Generator, others: int, /) -> Sequence[Architecture]:
        """Return the widest network, the narrowest and some others, all of one resolution or length."""
        sizes = {"length": self.lengths} if self.reads_text else {"resolution": self.resolutions}
        return sandwich(self.suggest, sizes, rng, others)


def token_count(side: int, patch: int) -> int:
    """Return how many patches tile a square picture.

    Raises:
        DegenerateArchitectureError: the patch is larger than the picture, does not divide it, or leaves fewer than
            4 tokens, among which attention has nothing to weigh.
    """
    if patch > side:
        raise DegenerateArchitectureError(
            f"patch of {patch} pixels is larger than the picture of {side}x{side}; expected at most {side // 2}"
        )
    if side % patch:
        raise DegenerateArchitectureError(
            f"patch of {patch} pixels does not divide the resolution of {side}; expected a divisor of {side}"
        )
    tokens = (side // patch) ** 2
    if tokens < MIN_TOKENS:
        raise DegenerateArchitectureError(
            f"patch of {patch} pixels leaves {tokens} token of a picture of {side}x{side}; "
            f"expected at least {MIN_TOKENS}. Take a smaller patch or a larger resolution."
        )
    return tokens
