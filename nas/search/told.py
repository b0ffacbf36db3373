"""What Optuna is told of an evaluation: its values, the state of its trial, and how near its constraints came."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from optuna.trial import TrialState

from nas.evaluation import Evaluation, State
from nas.objective import Objective
from nas.screen import Screen


def objective_values(evaluation: Evaluation | None, objectives: Sequence[Objective]) -> list[float] | None:
    """Return one value per objective, or None where one of them is missing or no number."""
    if evaluation is None:
        return None
    values = [evaluation.values.get(objective.metric, math.nan) for objective in objectives]
    return values if all(math.isfinite(value) for value in values) else None


def told_state(state: State, values: Sequence[float] | None) -> TrialState:
    """Return the state of the trial; one that has no values is never complete."""
    if state is State.FAILED:
        return TrialState.FAIL
    if state is State.PRUNED:
        return TrialState.PRUNED
    return TrialState.COMPLETE if values is not None else TrialState.PRUNED


def told_constraints(
    evaluation: Evaluation | None, violated: Mapping[str, float], screen: Screen, objectives: Sequence[Objective]
) -> dict[str, float]:
    """Return a violation for every bound whose metric is known, so that samplers see how near a miss was."""
    known = evaluation.values if evaluation else {}
    slack = {name: known[name] - bound for name, bound in screen.bounds.items() if name in known}
    for objective in objectives:
        if objective.bound is not None and objective.direction == "maximize" and objective.metric in known:
            slack[objective.metric] = objective.violation(known[objective.metric])
    return {**slack, **violated}


def counts(evaluation: Evaluation | None) -> bool:
    """Say whether an evaluation was spent on a candidate: screen and zero-cost scores refuse without training."""
    if evaluation is None or not evaluation.seconds:
        return False
    return not any(name.startswith("proxy_") and amount > 0 for name, amount in evaluation.constraints.items())
