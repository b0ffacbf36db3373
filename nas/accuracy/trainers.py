"""What gives a candidate its accuracy: a training, one that can go on, or a score in its place; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nas.accuracy.records import TrainingResult
from nas.architecture import Architecture
from nas.data import Dataset, Encoding
from nas.protocols import DeviceGate, SearchSpace

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Trainer(Protocol):
    """Trains a module for a while and says how accurate it became."""

    @property
    def key(self) -> str:
        """Hash of the recipe."""
        ...

    def train(
        self,
        module: nn.Module,
        dataset: Dataset,
        preprocessing: Encoding,
        seed: int,
        gate: DeviceGate | None = None,
    ) -> TrainingResult:
        """Train in place."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """A trainer that can stop after an epoch and go on from a checkpoint, to the same weights."""

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        ...

    def train(
        self,
        module: nn.Module,
        dataset: Dataset,
        preprocessing: Encoding,
        seed: int,
        gate: DeviceGate | None = None,
        *,
        until: int | None = None,
        checkpoint: Path | None = None,
    ) -> TrainingResult:
        """Train in place, from the checkpoint where it exists, until an epoch or the end."""
        ...


@runtime_checkable
class SharedTrainer(Protocol):
    """Trains one set of weights for a whole space before a search; a candidate takes its part of them."""

    def prepare(self, space: SearchSpace, dataset: Dataset, seed: int, gate: DeviceGate | None = None) -> Path:
        """Train what is not trained yet and return the file."""
        ...

    def adopt(
        self,
        module: nn.Module,
        space: SearchSpace,
        architecture: Architecture,
        dataset: Dataset,
        preprocessing: Encoding,
        seed: int,
        gate: DeviceGate | None = None,
    ) -> TrainingResult:
        """Give the module its part of the weights and say how accurate it is."""
        ...


class Scorer(Protocol):
    """Stands in for training with a zero-cost score."""

    proxy: str

    @property
    def key(self) -> str:
        """Hash of the recipe."""
        ...
