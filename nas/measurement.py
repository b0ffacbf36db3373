"""Numbers with their provenance: measured ones and predicted ones are different types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Provenance = Literal["measured", "predicted", "emulated", "modelled", "computed"]


@dataclass(frozen=True)
class Measurement:
    """A value read on a device.

    Args:
        median: in ``unit``.
        p10: tenth percentile, in ``unit``.
        spread: half the distance between the quartiles, in ``unit``.
        count: samples behind the median.
        warmup: runs discarded before them.
        unit: such as ``ms`` or ``KiB``.
        device: fingerprint id of the device.
        runtime: name and version of the runtime that was timed.
        started_s: monotonic clock at the first sample, seconds.
        anchor_ratio: median of the ratios to the anchor model's interleaved blocks; None where no anchor ran.
        anchor_spread: half the distance between the quartiles of those ratios.
        disturbed: True when the machine never became calm within the budget.
    """

    median: float
    p10: float
    spread: float
    count: int
    warmup: int
    unit: str
    device: str
    runtime: str
    started_s: float
    anchor_ratio: float | None = None
    anchor_spread: float | None = None
    disturbed: bool = False

    @property
    def value(self) -> float:
        """The median."""
        return self.median

    @property
    def provenance(self) -> Provenance:
        """Always ``measured``."""
        return "measured"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, provenance included."""
        return {"provenance": self.provenance, **asdict(self)}


@dataclass(frozen=True)
class Estimate:
    """A value that nobody measured.

    Args:
        mean: in ``unit``.
        std: standard deviation, in ``unit``; ``inf`` where the model cannot say.
        unit: such as ``ms`` or ``mJ``.
        model: which model said so.
        device: name of the device that it speaks of.
        kind: ``predicted`` by a fitted model, ``modelled`` from published constants, ``computed`` exactly.
        note: why the interval is wider than where the model was fitted; empty where it is not.
    """

    mean: float
    std: float
    unit: str
    model: str
    device: str
    kind: Provenance = "predicted"
    note: str = ""

    @property
    def interval_90(self) -> tuple[float, float]:
        """Ends of the 90 % interval, 1.645 deviations to either side and never below 0."""
        half = 1.6448536269514722 * self.std
        return max(self.mean - half, 0.0), self.mean + half

    @property
    def value(self) -> float:
        """The mean."""
        return self.mean

    @property
    def provenance(self) -> Provenance:
        """The ``kind`` given."""
        return self.kind

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, provenance included; an infinite deviation becomes null."""
        std = self.std if math.isfinite(self.std) else None
        return {"provenance": self.kind, **asdict(self), "std": std}


def number_from_dict(data: Mapping[str, Any]) -> Measurement | Estimate:
    """Rebuild what ``to_dict`` of a Measurement or an Estimate returned."""
    fields = {key: value for key, value in data.items() if key != "provenance"}
    if data["provenance"] == "measured":
        return Measurement(**fields)
    if fields["std"] is None:
        fields["std"] = math.inf
    return Estimate(**fields)
