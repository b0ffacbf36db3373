"""Convolutional stages, then attention among the pixels of the map that they leave."""

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
from nas.errors import DegenerateArchitectureError
from search_spaces.block_space import BlockSpace, require_images
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.sharing import named, sandwich, shared_names, stages_at
from search_spaces.sharing_tokens import head_places, largest_layers
from search_spaces.specs import NORMS, POOLINGS, Attention, Network, PatchStem, TokenHead, require_known
from search_spaces.stages import BLOCKS, ask_stages, check_stages, count_stages, stage_blocks
from search_spaces.token_layers import ask_heads, ask_layers, check_layers, count_layers, layer_blocks
from search_spaces.transformer import token_count

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class Hybrid(BlockSpace):
    """Stem and stages of convolutional blocks, a bridge that makes tokens of the map, layers of attention and MLP.

    Early convolutions make a transformer easier to train (Xiao et al. 2021) and shorten its sequence, on whose square
    the cost of attention depends. Every argument but ``task`` is the list of a gene's options. Precision is asked
    for the stem, each block, the bridge, attention and MLP of each layer, and the head.

    Args:
        task: image classification.
        resolutions: sides of the square input, pixels.
        stem_widths: channels after the stem's 3x3 convolution.
        strides: stride placements, one digit for the stem and one per stage, such as ``122``.
        widths: per stage a list of channels; as many lists as stages.
        depths: blocks per stage.
        blocks: kinds of block, of ``residual``, ``mbconv``, ``fused``.
        kernels: of the depthwise convolution of ``mbconv``.
        dense_kernels: of ``residual`` and ``fused``.
        expansions: hidden channels of ``mbconv`` over its input channels.
        fused_expansions: likewise of ``fused``.
        squeeze_ratios: squeeze-and-excite channels over the channels that it gates; 0 for none.
        patches: pixels of the map per side of a token; must divide the map's side.
        token_widths: features per token.
        layers: layers of attention and MLP.
        heads: query heads.
        kv_heads: key and value heads; must divide ``heads``.
        head_sizes: features per head.
        mlp_ratios: hidden features of a layer's MLP over the token width, asked per layer.
        activations: of convolutions and MLPs.
        norms: of ``layernorm`` and ``rmsnorm``.
        poolings: of ``mean`` and ``attention``.
        precisions: of ``fp32``, ``int8`` and ``int4`` (weights of 4 bits).

    Raises:
        ConfigError: a list is empty, repeats itself, or names what does not exist.
    """

    task: Task
    resolutions: Sequence[int]
    stem_widths: Sequence[int] = (4, 8, 16)
    strides: Sequence[str] = ("112", "122", "212", "222")
    widths: Sequence[Sequence[int]] = ((8, 16, 24), (16, 32, 48))
    depths: Sequence[int] = (1, 2, 3)
    blocks: Sequence[str] = BLOCKS
    kernels: Sequence[int] = (3, 5)
    dense_kernels: Sequence[int] = (3, 5)
    expansions: Sequence[int] = (2, 4)
    fused_expansions: Sequence[int] = (1, 2)
    squeeze_ratios: Sequence[float] = (0.0, 0.25)
    patches: Sequence[int] = (1, 2)
    token_widths: Sequence[int] = (32, 48, 64, 96)
    layers: Sequence[int] = (1, 2, 3, 4)
    heads: Sequence[int] = (2, 4)
    kv_heads: Sequence[int] = (1, 2)
    head_sizes: Sequence[int] = (8, 16, 32)
    mlp_ratios: Sequence[int] = (1, 2, 3)
    activations: Sequence[str] = ("relu", "hswish", "silu")
    norms: Sequence[str] = NORMS
    poolings: Sequence[str] = POOLINGS
    precisions: Sequence[str] = ("fp32", "int8")
    name: str = field(default="hybrid", init=False)

    def __post_init__(self) -> None:
        require_images(self.name, self.task)
        # A config may say 0 for 0.0; equal networks need equal ids.
        self.squeeze_ratios = [float(ratio) for ratio in self.squeeze_ratios]
        for gene in (
            *("resolutions", "stem_widths", "strides", "depths", "blocks", "kernels", "dense_kernels", "expansions"),
            *("fused_expansions", "squeeze_ratios", "patches", "token_widths", "layers", "heads", "kv_heads"),
            *("head_sizes", "mlp_ratios", "activations", "norms", "poolings"),
        ):
            setattr(self, gene, options_of(gene, getattr(self, gene)))
        self.widths = tuple(options_of(f"widths[{stage}]", given) for stage, given in enumerate(self.widths))
        self.precisions = as_precisions(self.precisions)
        check_layers(self, "token_widths", self.token_widths)
        check_stages(self)
        require_known("pooling", tuple(self.poolings), POOLINGS)

    def ask(self, genes: Genes) -> None:
        """Ask for the global genes, then stage by stage and layer by layer."""
        genes.choose("resolution", self.resolutions)
        genes.choose("strides", self.strides)
        genes.choose("activation", self.activations)
        genes.choose("stem_width", self.stem_widths)
        genes.choose_precision("stem", self.precisions)
        ask_stages(genes, self)
        genes.choose("patch", self.patches)
        genes.choose("token_width", self.token_widths)
        ask_heads(genes, self)
        genes.choose("norm", self.norms)
        genes.choose("pooling", self.poolings)
        genes.choose_precision("bridge", self.precisions)
        ask_layers(genes, self, "layers", self.layers)
        genes.choose_precision("head", self.precisions)

    def decode(self, architecture: Architecture) -> Network:
        """Return stem, stages, bridge, layers and head.

        Raises:
            DegenerateArchitectureError: more strides than the resolution allows, a map that the patch does not tile
                into at least 4 tokens, or key and value heads that do not divide the heads.
        """
        choices = architecture.choices
        blocks, channels, map_side = stage_blocks(choices, self.task.channels)
        patch, width, norm = int(choices["patch"]), int(choices["token_width"]), str(choices["norm"])
        try:
            tokens = token_count(map_side, patch)
        except DegenerateArchitectureError as error:
            raise DegenerateArchitectureError(
                f"the stages leave a map of {map_side}x{map_side} pixels to attend to: {error}"
            ) from error
        blocks.append(("bridge", PatchStem(channels, width, patch, tokens)))

        def attention(heads: int, kv_heads: int, head_size: int) -> Attention:
            return Attention(width, heads, kv_heads, head_size, tokens, norm)

        blocks.extend(layer_blocks(choices, int(choices["layers"]), width, attention))
        blocks.append(("head", TokenHead(width, tokens, self.task.classes, norm, str(choices["pooling"]))))
        side = int(choices["resolution"])
        return Network((1, self.task.channels, side, side), tuple(blocks))

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        everywhere = (
            *(self.resolutions, self.strides, self.activations, self.stem_widths, self.patches, self.token_widths),
            *(self.heads, self.kv_heads, self.head_sizes, self.norms, self.poolings),
        )
        layered = count_layers(self, self.layers)
        return prod(map(len, everywhere)) * len(self.precisions) ** 3 * count_stages(self) * layered

    def shared_weights(self) -> Mapping[str, Tensor]:
        """Return fresh tensors, from torch's global generator, that the weights of every network are parts of."""
        from search_spaces.shared_layers import shared_tensors

        layers = largest_layers(self, max(self.token_widths), max(self.layers), self.task.classes)
        largest = chain(stages_at(self, max), self._bridges(max(self.widths[-1])), layers)
        return shared_tensors(named(largest), named(chain(stages_at(self, min), self._bridges(min(self.widths[-1])))))

    def _bridges(self, channels: int) -> Iterator[tuple[str, PatchStem]]:
        """Yield a bridge to the widest tokens per patch and number of tokens."""
        # Rounding up by two strides is rounding up by their product.
        strides = {prod(map(int, placement)) for placement in self.strides}
        for side in sorted({-(-side // stride) for side in self.resolutions for stride in strides}):
            for patch in self.patches:
                with suppress(DegenerateArchitectureError):
                    tokens = token_count(side, patch)
                    yield "bridge", PatchStem(channels, max(self.token_widths), patch, tokens)

    def shared_blocks(self, architecture: Architecture, /) -> Mapping[str, str]:
        """Return block to the prefix under which its weights stand among the shared ones."""
        return shared_names(self.decode(architecture))

    def shared_places(self, architecture: Architecture, /) -> Mapping[str, Mapping[int, Sequence[int]]]:
        """Return which entries the weights of attention take, so that each head keeps its place."""
        return head_places(self.decode(architecture), self)

    def sandwich(self, rng: np.random.Generator, others: int, /) -> Sequence[Architecture]:
        """Return the widest network, the narrowest and some others, all of one resolution."""
        return sandwich(self.suggest, {"resolution": self.resolutions}, rng, others)
