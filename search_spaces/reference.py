"""Hand-designed networks as a space, so that they go through the same training, quantization and timing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from nas.architecture import Architecture
from nas.data import Task
from search_spaces.block_space import BlockSpace, require_images
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.specs import Bottleneck, ConvUnit, Network, PooledHead, Residual, require_known, strided

Blocks = tuple[tuple[str, object], ...]

# (expansion, channels, blocks, stride of the first block): Sandler et al. 2018, table 2, with the strides of the stem
# and of the second row at 1, as is usual for pictures of 32 pixels.
_MOBILENET_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def mobilenet_v2(task: Task, width: float) -> Blocks:
    """Return MobileNetV2 for small pictures; as in the paper, the last 1280 channels are not narrowed.

    Args:
        task: image classification.
        width: multiplier of the channels, rounded to multiples of 8.
    """
    channels = _multiple_of_8(32 * width)
    blocks: list[tuple[str, object]] = [("stem", ConvUnit(task.channels, channels, 3, 1, "relu6"))]
    for stage, (expansion, base, count, first_stride) in enumerate(_MOBILENET_V2):
        outputs = _multiple_of_8(base * width)
        for index in range(count):
            stride = first_stride if index == 0 else 1
            spec = Bottleneck(channels, outputs, channels * expansion, 3, stride, "relu6")
            blocks.append((f"stage{stage}_block{index}", spec))
            channels = outputs
    last = _multiple_of_8(1280 * max(1.0, width))
    return (*blocks, ("head", PooledHead(channels, last, task.classes, "relu6")))


def resnet20(task: Task, width: float) -> Blocks:
    """Return ResNet-20 for small pictures (He et al. 2016, section 4.2), with 1x1 projections as shortcuts.

    The paper's parameter-free shortcuts (option A) need slices and pads, which quantized runtimes serve badly;
    projections (option B) add 2,752 parameters at width 1.

    Args:
        task: image classification.
        width: multiplier of the 16, 32 and 64 channels.
    """
    channels = max(4, round(16 * width))
    blocks: list[tuple[str, object]] = [("stem", ConvUnit(task.channels, channels, 3, 1, "relu"))]
    for stage, base in enumerate((16, 32, 64)):
        outputs = max(4, round(base * width))
        for index in range(3):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append((f"stage{stage}_block{index}", Residual(channels, outputs, 3, stride, "relu")))
            channels = outputs
    return (*blocks, ("head", PooledHead(channels, 0, task.classes, "none")))


NETWORKS: Mapping[str, Callable[[Task, float], Blocks]] = {"mobilenet_v2": mobilenet_v2, "resnet20": resnet20}


@dataclass(eq=False)
class Reference(BlockSpace):
    """Named networks in several widths, resolutions and precisions; one precision for the whole network.

    Args:
        task: image classification.
        resolutions: sides of the square input, pixels.
        networks: names from ``NETWORKS``; adding one there is all that a new one takes.
        widths: multipliers of the channels.
        precisions: of ``fp32``, ``int8`` and ``int4`` (weights of 4 bits).

    Raises:
        ConfigError: a list is empty, repeats itself, or names what does not exist.
    """

    task: Task
    resolutions: Sequence[int]
    networks: Sequence[str] = ("mobilenet_v2", "resnet20")
    widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0)
    precisions: Sequence[str] = ("fp32", "int8")
    name: str = field(default="reference", init=False)

    def __post_init__(self) -> None:
        require_images(self.name, self.task)
        for gene in ("resolutions", "networks"):
            setattr(self, gene, options_of(gene, getattr(self, gene)))
        # A config may say 1 for 1.0; equal networks need equal ids.
        self.widths = options_of("widths", [float(width) for width in self.widths])
        self.precisions = as_precisions(self.precisions)
        require_known("network", tuple(self.networks), tuple(NETWORKS))

    def ask(self, genes: Genes) -> None:
        """Ask for network, width, resolution and precision."""
        genes.choose("resolution", self.resolutions)
        network = genes.choose("network", self.networks)
        width = genes.choose("width", self.widths)
        blocks = NETWORKS[network](self.task, width)
        genes.choose_one_precision([name for name, _ in blocks], self.precisions)

    def decode(self, architecture: Architecture) -> Network:
        """Return the named network's blocks.

        Raises:
            DegenerateArchitectureError: more strides than the resolution allows.
        """
        choices = architecture.choices
        side = int(choices["resolution"])
        blocks = NETWORKS[str(choices["network"])](self.task, float(choices["width"]))
        map_side = side
        for name, spec in blocks:
            map_side = strided(map_side, getattr(spec, "stride", 1), name)
        return Network((1, self.task.channels, side, side), blocks)

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        return prod(map(len, (self.resolutions, self.networks, self.widths, self.precisions)))

    def enumerate(self) -> Iterator[Architecture]:
        """Yield every architecture once."""
        return self.every()


def _multiple_of_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    # Rounding down never loses more than a tenth, as in the authors' code.
    return rounded + 8 if rounded < 0.9 * channels else rounded
