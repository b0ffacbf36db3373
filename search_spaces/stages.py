"""Stages of convolutional blocks: their genes, blocks and number, for every space that has some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nas.architecture import Choice
from nas.errors import ConfigError
from search_spaces.genes import Genes
from search_spaces.specs import (
    ACTIVATIONS,
    Bottleneck,
    ConvUnit,
    Residual,
    require_known,
    squeeze_channels,
    strided,
)

BLOCKS = ("residual", "mbconv", "fused")


class StageOptions(Protocol):
    """What a space offers for its stages; :class:`search_spaces.convnet.ConvNet` says what each list is."""

    strides: Sequence[str]
    widths: Sequence[Sequence[int]]
    depths: Sequence[int]
    blocks: Sequence[str]
    kernels: Sequence[int]
    dense_kernels: Sequence[int]
    expansions: Sequence[int]
    fused_expansions: Sequence[int]
    squeeze_ratios: Sequence[float]
    activations: Sequence[str]
    precisions: Sequence[str]


def check_stages(options: StageOptions) -> None:
    """Raise ConfigError for unknown names, even kernels, and stride placements of a wrong length."""
    require_known("block", tuple(options.blocks), BLOCKS)
    require_known("activation", tuple(options.activations), ACTIVATIONS)
    even = [kernel for kernel in (*options.kernels, *options.dense_kernels) if kernel % 2 == 0 or kernel < 1]
    if even:
        raise ConfigError(f"kernels hold {even}; expected odd sides, which keep the map's size")
    for placement in options.strides:
        if len(placement) != len(options.widths) + 1 or not set(placement) <= {"1", "2"}:
            raise ConfigError(
                f"stride placement '{placement}' must have {len(options.widths) + 1} digits of 1 and 2: "
                f"one for the stem and one for each of the {len(options.widths)} lists in widths"
            )


def ask_stages(genes: Genes, options: StageOptions) -> None:
    """Ask stage by stage for what the stage's kind of block reads."""
    for stage, widths in enumerate(options.widths):
        kind = genes.choose(f"stage{stage}_block", options.blocks)
        genes.choose(f"stage{stage}_width", widths)
        genes.choose(f"stage{stage}_squeeze", options.squeeze_ratios)
        # One name has one list of options in all trials, as Optuna demands, hence a name per kind of kernel.
        if kind == "mbconv":
            genes.choose(f"stage{stage}_kernel", options.kernels)
            genes.choose(f"stage{stage}_expansion", options.expansions)
        else:
            genes.choose(f"stage{stage}_dense_kernel", options.dense_kernels)
        if kind == "fused":
            genes.choose(f"stage{stage}_fused_expansion", options.fused_expansions)
        for block in range(genes.choose(f"stage{stage}_depth", options.depths)):
            genes.choose_precision(f"stage{stage}_block{block}", options.precisions)


def stage_blocks(choices: Mapping[str, Choice], image_channels: int) -> tuple[list[tuple[str, object]], int, int]:
    """Return stem and stages with the channels and the side of the map that they leave.

    Args:
        choices: ``resolution``, ``strides``, ``activation``, ``stem_width``, and those of the stages.
        image_channels: of the picture.

    Raises:
        DegenerateArchitectureError: more strides than the resolution allows.
    """
    channels, activation = int(choices["stem_width"]), str(choices["activation"])
    strides = [int(digit) for digit in str(choices["strides"])]
    side = strided(int(choices["resolution"]), strides[0], "the stem")
    blocks: list[tuple[str, object]] = [("stem", ConvUnit(image_channels, channels, 3, strides[0], activation))]
    for stage, stage_stride in enumerate(strides[1:]):
        side = strided(side, stage_stride, f"stage {stage}")
        for index in range(int(choices[f"stage{stage}_depth"])):
            stride = stage_stride if index == 0 else 1
            blocks.append((f"stage{stage}_block{index}", stage_block(choices, stage, channels, stride)))
            channels = int(choices[f"stage{stage}_width"])
    return blocks, channels, side


def count_stages(options: StageOptions) -> int:
    """Return in how many ways the stages can be chosen, precisions included, degenerate ones too."""
    kinds = {
        "residual": len(options.dense_kernels),
        "mbconv": len(options.kernels) * len(options.expansions),
        "fused": len(options.dense_kernels) * len(options.fused_expansions),
    }
    per_stage = sum(kinds[kind] for kind in options.blocks) * len(options.squeeze_ratios)
    per_stage *= sum(len(options.precisions) ** depth for depth in options.depths)
    total = 1
    for widths in options.widths:
        total *= len(widths) * per_stage
    return total


def stage_block(choices: Mapping[str, Choice], stage: int, inputs: int, stride: int) -> Residual | Bottleneck:
    """Return the description of one block of a stage.

    Args:
        choices: ``activation`` and those of the stage.
        stage: counted from 0.
        inputs: channels read.
        stride: of the block.
    """
    prefix = f"stage{stage}_"
    genes = {name.removeprefix(prefix): value for name, value in choices.items() if name.startswith(prefix)}
    activation = str(choices["activation"])
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
