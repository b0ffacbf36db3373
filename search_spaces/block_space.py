"""A space whose networks are chains of named blocks: three methods make one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas.architecture import Architecture
from nas.data import Task
from nas.errors import UnservedTaskError
from nas.graph import Graph
from nas.protocols import Suggester
from search_spaces.genes import Genes, draw, everything, neighbour, verify
from search_spaces.lowering import lower_network
from search_spaces.specs import Network

if TYPE_CHECKING:
    from torch import nn


class BlockSpace(ABC):
    """Gives a space everything but its genes (``ask``), their meaning (``decode``) and their number (``size``).

    Attributes:
        name: of the space, part of every architecture's id.
        task: what the networks must read and say.
    """

    name: str
    task: Task

    @abstractmethod
    def ask(self, genes: Genes) -> None:
        """Ask for every active gene; the same name always with the same options."""

    @abstractmethod
    def decode(self, architecture: Architecture) -> Network:
        """Return the blocks.

        Raises:
            DegenerateArchitectureError: the genes make no sensible network, with the reason.
        """

    @abstractmethod
    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""

    def suggest(self, suggester: Suggester, /) -> Architecture:
        """Ask for every active choice and return the architecture.

        Raises:
            DegenerateArchitectureError: the answers make no sensible network.
        """
        architecture = self._ask(suggester)
        self.decode(architecture)
        return architecture

    def sample(self, rng: np.random.Generator, /) -> Architecture:
        """Draw one that is not degenerate; every gene uniformly, which is not uniform over architectures."""
        return draw(self.suggest, rng)

    def mutate(self, architecture: Architecture, rng: np.random.Generator, /) -> Architecture:
        """Return a neighbour by one edit; never the same and never degenerate."""
        return neighbour(self.suggest, architecture, rng)

    def check(self, architecture: Architecture, /) -> None:
        """Raise DegenerateArchitectureError with the reason if it belongs to another space or makes no sense."""
        verify(self.suggest, architecture, self.name)

    def build(self, architecture: Architecture, /) -> nn.Module:
        """Return the network with fresh weights from torch's global generator, one child per block."""
        from search_spaces.layers import assemble

        self.check(architecture)
        return assemble(self.decode(architecture))

    def lower(self, architecture: Architecture, /) -> Graph:
        """Return the graph at batch size 1, batch norms folded, each op at its block's precision. No torch."""
        self.check(architecture)
        lowered = lower_network(self.decode(architecture), architecture.precision)
        return replace(lowered, architecture=architecture)

    def input_size(self, architecture: Architecture, /) -> tuple[int, ...]:
        """Return (height, width) of the pictures that it reads."""
        side = int(architecture.choices["resolution"])
        return side, side

    def every(self) -> Iterator[Architecture]:
        """Yield every architecture once, degenerate ones included; endless in practice for a large space."""
        return everything(self._ask)

    def _ask(self, suggester: Suggester) -> Architecture:
        genes = Genes(suggester)
        self.ask(genes)
        return genes.architecture(self.name)


def require_images(space: str, task: Task) -> None:
    """Raise ConfigError unless the task is image classification."""
    require_task(space, task, "image_classification")


def require_task(space: str, task: Task, *kinds: str) -> None:
    """Raise UnservedTaskError unless the task is one of ``kinds``."""
    if task.kind not in kinds:
        raise UnservedTaskError(f"space '{space}' serves {' and '.join(kinds)}; the data pose '{task.kind}'")
