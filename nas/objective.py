"""Objectives of a search: what is minimised or maximised, in which unit, under which bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Objective:
    """One axis of the Pareto front.

    Args:
        metric: key of the value in an evaluation, unit included where it has one: ``accuracy``, ``latency_ms``.
        direction: ``maximize`` or ``minimize``.
        unit: for tables and plots; empty for a share.
        bound: worst value that is feasible, or None.
        reference: the metric's coordinate of the hypervolume's reference point, or None until it is resolved.
    """

    metric: str
    direction: Direction
    unit: str = ""
    bound: float | None = None
    reference: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(f"direction of {self.metric} is '{self.direction}'; expected maximize or minimize")

    @property
    def sign(self) -> float:
        """1 for a metric to minimise, -1 for one to maximise: ``sign * value`` is a loss."""
        return 1.0 if self.direction == "minimize" else -1.0

    def violation(self, value: float) -> float:
        """Return how far ``value`` lies beyond the bound; 0 or less is feasible, NaN is infinitely far."""
        if self.bound is None:
            return -math.inf
        return math.inf if math.isnan(value) else self.sign * (value - self.bound)

    def loss(self, values: Mapping[str, Any]) -> float:
        """Return the metric of ``values`` as a loss."""
        return self.sign * float(values[self.metric])


def reference_box(objectives: Sequence[Objective]) -> tuple[list[float], float] | None:
    """Return the hypervolume's reference point as losses and the volume of its box, or None where a reference lacks.

    For a maximised metric the box reaches from the reference to 1, for a cost from 0 to the reference.
    """
    corner, volume = [], 1.0
    for objective in objectives:
        if objective.reference is None:
            return None
        corner.append(objective.sign * objective.reference)
        volume *= objective.reference if objective.direction == "minimize" else 1.0 - objective.reference
    return corner, volume
