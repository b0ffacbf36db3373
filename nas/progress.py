"""What is known so far of the candidate under evaluation, and how an evaluation ends early."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nas.errors import CandidateError
from nas.measurement import Estimate, Measurement


@dataclass
class Progress:
    """What is known so far of the candidate under evaluation."""

    values: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, metric: str, number: Measurement | Estimate) -> None:
        """Keep a cost with its provenance."""
        self.values[metric] = number.value
        self.provenance[metric] = number.to_dict()

    def note_all(self, costs: Mapping[str, Measurement | Estimate]) -> None:
        """Keep costs with their provenance."""
        for metric, number in costs.items():
            self.note(metric, number)

    def is_measured(self, metric: str) -> bool:
        """Say whether a cost was read on the device."""
        return self.provenance.get(metric, {}).get("provenance") == "measured"

    def compute(self, metric: str, value: float, how: str) -> None:
        """Keep a value that was computed here."""
        if math.isnan(value):
            raise CandidateError("nan", f"{metric} is NaN ({how})")
        self.values[metric] = value
        self.provenance[metric] = {"provenance": "computed", "how": how}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall-clock seconds of the block to a phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start


class InfeasibleError(Exception):
    """Ends the evaluation of a candidate beyond a constraint.

    Args:
        violations: constraint name to how far it is exceeded.
        reason: a sentence.
    """

    def __init__(self, violations: Mapping[str, float], reason: str) -> None:
        super().__init__(reason)
        self.violations = violations
