"""The front of a study, computed afresh from its store: members, hypervolume over time, reference point."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.cost_protocols import EnergyModel
from nas.doubt import LATENCY, interval
from nas.errors import StoreError
from nas.evaluation import Baseline, Evaluation, State
from nas.measurement import Measurement, number_from_dict
from nas.objective import Objective, reference_box
from nas.pareto import hypervolume, non_dominated
from nas.protocols import OperatorTime, SearchSnapshot, ShippedModel
from nas.screen import Screen
from nas.store import StudyStore
from nas.targets import on_device, split

Members = list[tuple[int, Evaluation]]

DEVICES = "devices"  # fact of a study: name to facts of each of several devices, the first one first

_REFERENCE_SAMPLES = 128
_REFERENCE_QUANTILE = 0.9
# A roofline bounds latency from below; on small networks runtimes take up to five times as long.
_MODELLED_LATENCY_FACTOR = 5.0


def round_up(value: float) -> float:
    """Return the next number of the series 1, 2, 5, 10, 20, ... that is not below ``value``."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value} cannot be rounded up; expected a positive finite number")
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1.0, 2.0, 5.0):
        if value <= step * power * (1 + 1e-9):
            return step * power
    return 10.0 * power


def resolve_references(
    objectives: Sequence[Objective], screen: Screen, energy_model: EnergyModel | None = None
) -> tuple[Objective, ...]:
    """Fill in missing references without running anything, so that searches of one space and device share them.

    A maximised metric gets 0. A cost gets its bound, or the 90th percentile over 128 architectures drawn with seed 0,
    by the lowered graph and the latency model, rounded up in the series 1, 2, 5. A latency that is only modelled is
    taken five times, since a roofline is a lower bound. Memory is taken as weights plus activations. A perplexity gets
    the size of the vocabulary, which guessing reaches. A metric that is none of these keeps no reference, and the
    hypervolume is NaN.

    Args:
        objectives: axes; those that have a reference keep it.
        screen: lowers and predicts.
        energy_model: gives energy its reference; without one it has none.
    """
    if all(objective.reference is not None for objective in objectives):
        return tuple(objectives)
    rng = np.random.default_rng(0)
    drawn: list[dict[str, float]] = []
    for _ in range(_REFERENCE_SAMPLES):
        architecture = screen.space.sample(rng)
        graph = screen.space.lower(architecture)
        estimates = screen.costs(architecture)
        costs = {name: estimate.value for name, estimate in estimates.items()}
        modelled = estimates["predicted_latency_ms"].provenance == "modelled"
        latency_ms = costs["predicted_latency_ms"] * (_MODELLED_LATENCY_FACTOR if modelled else 1.0)
        # Where nothing says otherwise, one more token of a language model takes no longer than its prompt.
        costs |= dict.fromkeys(screen.space.task.timings, latency_ms)
        costs["size_kib"] = costs["weights_kib"]
        costs["memory_kib"] = (graph.weight_bytes + graph.activation_bytes) / 1024
        if energy_model is not None:
            costs["energy_mj"] = energy_model.predict_energy(graph, screen.device).value
        drawn.append(costs)
    resolved = []
    for objective in objectives:
        reference = objective.reference
        if reference is None and objective.direction == "maximize":
            reference = 0.0
        elif reference is None and objective.bound is not None:
            reference = objective.bound
        elif reference is None and objective.metric.startswith("perplexity"):
            reference = float(screen.space.task.vocabulary)
        elif reference is None and objective.metric in drawn[0]:
            column = [costs[objective.metric] for costs in drawn]
            reference = round_up(float(np.quantile(column, _REFERENCE_QUANTILE)))
        resolved.append(replace(objective, reference=reference))
    return tuple(resolved)


