"""The interfaces of cost models: what predicts, explains and documents a latency or an energy, and what fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nas.device import Device
from nas.graph import Graph
from nas.measurement import Estimate, Measurement


class LatencyModel(Protocol):
    """Predicts latency from a lowered graph."""

    name: str

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]], /) -> None:
        """Learn from measured graphs."""
        ...

    def predict(self, graph: Graph, device: Device, /) -> Estimate:
        """Return milliseconds with a standard deviation."""
        ...


@dataclass(frozen=True)
class TimedNetwork:
    """An architecture with its times in each runtime that took it.

    Args:
        space: name of its space.
        precision: ``fp32`` or ``int8`` where all blocks are so, else ``mixed``.
        architecture: id.
        graph: lowered.
        times: runtime name to one measurement per process in which it was timed, in ms.
        profiles: runtime name to block to its share of the time, by the runtime's own profile of operators; what
            belongs to no block stands under the empty name. Empty where it was not profiled.
    """

    space: str
    precision: str
    architecture: str
    graph: Graph
    times: Mapping[str, tuple[Measurement, ...]]
    profiles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class LatencyFitter(Protocol):
    """Fits, scores and saves latency models on times of networks."""

    def fit(
        self, timed: Sequence[TimedNetwork], device: Device, folder: Path, facts: Mapping[str, Any], /
    ) -> Mapping[str, Any]:
        """Write ``folder`` with one model per runtime and a ``card.json``, and return the card, JSON-ready.

        Args:
            timed: networks; some are held out whole for the scores.
            device: on which they were timed.
            folder: is made where missing.
            facts: kept in the card, such as ``runtimes`` (name to version).
        """
        ...


@dataclass(frozen=True)
class PredictedPart:
    """A kernel's share of a predicted latency.

    Args:
        name: of the op that bears the work.
        kind: what the model takes it for.
        latency_ms: its share; the shares of a network sum to the prediction.
        known: False where the model has seen nothing like it.
        ops: names of all ops in it.
    """

    name: str
    kind: str
    latency_ms: float
    known: bool
    ops: tuple[str, ...] = ()


@runtime_checkable
class ExplainingModel(Protocol):
    """A latency model that says what its prediction consists of, and when it is asked beyond what it has seen."""

    name: str

    def predict(self, graph: Graph, device: Device, /) -> Estimate:
        """Return milliseconds with a standard deviation."""
        ...

    def parts(self, graph: Graph, device: Device, /) -> list[PredictedPart]:
        """Return the kernels, in the order of the graph."""
        ...

    def doubts(self, graph: Graph, device: Device, /) -> list[str]:
        """Return why the interval is wider than the card's, a sentence each; nothing inside of what was fitted."""
        ...


@runtime_checkable
class EnergyModel(Protocol):
    """Predicts energy from a lowered graph."""

    name: str

    def predict_energy(self, graph: Graph, device: Device, /) -> Estimate:
        """Return millijoules with a standard deviation."""
        ...


@runtime_checkable
class Documented(Protocol):
    """A cost model that says what it rests on; the cards go into the exported model's card."""

    def cards(self, device: Device, /) -> Mapping[str, Any]:
        """Return model name, as its estimates give it, to what it was fitted on and how good it is; JSON-ready."""
        ...


class TableScorer(Protocol):
    """Scores cost models on a table of measurements."""

    def score(
        self,
        table: str,
        space: str,
        target: str,
        train: int,
        seeds: int,
        latency: str | None = None,
        transfer_from: Sequence[str] = (),
    ) -> Mapping[str, Any]:
        """Return scores on architectures that were held out, and those of baselines under ``baseline``; JSON-ready."""
        ...
