"""Convolutional networks of residual blocks, inverted bottlenecks and fused inverted bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from nas.architecture import Architecture
from nas.data import Task
from nas.errors import ConfigError
from search_spaces.block_space import BlockSpace, require_images
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.specs import (
    ACTIVATIONS,
    Bottleneck,
    ConvUnit,
    Network,
    PooledHead,
    Residual,
    require_known,
    squeeze_channels,
    strided,
)

BLOCKS = ("residual", "mbconv", "fused")


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
        precisions: of ``fp32`` and ``int8``.

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
        require_known("block", tuple(self.blocks), BLOCKS)
        require_known("activation", tuple(self.activations), ACTIVATIONS)
        even = [kernel for kernel in (*self.kernels, *self.dense_kernels) if kernel % 2 == 0 or kernel < 1]
        if even:
            raise ConfigError(f"kernels hold {even}; expected odd sides, which keep the map's size")
        for placement in self.strides:
            if len(placement) != len(self.widths) + 1 or not set(placement) <= {"1", "2"}:
                raise ConfigError(
                    f"stride placement '{placement}' must have {len(self.widths) + 1} digits of 1 and 2: "
                    f"one for the stem and one for each of the {len(self.widths)} lists in widths"
                )

    def ask(self, genes: Genes) -> None:
        """Ask for the global genes, then stage by stage for what the stage's kind of block reads."""
        genes.choose("resolution", self.resolutions)
        genes.choose("strides", self.strides)
        genes.choose("activation", self.activations)
        genes.choose("stem_width", self.stem_widths)
        genes.choose_precision("stem", self.precisions)
        for stage, widths in enumerate(self.widths):
            kind = genes.choose(f"stage{stage}_block", self.blocks)
            genes.choose(f"stage{stage}_width", widths)
            genes.choose(f"stage{stage}_squeeze", self.squeeze_ratios)
            # One name has one list of options in all trials, as Optuna demands, hence a name per kind of kernel.
            if kind == "mbconv":
                genes.choose(f"stage{stage}_kernel", self.kernels)
                genes.choose(f"stage{stage}_expansion", self.expansions)
            else:
                genes.choose(f"stage{stage}_dense_kernel", self.dense_kernels)
            if kind == "fused":
                genes.choose(f"stage{stage}_fused_expansion", self.fused_expansions)
            for block in range(genes.choose(f"stage{stage}_depth", self.depths)):
                genes.choose_precision(f"stage{stage}_block{block}", self.precisions)
        genes.choose("head_width", self.head_widths)
        genes.choose_precision("head", self.precisions)

    def decode(self, architecture: Architecture) -> Network:
        """Return stem, blocks and head.

        Raises:
            DegenerateArchitectureError: more strides than the resolution allows.
        """
        choices = architecture.choices
        side, channels = int(choices["resolution"]), int(choices["stem_width"])
        strides = [int(digit) for digit in str(choices["strides"])]
        activation = str(choices["activation"])
        blocks: list[tuple[str, object]] = []
        map_side = strided(side, strides[0], "the stem")
        blocks.append(("stem", ConvUnit(self.task.channels, channels, 3, strides[0], activation)))
        for stage, stage_stride in enumerate(strides[1:]):
            map_side = strided(map_side, stage_stride, f"stage {stage}")
            for index in range(int(choices[f"stage{stage}_depth"])):
                stride = stage_stride if index == 0 else 1
                spec = self._block(architecture, stage, channels, stride)
                blocks.append((f"stage{stage}_block{index}", spec))
                channels = int(choices[f"stage{stage}_width"])
        blocks.append(("head", PooledHead(channels, int(choices["head_width"]), self.task.classes, activation)))
        return Network((1, self.task.channels, side, side), tuple(blocks))

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        states = len(self.precisions)
        kinds = {
            "residual": len(self.dense_kernels),
            "mbconv": len(self.kernels) * len(self.expansions),
            "fused": len(self.dense_kernels) * len(self.fused_expansions),
        }
        per_stage = sum(kinds[kind] for kind in self.blocks) * len(self.squeeze_ratios)
        per_stage *= sum(states**depth for depth in self.depths)
        everywhere = (self.resolutions, self.strides, self.activations, self.stem_widths, self.head_widths)
        total: int = prod(map(len, everywhere)) * states**2 * prod(len(widths) * per_stage for widths in self.widths)
        return total

    def _block(self, architecture: Architecture, stage: int, inputs: int, stride: int) -> Residual | Bottleneck:
        genes = {
            name.removeprefix(f"stage{stage}_"): value
            for name, value in architecture.choices.items()
            if name.startswith(f"stage{stage}_")
        }
        activation = str(architecture.choices["activation"])
        outputs, ratio = int(genes["width"]), float(genes["squeeze"])
        if genes["block"] == "residual":
            kernel = int(genes["dense_kernel"])
            return Residual(inputs, outputs, kernel, stride, activation, squeeze_channels(outputs, ratio))
        fused = genes["block"] == "fused"
        hidden = inputs * int(genes["fused_expansion" if fused else "expansion"])
        kernel = int(genes["dense_kernel" if fused else "kernel"])
        gated = outputs if fused and hidden == inputs else hidden
        squeeze = squeeze_channels(gated, ratio)
        return Bottleneck(inputs, outputs, hidden, kernel, stride, activation, squeeze, fused)
