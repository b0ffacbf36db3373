"""What a search hands to its user at the end, and the front of a finished study decided again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas.agreement import Agreement
from nas.config.study import find_study
from nas.errors import StoreError
from nas.evaluation import Baseline, Evaluation
from nas.objective import Objective
from nas.protocols import ShippedModel
from nas.search.front import Members, baselines_of, complete, eligible, front_of, hypervolume_of, study_objectives
from nas.search.readings import agreement_of, measurements
from nas.search.rules import check_rule, pick
from nas.store import StudyStore


@dataclass(frozen=True)
class SearchReport:
    """What a verb shows at its end.

    Args:
        study: name.
        folder: folder of the study.
        objectives: axes of the front.
        front: trial number and evaluation of the members.
        hypervolume: share of the reference box, or NaN.
        counts: trial state to number.
        ended: why the search ended.
        elapsed_s: wall clock over all runs.
        shipped: trial number of the model to ship, or None.
        failed: whether an export was tried and failed.
        exportable: whether ``nas export`` can write the model to ship.
        rule: by which it was picked.
        reason: why that one, or why none.
        export: exported folder, or None.
        notes: sentences, such as pairs within noise.
        tracking: how to open the tracking page, or what is left.
        baselines: ready models that were put beside the candidates.
        measurements: step (``search``, ``drift``, ``settle``) to the number of latencies measured.
        agreement: of predictions and measurements, where the search made do with predictions (cost=auto).
    """

    study: str
    folder: Path
    objectives: tuple[Objective, ...]
    front: Members
    hypervolume: float
    counts: Mapping[str, int]
    ended: str
    elapsed_s: float
    shipped: int | None
    failed: bool
    exportable: bool
    rule: str
    reason: str
    export: Path | None
    notes: Sequence[str]
    tracking: str
    baselines: tuple[Baseline, ...] = ()
    measurements: Mapping[str, int] = field(default_factory=dict)
    agreement: Agreement | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready object that ``output=json`` prints on the last line."""
        keys = ("accuracy", "latency_ms", "size_kib")
        members = []
        for number, evaluation in self.front:
            metrics = dict.fromkeys((*keys, *(objective.metric for objective in self.objectives)))
            values = {metric: evaluation.values[metric] for metric in metrics if metric in evaluation.values}
            origins = {metric: evaluation.provenance.get(metric, {}).get("provenance") for metric in values}
            members.append(
                {"trial": number, "architecture": evaluation.architecture.id, **values, "provenance": origins}
            )
        return {
            "study": self.study,
            "front": members,
            "hypervolume": None if math.isnan(self.hypervolume) else self.hypervolume,
            "reference": {objective.metric: objective.reference for objective in self.objectives},
            "trials": dict(self.counts),
            "export": str(self.export) if self.export else None,
            "shipped": self.shipped,
            "rule": self.rule,
            "reason": self.reason,
            "elapsed_s": round(self.elapsed_s, 1),
            "notes": list(self.notes),
            "baselines": [item.to_dict() for item in self.baselines],
            "measurements": dict(self.measurements),
            "prediction": self.agreement.to_dict() if self.agreement else None,
        }


def run_front(config: Mapping[str, Any]) -> SearchReport:
    """Show the front of a study, decided again under the rule and the bounds given; nothing is trained or timed.

    Args:
        config: resolved config of ``nas front``.
    """
    check_rule(config["rule"])
    folder = find_study(config["study"], config["folder"])
    store = existing(folder)
    objectives = _rebound(store, config)
    extra = _other_bounds(config, objectives)
    members = [member for member in complete(store) if _within(member[1], (*objectives, *extra))]
    front = front_of(members, objectives)
    axes = study_objectives(store)
    own = {number for number, _ in front_of(eligible(store, axes), axes)}
    index, reason = pick(config["rule"], [evaluation.values for _, evaluation in front], objectives)
    return SearchReport(
        study=store.get("study"),
        folder=folder,
        objectives=objectives,
        front=front,
        hypervolume=hypervolume_of(front, objectives),
        counts=store.counts(),
        ended="",
        elapsed_s=float(store.get("elapsed_s", 0.0)),
        shipped=front[index][0],
        failed=False,
        exportable=front[index][0] in own and (folder / front[index][1].folder / "model.onnx").is_file(),
        rule=config["rule"],
        reason=reason,
        export=None,
        notes=store.get("within_noise", []),
        tracking="",
        baselines=baselines_of(store),
        measurements=measurements(store),
        agreement=agreement_of(store),
    )


