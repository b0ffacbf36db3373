"""Synthetic search snapshots for tests of trackers and plots: every kind of evaluation, no training and no timing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture, Choice, Precision
from nas.evaluation import Evaluation, EvaluationKey, State
from nas.measurement import Estimate, Measurement
from nas.objective import Objective
from nas.pareto import hypervolume, non_dominated
from nas.protocols import OperatorTime, SearchSnapshot

STARTED = 1_760_000_000.0
OBJECTIVES = (
    Objective("accuracy", "maximize", reference=0.1),
    Objective("latency_ms", "minimize", unit="ms", reference=3.0),
    Objective("size_kib", "minimize", unit="KiB", reference=600.0),
)


def make_snapshot(
    folder: Path,
    trials: int = 12,
    objectives: Sequence[Objective] = OBJECTIVES,
    study: str = "synthetic",
    seed: int = 0,
    finished: bool = False,
) -> SearchSnapshot:
    """Return a snapshot whose first trials do not depend on ``trials``: growing it grows a search.

    Every ninth trial failed, every seventh was refused before its training, every eleventh is complete but beyond a
    constraint, every fifth has a predicted latency; the rest are complete and measured.

    Args:
        folder: of the study; nothing is written there.
        trials: how many trials were evaluated.
        objectives: axes; metrics other than accuracy get a value between 0.01 and 1000 that grows with the network.
        study: name of the study.
        seed: of the made-up values.
        finished: as in ``SearchSnapshot``.
    """
    evaluations = tuple((trial, make_evaluation(trial, objectives, seed)) for trial in range(trials))
    complete = [(trial, item) for trial, item in evaluations if item.state is State.COMPLETE]
    growth = []
    for count in range(1, len(complete) + 1):
        losses = [[axis.loss(item.values) for axis in objectives] for _, item in complete[:count]]
        references = [axis.sign * axis.reference for axis in objectives if axis.reference is not None]
        if len(references) == len(objectives):
            growth.append((complete[count - 1][0] + 1, hypervolume(losses, references)))
    losses = [[axis.loss(item.values) for axis in objectives] for _, item in complete]
    members = [complete[index] for index in np.flatnonzero(non_dominated(losses))] if complete else []
    members.sort(key=lambda member: objectives[0].loss(member[1].values))
    states = [str(item.state) for _, item in evaluations]
    return SearchSnapshot(
        study=study,
        folder=folder,
        config={
            "budget": trials,
            "seed": seed,
            "space": {"name": "toy", "depths": [1, 2, 3]},
            "data": {"name": "made_up"},
        },
        environment={"python": "3.11.9", "torch": "2.13.0", "onnxruntime": "1.32.0"},
        device={"name": "local", "fingerprint": {"id": "0123456789ab", "cpu": "Made-up CPU", "cores": 2}},
        objectives=tuple(objectives),
        evaluations=evaluations,
        front=tuple(trial for trial, _ in members),
        hypervolume=tuple(growth),
        counts={**{state: states.count(state) for state in set(states)}, "duplicate": 2},
        finished=finished,
        started=STARTED,
    )


def make_evaluation(trial: int, objectives: Sequence[Objective] = OBJECTIVES, seed: int = 0) -> Evaluation:
    """Return the evaluation of one made-up trial, always the same for the same arguments."""
    rng = np.random.default_rng([seed, trial])
    width, depth = int(rng.choice([8, 16, 24, 32, 48])), int(rng.integers(1, 5))
    blocks = ["stem", *(f"block{index}" for index in range(depth)), "head"]
    precision = {block: Precision.INT8 if rng.random() < 0.7 else Precision.FP32 for block in blocks}
    choices: dict[str, Choice] = {
        "width": width,
        "depth": depth,
        "kernel": int(rng.choice([3, 5, 7])),
        "activation": "relu",
        "trial": trial,
    }
    architecture = Architecture("toy", choices, precision)
    key = EvaluationKey(architecture.id, f"made_up-{seed}", "0123456789ab/t1", "onnxruntime-1.32.0")
    created = STARTED + 10.0 * (trial + 1)
    seconds = {"training": 6.0, "timing": 1.5}
    if trial % 9 == 8:
        return Evaluation(architecture, key, State.FAILED, reason="nan: the loss became NaN", created=created)
    work = width**1.3 * depth / 60.0
    values, provenance = _values(trial, work, objectives, rng)
    if trial % 7 == 6:
        del values["accuracy"]
        return Evaluation(
            architecture, key, State.INFEASIBLE, values, provenance, {"macs": 12.0}, "macs: 12 over", created=created
        )
    state = State.INFEASIBLE if trial % 11 == 10 else State.COMPLETE
    violation = {"latency_ms": 0.5 if state is State.INFEASIBLE else -0.5}
    return Evaluation(architecture, key, state, values, provenance, violation, "", seconds, created=created)


def _values(
    trial: int, work: float, objectives: Sequence[Objective], rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    values = {"accuracy": float(np.clip(0.97 - 0.25 * math.exp(-work) - abs(rng.normal(0, 0.03)), 0.05, 1.0))}
    provenance: dict[str, dict[str, Any]] = {"accuracy": {"provenance": "computed", "images": 360}}
    for axis in objectives:
        if axis.metric == "accuracy":
            continue
        scale = {"latency_ms": 0.4, "size_kib": 60.0}.get(axis.metric, 1.0)
        value = float(np.clip(scale * work * rng.uniform(0.8, 1.3), 0.01, 1000.0))
        values[axis.metric] = value
        origin: Measurement | Estimate
        if trial % 5 == 4:
            origin = Estimate(value, 0.1 * value, axis.unit, "roofline", "local", "modelled")
        else:
            origin = Measurement(
                value,
                0.96 * value,
                0.03 * value,
                200,
                20,
                axis.unit,
                "0123456789ab",
                "onnxruntime-1.32.0",
                1.0,
                2.5,
                0.05,
            )
        provenance[axis.metric] = origin.to_dict()
    return values, provenance


def with_front(snapshot: SearchSnapshot, front: Sequence[int]) -> SearchSnapshot:
    """Return the same search with another front, as a re-measurement leaves it."""
    return replace(snapshot, front=tuple(front))


def make_operators(count: int = 30) -> tuple[OperatorTime, ...]:
    """Return a made-up profile, slowest first, whose shares sum to 1."""
    kinds = ("QLinearConv", "QLinearAdd", "QuantizeLinear", "GlobalAveragePool", "Gemm", "Softmax")
    times = [120.0 * 0.85**index for index in range(count)]
    return tuple(
        OperatorTime(
            f"/stage{index % 4}_block{index}/conv/Conv_quant",
            kinds[index % 6],
            time,
            time / sum(times),
            (1, 8),
            "uint8",
        )
        for index, time in enumerate(times)
    )
