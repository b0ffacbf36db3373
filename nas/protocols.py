"""The interfaces that join the parts; whatever satisfies one can be named in a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.data import ImageDataset, Task
from nas.device import Device
from nas.graph import Graph
from nas.measurement import Estimate, Measurement

if TYPE_CHECKING:
    from torch import Tensor, nn


class Suggester(Protocol):
    """Answers a space's questions; an Optuna trial is one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """Return one of ``choices``."""
        ...

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        """Return an integer from ``low`` to ``high``, both included."""
        ...


@runtime_checkable
class SearchSpace(Protocol):
    """A set of architectures with the ways to draw, change, build and lower them."""

    name: str
    task: Task

    def suggest(self, suggester: Suggester, /) -> Architecture:
        """Ask for every active choice and return the architecture.

        Raises:
            DegenerateArchitectureError: the answers make no sensible network.
        """
        ...

    def sample(self, rng: np.random.Generator, /) -> Architecture:
        """Draw one that is not degenerate."""
        ...

    def mutate(self, architecture: Architecture, rng: np.random.Generator, /) -> Architecture:
        """Return a neighbour by one edit; never the same and never degenerate."""
        ...

    def check(self, architecture: Architecture, /) -> None:
        """Raise DegenerateArchitectureError with the reason if it belongs to another space or makes no sense."""
        ...

    def build(self, architecture: Architecture, /) -> nn.Module:
        """Return the network with fresh weights; its children are named as the precision genes are."""
        ...

    def lower(self, architecture: Architecture, /) -> Graph:
        """Return the graph at batch size 1, batch norms folded, each op at its block's precision. No torch."""
        ...

    def input_size(self, architecture: Architecture, /) -> tuple[int, int]:
        """Return (height, width) of the pictures that it reads."""
        ...

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        ...


@dataclass(frozen=True)
class OperatorTime:
    """Time of one operator of a profile.

    Args:
        name: node name in the runtime's own graph.
        kind: operator type as it ran, after the runtime's fusions.
        median_us: median over the runs, microseconds.
        share: of the sum over all operators, 0 to 1.
        output_shape: as the runtime reports it, empty where it does not.
        dtype: of the output, such as ``float`` or ``uint8``, empty where unknown.
    """

    name: str
    kind: str
    median_us: float
    share: float
    output_shape: tuple[int, ...] = ()
    dtype: str = ""


class Session(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> Mapping[str, tuple[tuple[int | str, ...], str]]:
        """Input name to (shape with names for free sizes, numpy type name)."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]], /) -> list[NDArray[Any]]:
        """Return all outputs."""
        ...


class Runtime(Protocol):
    """Loads models, runs them, and profiles them per operator."""

    name: str

    @property
    def version(self) -> str:
        """Name and version in one word, such as ``onnxruntime-1.32.0``."""
        ...

    def load(self, model: Path, threads: int = 1) -> Session:
        """Load a model file.

        Raises:
            ModelFileError: missing, corrupted, or with external data outside its folder.
        """
        ...

    def profile(self, model: Path, runs: int = 50, threads: int = 1) -> list[OperatorTime]:
        """Return the time per operator, slowest first."""
        ...


class LatencyModel(Protocol):
    """Predicts latency from a lowered graph."""

    name: str

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]], /) -> None:
        """Learn from measured graphs."""
        ...

    def predict(self, graph: Graph, device: Device, /) -> Estimate:
        """Return milliseconds with a standard deviation."""
        ...


class EnergyModel(Protocol):
    """Predicts energy from a lowered graph."""

    name: str

    def predict_energy(self, graph: Graph, device: Device, /) -> Estimate:
        """Return millijoules with a standard deviation."""
        ...


class CostMeter(Protocol):
    """Takes the costs of a model file on a device."""

    def measure(self, model: Path, /) -> Mapping[str, Measurement]:
        """Return ``latency_ms``, ``memory_kib`` and, where the device has a source, ``energy_mj``.

        Raises:
            CandidateError: the model crashed the runtime, hung, or ran out of memory.
            MeasurementError: the device could not be used.
        """
        ...


class AccuracyProxy(Protocol):
    """Scores a network without training it; its result is a proxy score, never called accuracy."""

    name: str

    def score(self, module: nn.Module, images: Tensor, labels: Tensor, /) -> float:
        """Return a score that ranks architectures, larger is better.

        Args:
            module: network with fresh weights; left as it was.
            images: shape (batch, channels, height, width).
            labels: shape (batch,).
        """
        ...


class DataSource(Protocol):
    """Loads a data set; constructing it is cheap and reads nothing."""

    name: str

    def load(self) -> ImageDataset:
        """Read and split the data.

        Raises:
            DataError: missing or malformed, with what was expected and where to get it.
        """
        ...


class DeviceGate(Protocol):
    """Keeps training off the machine while a candidate is timed."""

    def training(self) -> AbstractContextManager[None]:
        """Held for one step; waits while somebody times."""
        ...

    def timing(self) -> AbstractContextManager[None]:
        """Exclusive; waits until no step is running."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        job: id that ``submit`` returned.
        result: what the job returned, or None if it failed.
        kind: cause of a failure as in ``CandidateError``, or empty.
        reason: why it failed, or empty.
    """

    job: int
    result: dict[str, Any] | None
    kind: str = ""
    reason: str = ""


class Executor(Protocol):
    """Runs jobs one candidate at a time, so that a candidate's death is an outcome."""

    @property
    def capacity(self) -> int:
        """How many jobs can be under way."""
        ...

    def submit(self, payload: Mapping[str, Any], /) -> int:
        """Start a job on a JSON-ready payload and return its id."""
        ...

    def wait(self, timeout_s: float | None = None, /) -> list[Outcome]:
        """Return the jobs that ended, at least one unless the time ran out or none is under way."""
        ...

    def close(self) -> None:
        """Stop all workers."""
        ...


Job = Callable[[Mapping[str, Any]], dict[str, Any]]
