"""Before a search: how large the space is, what its candidates cost, what the limits leave, and how long it takes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nas.accuracy.trainers import Trainer
from nas.architecture import Architecture
from nas.config.parts import Parts
from nas.config.sources import check_sources
from nas.errors import CandidateError
from nas.evaluation import Evaluation
from nas.targets import on_device

_SHOWN = ("macs", "params", "weights_kib", "predicted_latency_ms")
# Besides training these phases are made of runs of the quantized model, not of steps.
_PER_CANDIDATE = "screen to measurement"


@dataclass(frozen=True)
class Range:
    """Smallest, middle and largest value over the architectures drawn."""

    least: float
    median: float
    most: float


@dataclass(frozen=True)
class FidelityCost:
    """What one candidate took at one fidelity.

    Args:
        epochs: at which its training stood; 0 where nothing is trained.
        seconds: spent on it since the fidelity below, on this candidate.
        candidates: expected to get that far in a search of the budget.
    """

    epochs: int
    seconds: float
    candidates: int


@dataclass(frozen=True)
class Plan:
    """What a search would meet.

    Args:
        size: architectures of the space, degenerate ones included.
        drawn: architectures drawn and lowered.
        ranges: metric to its range over them.
        refused: constraint to the share of the drawn that it alone or with others refuses.
        satisfiable: share of the drawn that no constraint refuses.
        budget: candidates.
        workers: under way at a time.
        trial: id of the candidate that was evaluated, or empty.
        trial_macs: its multiply-accumulates.
        fidelities: cost per fidelity, lowest first; empty without a trial.
        seconds: estimate of the search's wall clock, or None without a trial.
        notes: sentences.
    """

    size: int
    drawn: int
    ranges: Mapping[str, Range]
    refused: Mapping[str, float]
    satisfiable: float
    budget: int
    workers: int
    trial: str = ""
    trial_macs: float = 0.0
    fidelities: Sequence[FidelityCost] = ()
    seconds: float | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "size": self.size,
            "drawn": self.drawn,
            "ranges": {name: [found.least, found.median, found.most] for name, found in self.ranges.items()},
            "refused": dict(self.refused),
            "satisfiable": self.satisfiable,
            "budget": self.budget,
            "workers": self.workers,
            "trial": self.trial or None,
            "fidelities": [vars(cost) for cost in self.fidelities],
            "estimated_seconds": self.seconds,
            "notes": list(self.notes),
        }


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Draw, lower and screen architectures, and evaluate one at each fidelity; writes nothing that stays.

    Args:
        config: resolved config of ``nas plan``, which is that of ``nas search``.

    Raises:
        ConfigError: what ``nas search`` would refuse at its start.
    """
    with tempfile.TemporaryDirectory(prefix="nas-plan-") as folder:
        parts = Parts(config, Path(folder))
        check_sources(parts)
        parts = Parts(config, Path(folder), parts.resolved_objectives())
        return _planned(parts, config)


def _planned(parts: Parts, config: Mapping[str, Any]) -> Plan:
    rng = np.random.default_rng(int(config["seed"]))
    drawn = [parts.space.sample(rng) for _ in range(int(config["plan"]["samples"]))]
    costs = [{name: cost.value for name, cost in parts.screen.costs(one).items()} for one in drawn]
    violations = [parts.screen.violations(parts.screen.costs(one)) for one in drawn]
    feasible = [index for index, violated in enumerate(violations) if not violated]
    names = sorted({name for violated in violations for name in violated})
    shown = (*_SHOWN, *(on_device("predicted_latency_ms", name) for name in parts.others))
    plan = Plan(
        size=parts.space.size(),
        drawn=len(drawn),
        ranges={name: _range([cost[name] for cost in costs]) for name in shown},
        refused={name: sum(name in violated for violated in violations) / len(drawn) for name in names},
        satisfiable=len(feasible) / len(drawn),
        budget=int(config["budget"]),
        workers=int(config["executor"]["workers"]),
        notes=parts.dataset.notes,
    )
    if not feasible or not config["plan"]["trial"]:
        return plan
    macs = np.array([costs[index]["macs"] for index in feasible])
    # The candidate of mean MACs stands for all: training time grows about linearly with them.
    middle = feasible[int(np.argmin(np.abs(macs - macs.mean())))]
    return _with_times(plan, parts, drawn[middle], costs[middle]["macs"])


def _with_times(plan: Plan, parts: Parts, candidate: Architecture, macs: float) -> Plan:
    halving = parts.halving
    count, known = plan.budget, None
    spent: list[FidelityCost] = []
    notes = [*plan.notes, *parts.prepare()]
    for rung in range(halving.top + 1):
        before = known.cost_s if known else 0.0
        try:
            known = parts.evaluator.evaluate(candidate, rung, known)
        except CandidateError as error:
            notes.append(f"the trial candidate failed ({error}); the time cannot be estimated from it")
            return Plan(**{**vars(plan), "notes": notes})
        spent.append(FidelityCost(_epochs(parts, rung, known), known.cost_s - before, max(count, 1)))
        if known.constraints:
            notes.append(f"the trial candidate was infeasible once built: {known.reason}")
            break
        count = max(1, round(count * halving.keep)) if halving.rungs else count
    seconds = sum(cost.seconds * cost.candidates for cost in spent) / plan.workers
    return Plan(
        **{
            **vars(plan),
            "trial": candidate.id,
            "trial_macs": macs,
            "fidelities": tuple(spent),
            "seconds": seconds,
            "notes": tuple(notes),
        }
    )


def _epochs(parts: Parts, rung: int, evaluation: Evaluation) -> int:
    if not isinstance(parts.accuracy, Trainer):
        return 0
    return int(evaluation.values.get("epochs", 0))


def _range(values: Sequence[float]) -> Range:
    return Range(float(min(values)), float(np.median(values)), float(max(values)))
