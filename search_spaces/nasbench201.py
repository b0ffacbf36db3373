"""NAS-Bench-201, the published cell space (Dong and Yang 2020), as networks that are built, trained and timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal

from nas.architecture import Architecture, Choice, Precision
from nas.data import Task
from nas.errors import ConfigError, DegenerateArchitectureError
from nas.graph import Attribute
from search_spaces.block_space import BlockSpace, require_images
from search_spaces.cells import (
    EDGES,
    OPERATIONS,
    Cell,
    CellHead,
    CellStage,
    Reduction,
    cell_of_index,
    cell_of_string,
)
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.lowering import Tape, Value, lower_block
from search_spaces.specs import ConvUnit, Network

if TYPE_CHECKING:
    from torch import nn

STAGES = 3
# Attributes of a 1x1 convolution, which in the reductions has no bias.
_PLAIN: dict[str, Attribute] = {
    **{"dilations": (1, 1), "group": 1, "kernel_shape": (1, 1), "pads": (0, 0, 0, 0), "strides": (1, 1)},
}


@dataclass(eq=False)
class NasBench201(BlockSpace):
    """Stem, three stages of one repeated cell with residual reductions between them, and a head.

    At 16 channels, 5 cells per stage and 32 pixels it is the published network. One departure: edges that carry
    nothing of the input to the output are left out, where the authors keep the constant that a convolution's norm
    makes of zeros. A cell without any path from input to output is degenerate here; they trained those too.

    Args:
        task: image classification.
        resolutions: sides of the square input, pixels, multiples of 4.
        operations: options of each of the six edges.
        channels: of stem and first stage.
        cells: per stage.
        precisions: of ``fp32``, ``int8`` and ``int4`` (weights of 4 bits).
        precision_per: ``network`` asks for one precision, ``stage`` for one each of stem, stages, reductions and head.

    Raises:
        ConfigError: a list is empty, repeats itself, or names what does not exist, or a number is below 1.
    """

    task: Task
    resolutions: Sequence[int]
    operations: Sequence[str] = OPERATIONS
    channels: int = 16
    cells: int = 5
    precisions: Sequence[str] = ("fp32", "int8")
    precision_per: Literal["network", "stage"] = "network"
    name: str = field(default="nasbench201", init=False)

    def __post_init__(self) -> None:
        require_images(self.name, self.task)
        self.resolutions = options_of("resolutions", self.resolutions)
        self.operations = options_of("operations", self.operations)
        self.precisions = as_precisions(self.precisions)
        unknown = sorted(set(self.operations) - set(OPERATIONS))
        if unknown:
            raise ConfigError(f"operations hold {', '.join(unknown)}; expected some of {', '.join(OPERATIONS)}")
        for number in ("channels", "cells"):
            if getattr(self, number) < 1:
                raise ConfigError(f"{number} is {getattr(self, number)}; expected at least 1")

    def ask(self, genes: Genes) -> None:
        """Ask for the resolution, the six edges and the precision."""
        genes.choose("resolution", self.resolutions)
        for edge in EDGES:
            genes.choose(_gene(edge), self.operations)
        if self.precision_per == "network":
            genes.choose_one_precision(self.blocks, self.precisions)
        else:
            for block in self.blocks:
                genes.choose_precision(block, self.precisions)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks in the order in which they run."""
        stages = [f"{kind}{stage}" for stage in range(STAGES) for kind in ("reduction", "stage")]
        return ("stem", *stages[1:], "head")

    def decode(self, architecture: Architecture) -> Network:
        """Return stem, stages, reductions and head.

        Raises:
            DegenerateArchitectureError: no path leads through the cell, or the resolution cannot be halved twice.
        """
        side, cell = int(architecture.choices["resolution"]), cell_of(architecture)
        if side % 4:
            raise DegenerateArchitectureError(f"a resolution of {side} cannot be halved twice; take a multiple of 4")
        if not cell.live:
            raise DegenerateArchitectureError(f"cell {cell} has no path from its input to its output")
        channels = self.channels
        blocks: list[tuple[str, object]] = [("stem", ConvUnit(self.task.channels, channels, 3, 1, "none"))]
        for stage in range(STAGES):
            if stage:
                blocks.append((f"reduction{stage}", Reduction(channels)))
                channels *= 2
            blocks.append((f"stage{stage}", CellStage(channels, self.cells, cell)))
        blocks.append(("head", CellHead(channels, self.task.classes, _ends_in_convolution(cell))))
        return Network((1, self.task.channels, side, side), tuple(blocks))

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included; 15,625 cells."""
        precisions = len(self.precisions) ** (1 if self.precision_per == "network" else len(self.blocks))
        return prod((len(self.resolutions), len(self.operations) ** len(EDGES), precisions))

    def build(self, architecture: Architecture, /) -> nn.Module:
        """Return the network with fresh weights from torch's global generator, one child per block."""
        import search_spaces.cell_layers  # noqa: F401  # registers the layers

        return super().build(architecture)

    def of_string(self, text: str, resolution: int | None = None, precision: str = "fp32") -> Architecture:
        """Return the architecture whose cell has a published string.

        Args:
            text: six operations, such as ``|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|``.
            resolution: one of the space's; None takes the largest.
            precision: of all blocks.

        Raises:
            ConfigError: it is no such string.
            DegenerateArchitectureError: the cell makes no sense, or an option is not in this space.
        """
        genes = dict(zip(map(_gene, EDGES), cell_of_string(text).operations, strict=True))
        choices: dict[str, Choice] = {"resolution": resolution or max(self.resolutions), **genes}
        if self.precision_per == "network":
            choices["precision"] = precision
        architecture = Architecture(self.name, choices, dict.fromkeys(self.blocks, Precision(precision)))
        self.check(architecture)
        return architecture

    def of_index(self, index: int, resolution: int | None = None, precision: str = "fp32") -> Architecture:
        """Return the architecture whose cell has a published number; see :meth:`of_string`."""
        return self.of_string(str(cell_of_index(index)), resolution, precision)


