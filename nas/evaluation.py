"""What is known of one candidate after its evaluation, with the provenance of every value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from nas.architecture import Architecture


class State(StrEnum):
    """How an evaluation ended."""

    COMPLETE = "complete"
    INFEASIBLE = "infeasible"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class EvaluationKey:
    """When two evaluations would give the same answer; a duplicate is answered from the store by it.

    Args:
        architecture: id of the architecture.
        fidelity: data, recipe and seed that the accuracy was estimated with.
        device: key of the device (fingerprint and threads).
        runtime: name and version of the runtime.
    """

    architecture: str
    fidelity: str
    device: str
    runtime: str

    def __str__(self) -> str:
        return "|".join((self.architecture, self.fidelity, self.device, self.runtime))


@dataclass(frozen=True)
class Evaluation:
    """One candidate's outcome.

    Args:
        architecture: what was evaluated.
        key: under which the store keeps it.
        state: complete, infeasible (a constraint was violated), pruned (stopped below the full training, its values are
            of the fidelity that its key names) or failed.
        values: metric to value, units in the names; a metric that was not reached is absent.
        provenance: metric to a dictionary that says how the value was made; see ``Measurement.to_dict``.
        constraints: name to violation; above 0 is infeasible.
        reason: why it is infeasible, pruned or failed; empty when complete.
        seconds: phase to wall-clock seconds spent on it.
        folder: folder of its models, relative to the study's, or empty.
        created: seconds since the epoch at the end of the evaluation.
    """

    architecture: Architecture
    key: EvaluationKey
    state: State
    values: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    folder: str = ""
    created: float = 0.0

    @property
    def cost_s(self) -> float:
        """Wall-clock seconds spent over all phases."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "architecture": self.architecture.to_dict(),
            "key": str(self.key),
            "state": str(self.state),
            "values": dict(self.values),
            "provenance": {metric: dict(origin) for metric, origin in self.provenance.items()},
            "constraints": dict(self.constraints),
            "reason": self.reason,
            "seconds": dict(self.seconds),
            "folder": self.folder,
            "created": self.created,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """Rebuild what :meth:`to_dict` returned."""
        return cls(
            architecture=Architecture.from_dict(data["architecture"]),
            key=EvaluationKey(*data["key"].split("|")),
            state=State(data["state"]),
            values=dict(data["values"]),
            provenance=dict(data["provenance"]),
            constraints=dict(data["constraints"]),
            reason=data["reason"],
            seconds=dict(data["seconds"]),
            folder=data["folder"],
            created=data["created"],
        )


@dataclass(frozen=True)
class Baseline:
    """A ready model that was put beside the candidates; it is never picked to ship and no part of the hypervolume.

    Args:
        name: unique among the search's baselines.
        source: file or class that it came from.
        key: when two searches of it would give the same answer.
        precision: ``int8`` where it was quantized here, else ``as given``.
        values: metric to value, units in the names; what could not be had is absent.
        provenance: metric to a dictionary that says how the value was made.
        notes: sentences on what was done, and why what is absent is absent.
        folder: with ``model.onnx`` and ``profile.json``, relative to the study's; empty where it failed.
        reason: why it failed, or empty.
    """

    name: str
    source: str
    key: str
    precision: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    folder: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {**asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """Rebuild what :meth:`to_dict` returned."""
        return cls(**{**data, "notes": tuple(data["notes"])})
