"""Whether measuring a candidate could change anything: who dominates whom on the front, or what is feasible."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.measurement import Estimate, Measurement, number_from_dict
from nas.objective import Objective, reference_box
from nas.pareto import hypervolume

Z_90 = 1.6448536269514722  # half width of a normal 90 % interval, in standard deviations
LATENCY = "latency_ms"
PREDICTION = "predicted_latency_ms"  # of it, before the candidate was evaluated


def interval(number: Measurement | Estimate) -> tuple[float, float]:
    """Return the 90 % interval of an estimate, never below 0; a measurement is taken as it is."""
    if isinstance(number, Measurement):
        return number.value, number.value
    return max(number.mean - Z_90 * number.std, 0.0), number.mean + Z_90 * number.std


@dataclass(frozen=True)
class Rival:
    """A candidate that may be on the front.

    Args:
        trial: its number.
        values: its objectives, the latency measured or as predicted now.
        worst_ms: upper end of the latency's interval; of a measured one its value.
    """

    trial: int
    values: Mapping[str, float]
    worst_ms: float


@dataclass(frozen=True)
class Guess:
    """What is known of a candidate's latency before it is evaluated.

    Args:
        estimate: of its latency, kind ``modelled`` until the model has learned enough to decide anything.
        rivals: candidates on the front as it stands.
        least_gain: hypervolume, as a share of its box, below which a place on the front is not worth a measurement.
    """

    estimate: Estimate
    rivals: tuple[Rival, ...] = ()
    least_gain: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        rivals = [vars(rival) for rival in self.rivals]
        return {"estimate": self.estimate.to_dict(), "rivals": rivals, "least_gain": self.least_gain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Guess:
        """Rebuild what :meth:`to_dict` returned."""
        estimate = number_from_dict(data["estimate"])
        assert isinstance(estimate, Estimate)
        return cls(estimate, tuple(Rival(**rival) for rival in data["rivals"]), data["least_gain"])

    def doubts_bound(self, bound: float | None) -> bool:
        """Say whether the interval leaves open if a bound on the latency holds."""
        low, high = interval(self.estimate)
        return bound is not None and (self.estimate.kind == "modelled" or low <= bound < high)

    def exceeds(self, bound: float | None) -> bool:
        """Say whether the whole interval lies beyond a bound on the latency."""
        return bound is not None and self.estimate.kind != "modelled" and interval(self.estimate)[0] > bound


def why_measure(
    guess: Guess, values: Mapping[str, float], objectives: Sequence[Objective], bound: float | None = None
) -> str:
    """Return why a candidate's latency is worth measuring, or nothing where no latency in its interval matters.

    Dominance is in doubt where a member of the front that is no worse in every other objective dominates the candidate
    at the upper end of its interval and does not at the lower. A candidate that is dominated even at the lower end is
    not measured. Neither is one that stands on the front wherever in its interval its latency lies: it is timed when
    the search ends and it is still there. Nor one that adds less than ``least_gain`` even at the lower end.

    Args:
        guess: the estimate and the front.
        values: of the candidate; all objectives but the latency.
        objectives: axes of the front.
        bound: largest latency that is feasible, or None.
    """
    if guess.estimate.kind == "modelled":
        return "the latency model has seen too little"
    if guess.doubts_bound(bound):
        return f"the interval holds the bound of {bound:g} ms"
    if LATENCY not in {objective.metric for objective in objectives}:
        return ""
    low, high = interval(guess.estimate)
    ahead = [rival for rival in guess.rivals if _is_nowhere_worse(rival.values, values, objectives)]
    if any(rival.worst_ms <= low for rival in ahead):
        return ""
    doubtful = [rival.trial for rival in ahead if rival.values[LATENCY] < high]
    if not doubtful:
        return ""
    fronts = [rival.values for rival in guess.rivals]
    if gain({**values, LATENCY: low}, fronts, objectives) < guess.least_gain:
        return ""
    return f"whether trial {doubtful[0]} dominates it depends on where in its interval its latency lies"


def gain(values: Mapping[str, float], front: Sequence[Mapping[str, float]], objectives: Sequence[Objective]) -> float:
    """Return what a candidate adds to the front's hypervolume, a share of the box; infinite without a reference."""
    box = reference_box(objectives)
    if box is None:
        return math.inf
    corner, whole = box
    rows = [[objective.loss(member) for objective in objectives] for member in front]
    mine = [objective.loss(values) for objective in objectives]
    before = hypervolume(rows, corner) if rows else 0.0
    return (hypervolume([*rows, mine], corner) - before) / whole


def _is_nowhere_worse(rival: Mapping[str, float], values: Mapping[str, float], objectives: Sequence[Objective]) -> bool:
    """Say whether the rival is no worse in every objective but the latency."""
    others = [objective for objective in objectives if objective.metric != LATENCY]
    return all(objective.loss(rival) <= objective.loss(values) for objective in others)
