"""Convolutional networks of residual blocks, inverted bottlenecks and fused inverted bottlenecks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from nas.architecture import Architecture
from nas.data import Task
from search_spaces.block_space import BlockSpace, require_images
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.sharing import named, sandwich, shared_names, stages_at
from search_spaces.specs import Network, PooledHead
from search_spaces.stages import BLOCKS, ask_stages, check_stages, count_stages, stage_blocks

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class ConvNet(BlockSpace):
    """Stem, stages of one kind of block each, and a pooled head.

    Every argument but ``task`` is the list of a gene's options. Genes ``stage<i>_*`` are asked per stage; precision
    is asked for the stem, for each block and for the head.

    Args:
        task: image classification.
        resolutions: sides of the square input, pixels.
        stem_widths: channels after the stem's 3x3 convolution.
        strides: stride placements, one digit for the stem and one per stage, such as ``1122``.
        widths: per stage a list of channels; as many lists as stages.
        depths: blocks per stage.
        blocks: kinds of block, of ``residual``, ``mbconv``, ``fused``.
        kernels: of the depthwise convolution of ``mbconv``.
        dense_kernels: of ``residual`` and ``fused``, where cost grows with kernel area times channels squared.
        expansions: hidden channels of ``mbconv`` over its input channels.
        fused_expansions: likewise of ``fused``.
        squeeze_ratios: squeeze-and-excite channels over the channels that it gates; 0 for none.
        activations: of all blocks.
        head_widths: channels of a 1x1 convolution before the pooling; 0 for none.
        precisions: of ``fp32``, ``int8`` and ``int4`` (weights of 4 bits).

    Raises:
        ConfigError: a list is empty, repeats itself, or names what does not exist.
    """

    task: Task
    resolutions: Sequence[int]
    stem_widths: Sequence[int] = (4, 8, 16)
    strides: Sequence[str] = ("1122", "1212", "1222", "2112", "2122", "2212")
    widths: Sequence[Sequence[int]] = ((4, 8, 16, 24), (8, 16, 32, 48), (16, 32, 64, 96))
    depths: Sequence[int] = (1, 2, 3)
    blocks: Sequence[str] = BLOCKS
    kernels: Sequence[int] = (3, 5, 7)
    dense_kernels: Sequence[int] = (3, 5)
    expansions: Sequence[int] = (2, 4, 6)
    fused_expansions: Sequence[int] = (1, 2)
    squeeze_ratios: Sequence[float] = (0.0, 0.25)
    activations: Sequence[str] = ("relu", "hswish", "silu")
    head_widths: Sequence[int] = (0, 128)
    precisions: Sequence[str] = ("fp32", "int8")
    name: str = field(default="convnet", init=False)

    def __post_init__(self) -> None:
        require_images(self.name, self.task)
        # A config may say 0 for 0.0; equal networks need equal ids.
        self.squeeze_ratios = [float(ratio) for ratio in self.squeeze_ratios]
        for gene in (
            *("resolutions", "stem_widths", "strides", "depths", "blocks", "kernels", "dense_kernels", "expansions"),
            *("fused_expansions", "squeeze_ratios", "activations", "head_widths"),
        ):
            setattr(self, gene, options_of(gene, getattr(self, gene)))
        self.widths = tuple(options_of(f"widths[{stage}]", given) for stage, given in enumerate(self.widths))
        self.precisions = as_precisions(self.precisions)
        check_stages(self)

    def ask(self, genes: Genes) -> None:
        """Ask for the global genes, then stage by stage for what the stage's kind of block reads."""
        genes.choose("resolution", self.resolutions)
        genes.choose("strides", self.strides)
        genes.choose("activation", self.activations)
        genes.choose("stem_width", self.stem_widths)
        genes.choose_precision("stem", self.precisions)
        ask_stages(genes, self)
        genes.choose("head_width", self.head_widths)
        genes.choose_precision("head", self.precisions)

    def decode(self, architecture: Architecture) -> Network:
        """Return stem, blocks and head.

        Raises:
            DegenerateArchitectureError: more strides than the resolution allows.
        """
        choices = architecture.choices
        blocks, channels, _ = stage_blocks(choices, self.task.channels)
        head = PooledHead(channels, int(choices["head_width"]), self.task.classes, str(choices["activation"]))
        side = int(choices["resolution"])
        return Network((1, self.task.channels, side, side), (*blocks, ("head", head)))

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        everywhere = (self.resolutions, self.strides, self.activations, self.stem_widths, self.head_widths)
        return prod(map(len, everywhere)) * len(self.precisions) ** 2 * count_stages(self)

    def shared_weights(self) -> Mapping[str, Tensor]:
        """Return fresh tensors, from torch's global generator, that the weights of every network are parts of."""
        from search_spaces.shared_layers import shared_tensors

        def blocks(end: Callable[[Sequence[int]], int]) -> Iterator[tuple[str, object]]:
            yield from stages_at(self, end)
            width = end(self.widths[-1] if self.widths else self.stem_widths)
            for hidden in sorted({max(self.head_widths), min(self.head_widths)}, reverse=True):
                yield "head", PooledHead(width, hidden, self.task.classes, self.activations[0])

        return shared_tensors(named(blocks(max)), named(blocks(min)))

    def shared_blocks(self, architecture: Architecture, /) -> Mapping[str, str]:
        """Return block to the prefix under which its weights stand among the shared ones."""
        return shared_names(self.decode(architecture))

    def shared_places(self, architecture: Architecture, /) -> Mapping[str, Mapping[int, Sequence[int]]]:
        """Return nothing: every weight is the first channels and the middle of the kernel."""
        return {}

    def sandwich(self, rng: np.random.Generator, others: int, /) -> Sequence[Architecture]:
        """Return the widest network, the narrowest and some others, all of one resolution."""
        return sandwich(self.suggest, {"resolution": self.resolutions}, rng, others)
