"""A space of under 200 tiny networks that can be enumerated, for tests and golden fronts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

from nas.architecture import Architecture
from nas.data import Task
from nas.errors import ConfigError, DegenerateArchitectureError
from search_spaces.block_space import BlockSpace, require_images
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.specs import ConvUnit, Network, PooledHead, strided


@dataclass(eq=False)
class Toy(BlockSpace):
    """Stem, one or two strided convolutions, head; one precision for all.

    Args:
        task: image classification.
        resolutions: sides of the square input, pixels; at most 4, which keeps the space under 200.
        widths: channels of every convolution.
        depths: convolutions after the stem.
        kernels: of these convolutions.
        strides: of each of these convolutions; a stride longer than the map is degenerate.
        precisions: of ``fp32``, ``int8`` and ``int4`` (weights of 4 bits), for the whole network.

    Raises:
        ConfigError: a list is empty or repeats itself, or the space has 200 architectures or more.
    """

    task: Task
    resolutions: Sequence[int]
    widths: Sequence[int] = (4, 8)
    depths: Sequence[int] = (1, 2)
    kernels: Sequence[int] = (3, 5)
    strides: Sequence[int] = (1, 2, 4)
    precisions: Sequence[str] = ("fp32", "int8")
    name: str = field(default="toy", init=False)

    def __post_init__(self) -> None:
        require_images(self.name, self.task)
        for gene in ("resolutions", "widths", "depths", "kernels", "strides"):
            setattr(self, gene, options_of(gene, getattr(self, gene)))
        self.precisions = as_precisions(self.precisions)
        if self.size() >= 200:
            raise ConfigError(f"space 'toy' would have {self.size()} architectures; expected under 200: shorten a list")

    def ask(self, genes: Genes) -> None:
        """Ask for six genes."""
        genes.choose("resolution", self.resolutions)
        genes.choose("width", self.widths)
        genes.choose("kernel", self.kernels)
        genes.choose("stride", self.strides)
        depth = genes.choose("depth", self.depths)
        genes.choose_one_precision(["stem", *(f"block{index}" for index in range(depth)), "head"], self.precisions)

    def decode(self, architecture: Architecture) -> Network:
        """Return stem, convolutions and head.

        Raises:
            DegenerateArchitectureError: a stride is longer than the feature map.
        """
        choices = architecture.choices
        side, width, stride = int(choices["resolution"]), int(choices["width"]), int(choices["stride"])
        blocks: list[tuple[str, object]] = [("stem", ConvUnit(self.task.channels, width, 3, 1, "relu"))]
        map_side = side
        for index in range(int(choices["depth"])):
            map_side = strided(map_side, stride, f"block {index}")
            blocks.append((f"block{index}", ConvUnit(width, width, int(choices["kernel"]), stride, "relu")))
        blocks.append(("head", PooledHead(width, 0, self.task.classes, "none")))
        return Network((1, self.task.channels, side, side), tuple(blocks))

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        genes = (self.resolutions, self.widths, self.kernels, self.strides, self.depths, self.precisions)
        return prod(map(len, genes))

    def enumerate(self) -> Iterator[Architecture]:
        """Yield every architecture that makes sense, once; ``every`` yields the degenerate ones too."""
        for architecture in self.every():
            try:
                self.decode(architecture)
            except DegenerateArchitectureError:
                continue
            yield architecture
