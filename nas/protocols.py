"""The interfaces that join the parts; whatever satisfies one can be named in a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.data import Dataset, Task
from nas.evaluation import Baseline, Evaluation
from nas.graph import Graph
from nas.measurement import Measurement
from nas.objective import Objective
from nas.targets import Exchange

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


@dataclass(frozen=True)
class OnnxSignature:
    """How a network that is more than one input and one output is exported.

    Args:
        example: inputs, by position.
        inputs: their names.
        outputs: names of what is returned.
        free: input or output to axis to the name of its free size.
        metadata: kept in the file.
    """

    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]]
    metadata: Mapping[str, str]


@runtime_checkable
class Exportable(Protocol):
    """A network that says itself how it is exported; any other has one input and the logits."""

    def onnx_signature(self) -> OnnxSignature:
        """Return the signature."""
        ...


@runtime_checkable
class ExactCosts(Protocol):
    """A space whose architectures have costs of their own that need nothing but arithmetic."""

    def exact_costs(self, architecture: Architecture, /) -> Mapping[str, tuple[float, str]]:
        """Return metric to value and unit, such as the size of a cache."""
        ...


@runtime_checkable
class StepLowering(Protocol):
    """A space of language models that can say what one more token costs."""

    def lower_step(self, architecture: Architecture, /) -> Graph:
        """Return the graph of one more token with the cache full but for it."""
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

    def input_size(self, architecture: Architecture, /) -> tuple[int, ...]:
        """Return (height, width) of the pictures that it reads, or (length,) of the texts in tokens."""
        ...

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        ...


@runtime_checkable
class WeightSharing(Protocol):
    """A space whose networks can all be cut out of one set of tensors.

    A weight of a network is a part of a shared tensor: of the axes of outputs and inputs the first entries unless the
    space says which, of a kernel the middle.
    """

    def shared_weights(self) -> Mapping[str, Tensor]:
        """Return fresh tensors at full size by name, from torch's global generator."""
        ...

    def shared_blocks(self, architecture: Architecture, /) -> Mapping[str, str]:
        """Return child of the built module to the prefix of its weights' names among the shared ones."""
        ...

    def shared_places(self, architecture: Architecture, /) -> Mapping[str, Mapping[int, Sequence[int]]]:
        """Return weight of the built module to axis to its entries of the shared tensor, if not the first."""
        ...

    def sandwich(self, rng: np.random.Generator, others: int, /) -> Sequence[Architecture]:
        """Return the widest network, the narrowest, and some drawn at random, all of one input size."""
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

    @property
    def name(self) -> str:
        """What configs and results call it."""
        ...

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
            images: shape (batch, channels, height, width), or tokens of shape (batch, length).
            labels: shape (batch,).
        """
        ...


class DataSource(Protocol):
    """Loads a data set; constructing it is cheap and reads nothing."""

    name: str

    def load(self) -> Dataset:
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
        kind: cause of a failure as in ``CandidateError``, ``infrastructure`` where the machine failed the candidate, or
            empty.
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


@dataclass(frozen=True)
class ShippedModel:
    """The model that the search hands over.

    Args:
        trial: number of its trial.
        folder: exported folder, with ``model.onnx`` and ``model_card.json``.
        rule: by which it was picked, such as ``knee``.
        reason: why the rule picked it, a sentence.
        operators: per-operator profile of ``model.onnx``.
    """

    trial: int
    folder: Path
    rule: str
    reason: str
    operators: tuple[OperatorTime, ...] = ()


@dataclass(frozen=True)
class SearchSnapshot:
    """All that a tracker shows of a search, rebuilt from the store at any time.

    Args:
        study: name of the study, unique in its output folder.
        folder: folder of the study.
        config: resolved config as plain containers.
        environment: versions of Python and of the packages that matter.
        device: name and fingerprint of the target, JSON-ready.
        objectives: axes of the front, with resolved references.
        evaluations: trial number and evaluation, in the order of the trials; duplicates are not repeated.
        front: trial numbers of the front's members, best accuracy first.
        hypervolume: number of finished trials and the front's hypervolume then, growing.
        counts: trial state (complete, infeasible, failed, duplicate) to number.
        finished: True once the search has ended.
        shipped: the exported model, or None until then.
        started: seconds since the epoch.
        baselines: ready models beside the candidates, on no front.
        devices: of a search for several devices, name to the search as that device sees it, with a front of its own.
        exchanges: what is lost there by shipping one device's winner on another.
    """

    study: str
    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    device: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    evaluations: tuple[tuple[int, Evaluation], ...]
    front: tuple[int, ...]
    hypervolume: tuple[tuple[int, float], ...]
    counts: Mapping[str, int]
    finished: bool = False
    shipped: ShippedModel | None = None
    started: float = 0.0
    baselines: tuple[Baseline, ...] = ()
    devices: Mapping[str, SearchSnapshot] = field(default_factory=dict)
    exchanges: tuple[Exchange, ...] = ()


class Tracker(Protocol):
    """Shows searches; what it could not write now it reconciles from a later snapshot, without duplicates."""

    def update(self, snapshot: SearchSnapshot, /) -> None:
        """Take note of a snapshot and return at once; never raises because the server is down or slow."""
        ...

    def close(self, timeout_s: float) -> str:
        """Write what is pending and return one line: how to open the page, or what is left and how to mend it."""
        ...