def cell_of(architecture: Architecture) -> Cell:
    """Return the cell of an architecture; ``str()`` of it is the published string, ``.index`` the number."""
    return Cell(tuple(str(architecture.choices[_gene(edge)]) for edge in EDGES))


def _gene(edge: tuple[int, ...]) -> str:
    return f"node{edge[0]}_from{edge[1]}"


def _ends_in_convolution(cell: Cell) -> bool:
    """Tell whether the cell's last op is a convolution that nothing is added to, so that a norm behind it folds."""
    node = 3
    while node:
        feeding = [(read, operation) for written, read, operation in cell.live if written == node]
        if len(feeding) > 1:
            return False
        node, operation = feeding[0]
        if operation != "skip_connect":
            return operation.startswith("nor_conv")
    return False


@lower_block.register
def _(spec: CellStage, tape: Tape, value: Value) -> Value:
    for index in range(spec.cells):
        nodes = {0: value}
        # The exporter computes what is the same once, such as the ReLU of a node that several convolutions read.
        shared: dict[tuple[str, ...], Value] = {}
        for written, read, operation in spec.cell.live:
            path, source = f"cell{index}/{_gene((written, read))}", nodes[read]
            if operation.startswith("nor_conv"):
                if ("relu", source.op) not in shared:
                    shared["relu", source.op] = tape.activation(f"{path}/act", source, "relu")
                rectified = shared["relu", source.op]
                source = tape.conv(f"{path}/conv", rectified, source.shape[1], int(operation[-1]), 1)
            elif operation == "avg_pool_3x3":
                if ("pool", source.op) not in shared:
                    shared["pool", source.op] = _pool(path, tape, source, kernel=3, stride=1, pad=1)
                source = shared["pool", source.op]
            if written in nodes:
                key = ("add", nodes[written].op, source.op)
                if key not in shared:
                    shared[key] = tape.add(f"cell{index}", "Add", [nodes[written], source], source.shape)
                source = shared[key]
            nodes[written] = source
        value = nodes[3]
    return value


def _pool(path: str, tape: Tape, value: Value, kernel: int, stride: int, pad: int) -> Value:
    _, channels, height, width = value.shape
    return tape.add(
        path,
        "AveragePool",
        [value],
        (1, channels, height // stride, width // stride),
        count_include_pad=0,
        kernel_shape=(kernel, kernel),
        pads=(pad, pad, pad, pad),
        strides=(stride, stride),
    )


@lower_block.register
def _(spec: Reduction, tape: Tape, value: Value) -> Value:
    outputs, inner = 2 * spec.inputs, value
    for path, stride in (("conv1", 2), ("conv2", 1)):
        inner = tape.conv(f"{path}/conv", tape.activation(f"{path}/act", inner, "relu"), outputs, 3, stride)
    short = _pool("shortcut/pool", tape, value, kernel=2, stride=2, pad=0)
    short = tape.add("shortcut/conv", "Conv", [short], inner.shape, {"weight": (outputs, spec.inputs, 1, 1)}, **_PLAIN)
    return tape.sum(short, inner)


@lower_block.register
def _(spec: CellHead, tape: Tape, value: Value) -> Value:
    if not spec.folds:
        weights = dict.fromkeys(("weight", "bias", "mean", "variance"), (spec.inputs,))
        value = tape.add("norm", "BatchNormalization", [value], value.shape, weights)
    value = tape.pool("pool", tape.activation("act", value, "relu"))
    value = tape.add("flatten", "Flatten", [value], (1, value.shape[1]), axis=1)
    return tape.linear("classifier", value, spec.classes)