def complete(store: StudyStore) -> Members:
    """Return trial number and evaluation of the feasible, fully evaluated candidates, re-measured values applied.

    Where a search did not measure all of them, the others have the estimate that its model made last.
    """
    facts = {
        name: {**store.get(on_device("estimates", name), {}), **store.get(on_device("settled", name), {})}
        for name in ("", *_further(store))
    }
    members = []
    for record in store.trials():
        if record.evaluation is not None and record.state == State.COMPLETE:
            evaluation = record.evaluation
            for name, latencies in facts.items():
                evaluation = with_settled(evaluation, latencies.get(str(record.number)), name)
            members.append((record.number, evaluation))
    return members


def _further(store: StudyStore) -> list[str]:
    """Return the names of a study's devices without the first one's; empty of a study of one."""
    return list(store.get(DEVICES, {}))[1:]


def settled_metric(names: Container[str]) -> str:
    """Return which time is taken again after a search: the latency, of a language model that of one more token."""
    return "latency_ms" if "latency_ms" in names else "token_ms"


def with_settled(evaluation: Evaluation, latency: Mapping[str, Any] | None, device: str = "") -> Evaluation:
    """Return the evaluation with its latency as re-measured after the search; the first reading is kept beside it.

    Args:
        evaluation: of the search.
        latency: of the new reading, or None.
        device: on which it was taken, where that is not the first one.
    """
    if latency is None:
        return evaluation
    number, metric = number_from_dict(latency), on_device(settled_metric(evaluation.values), device)
    values = {**evaluation.values, f"search_{metric}": evaluation.values[metric], metric: number.value}
    provenance = {**evaluation.provenance, f"search_{metric}": evaluation.provenance[metric], metric: latency}
    return replace(evaluation, values=values, provenance=provenance)


def eligible(store: StudyStore, objectives: Sequence[Objective]) -> Members:
    """Return the complete candidates that can be on the front and ship.

    Left out is what :meth:`nas.search.shipping.Shipper.prune` deleted, since drift of the machine would otherwise bring
    back members without files, what a re-measured latency has put beyond a bound, and what could not be timed, be it on
    one of several devices. An estimate counts as feasible when its interval reaches within the bound: only a
    measurement can tell.
    """
    pruned = set(store.get("pruned", []))
    for name in ("", *_further(store)):
        pruned |= set(map(int, store.get(on_device("untimeable", name), {})))
    return [
        (number, evaluation)
        for number, evaluation in complete(store)
        if number not in pruned
        and all(objective.violation(_at_best(evaluation, objective.metric)) <= 0 for objective in objectives)
    ]


def _at_best(evaluation: Evaluation, metric: str) -> float:
    if split(metric)[0] == LATENCY and evaluation.provenance.get(metric, {}).get("provenance") == "predicted":
        return interval(number_from_dict(evaluation.provenance[metric]))[0]
    return evaluation.values[metric]


def leading(store: StudyStore, objectives: Sequence[Objective]) -> Members:
    """Return the front over some of a study's axes, out of the members of its front over all of them.

    Of candidates that are equal in the axes given, one that is dominated in the others does not come into question; so
    whatever leads on one of several devices keeps its files.
    """
    axes = study_objectives(store)
    return front_within(eligible(store, axes), objectives, axes)


def losses(members: Members, objectives: Sequence[Objective]) -> list[list[float]]:
    """Return one row of losses per member, shape (members, objectives)."""
    return [[objective.loss(evaluation.values) for objective in objectives] for _, evaluation in members]


def front_of(members: Members, objectives: Sequence[Objective]) -> Members:
    """Return the non-dominated members, best first by the first objective; of equals the first evaluated stays."""
    if not members:
        return []
    rows = losses(members, objectives)
    mask = non_dominated(rows)
    kept: Members = []
    seen = set()
    for member, row, keep in zip(members, rows, mask, strict=True):
        if keep and tuple(row) not in seen:
            seen.add(tuple(row))
            kept.append(member)
    return sorted(kept, key=lambda member: [objective.loss(member[1].values) for objective in objectives])