def report_of(
    store: StudyStore,
    folder: Path,
    rule: str,
    ended: str,
    shipped: ShippedModel | None,
    reason: str,
    notes: Sequence[str],
    tracking: str,
) -> SearchReport:
    """Return the report of a search that has ended, its numbers read from the store."""
    objectives = study_objectives(store)
    front = front_of(eligible(store, objectives), objectives)
    return SearchReport(
        study=store.get("study"),
        folder=folder,
        objectives=objectives,
        front=front,
        hypervolume=hypervolume_of(front, objectives),
        counts=store.counts(),
        ended=ended,
        elapsed_s=float(store.get("elapsed_s", 0.0)),
        shipped=shipped.trial if shipped else None,
        failed=reason.startswith("export failed"),
        exportable=shipped is not None,
        rule=rule,
        reason=reason,
        export=shipped.folder if shipped else None,
        notes=notes,
        tracking=tracking,
        baselines=baselines_of(store),
        measurements=measurements(store),
        agreement=agreement_of(store),
    )


def summary(store: StudyStore, floor: float | None = None) -> dict[str, Any]:
    """Return what searches are compared by: hypervolume, members, best accuracy, the fastest above a floor (ms).

    Args:
        store: of a study that was started.
        floor: least accuracy of the candidates among which the fastest is looked for; None leaves it out.
    """
    objectives = study_objectives(store)
    members = eligible(store, objectives)
    front = front_of(members, objectives)
    volume = hypervolume_of(front, objectives)
    values = [evaluation.values for _, evaluation in members]
    fast = [
        value["latency_ms"]
        for value in values
        if floor is not None and value.get("accuracy", -math.inf) >= floor and "latency_ms" in value
    ]
    return {
        "hypervolume": None if math.isnan(volume) else volume,
        "members": len(front),
        "best_accuracy": max((value["accuracy"] for value in values if "accuracy" in value), default=None),
        "fastest_above_floor_ms": min(fast, default=None),
    }


def existing(folder: Path) -> StudyStore:
    """Open the store of a study that was started.

    Raises:
        StoreError: there is none.
    """
    path = folder / "store.sqlite"
    if not path.is_file():
        raise StoreError(f"{folder} holds no store.sqlite, so it is no study; nas search makes one")
    store = StudyStore(path)
    if store.get("config") is None:
        raise StoreError(f"{folder} was never started; delete it and run nas search again")
    return store


def _rebound(store: StudyStore, config: Mapping[str, Any]) -> tuple[Objective, ...]:
    """Return the study's objectives, or those asked for, under the bounds asked for."""
    known = {objective.metric: objective for objective in study_objectives(store)}
    asked = config.get("objective")
    if asked:
        chosen = [
            Objective(metric=metric, **{**fields, "reference": known[metric].reference if metric in known else None})
            for metric, fields in asked.items()
        ]
    else:
        chosen = list(known.values())
    bounds = config.get("bounds", {})
    return tuple(
        replace(objective, bound=bounds[objective.metric]) if bounds.get(objective.metric) is not None else objective
        for objective in chosen
    )


def _other_bounds(config: Mapping[str, Any], objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Return the bounds asked for on metrics that are no axis."""
    axes = {objective.metric for objective in objectives}
    return tuple(
        Objective(metric, "maximize" if metric == "accuracy" else "minimize", bound=bound)
        for metric, bound in config.get("bounds", {}).items()
        if bound is not None and metric not in axes
    )


def _within(evaluation: Evaluation, objectives: Sequence[Objective]) -> bool:
    return all(
        objective.metric in evaluation.values and objective.violation(evaluation.values[objective.metric]) <= 0
        for objective in objectives
    )