def front_within(members: Members, objectives: Sequence[Objective], further: Sequence[Objective]) -> Members:
    """Return the front over some axes, out of the members of the front over these and further ones."""
    return front_of(front_of(members, (*objectives, *further)) if further else members, objectives)


def hypervolume_of(members: Members, objectives: Sequence[Objective]) -> float:
    """Return the hypervolume of the members as a share of the box from the origin to the reference point.

    For a maximised metric the box reaches from the reference to 1, which suits a share such as accuracy; a proxy score
    has no such end, so there the volume can exceed 1 and compares searches on the same proxy only. For a cost the box
    reaches from 0 to the reference. A study without a complete reference point gives NaN.
    """
    box = reference_box(objectives)
    if box is None:
        return math.nan
    corner, whole = box
    return (hypervolume(losses(members, objectives), corner) if members else 0.0) / whole


def hypervolume_history(
    members: Members, objectives: Sequence[Objective], finished: int
) -> tuple[tuple[int, float], ...]:
    """Return (finished trials, hypervolume) where it grew, and at the last trial.

    Args:
        members: complete candidates with their trial numbers.
        objectives: axes with references.
        finished: number of finished trials of any state.
    """
    history: list[tuple[int, float]] = []
    known: Members = []
    for member in members:
        known = front_of([*known, member], objectives)
        volume = hypervolume_of(known, objectives)
        if not history or volume > history[-1][1]:
            history.append((member[0] + 1, volume))
    if history and history[-1][0] < finished:
        history.append((finished, history[-1][1]))
    return tuple(history)


def study_objectives(store: StudyStore) -> tuple[Objective, ...]:
    """Return the objectives that the study was started with.

    Raises:
        StoreError: the study never started.
    """
    kept = store.get("objectives")
    if kept is None:
        raise StoreError(f"{store.path} holds no study yet; run nas search first")
    return tuple(Objective(**fields) for fields in kept)


def snapshot_of(store: StudyStore, folder: Path, axes: tuple[Objective, ...] | None = None) -> SearchSnapshot:
    """Rebuild all that a tracker shows from the store.

    Args:
        store: of the study.
        folder: of the study.
        axes: of the front, some of the study's; None takes all.
    """
    objectives = axes or study_objectives(store)
    members = complete(store)
    counts = store.counts()
    front = leading(store, objectives)
    evaluations = dict(members)
    everything = []
    for record in store.trials():
        if record.evaluation is not None and record.state != "duplicate":
            everything.append((record.number, evaluations.get(record.number, record.evaluation)))
    shipped = store.get("shipped")
    return SearchSnapshot(
        study=store.get("study", folder.name),
        folder=folder,
        config=store.get("config", {}),
        environment=store.get("environment", {}),
        device=store.get("device", {}),
        objectives=objectives,
        evaluations=tuple(everything),
        front=tuple(number for number, _ in front),
        hypervolume=hypervolume_history(members, objectives, sum(counts.values())),
        counts=counts,
        finished=bool(store.get("finished", False)),
        shipped=_shipped(shipped, folder) if shipped else None,
        started=float(store.get("started", 0.0)),
        baselines=baselines_of(store),
    )


def baselines_of(store: StudyStore) -> tuple[Baseline, ...]:
    """Return the ready models that were put beside the candidates; no front and no hypervolume knows them."""
    return tuple(Baseline.from_dict(item) for item in store.get("baselines", []))


def _shipped(kept: Mapping[str, Any], folder: Path) -> ShippedModel:
    operators = tuple(
        OperatorTime(**{**fields, "output_shape": tuple(fields["output_shape"])}) for fields in kept["operators"]
    )
    return ShippedModel(kept["trial"], folder / kept["folder"], kept["rule"], kept["reason"], operators)


def latency_spread(evaluation: Evaluation) -> float | None:
    """Return the recorded spread of a measured latency in milliseconds, or None for an estimate."""
    origin = evaluation.provenance.get(settled_metric(evaluation.values))
    number = number_from_dict(origin) if origin else None
    return number.spread if isinstance(number, Measurement) else None
