"""What a search hands to its user at the end, and the front of a finished study decided again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas.agreement import Agreement
from nas.config.study import find_study
from nas.errors import ConfigError, StoreError
from nas.evaluation import Baseline, Evaluation
from nas.objective import Objective
from nas.protocols import ShippedModel
from nas.search.front import (
    DEVICES,
    Members,
    baselines_of,
    complete,
    eligible,
    front_of,
    hypervolume_of,
    leading,
    study_objectives,
)
from nas.search.readings import agreement_of, measurements
from nas.search.rules import check_rule, pick
from nas.search.several import device_stores, exchanges_of
from nas.store import StudyStore
from nas.targets import Exchange, expanded, own_axes, split


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
        agreement: of predictions and measurements, where the search made do with predictions (cost=auto); of several
            devices each has its own in ``devices``.
        devices: of a search for several devices, name to the report as that device sees it, with a front of its own.
        exchanges: what is lost there by shipping one device's winner on another.
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
    devices: Mapping[str, SearchReport] = field(default_factory=dict)
    exchanges: tuple[Exchange, ...] = ()

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
            **self._devices(),
        }

    def _devices(self) -> dict[str, Any]:
        """Return the fronts of several devices and what shipping elsewhere loses; nothing of one device."""
        if not self.devices:
            return {}
        kept = (
            *("front", "hypervolume", "reference", "export", "shipped", "reason", "notes"),
            *("measurements", "prediction"),
        )
        reports = {name: report.to_dict() for name, report in self.devices.items()}
        return {
            "devices": {name: {key: report[key] for key in kept} for name, report in reports.items()},
            "exchanges": [exchange.to_dict() for exchange in self.exchanges],
        }


def run_front(config: Mapping[str, Any]) -> SearchReport:
    """Show the front of a study, decided again under the rule and the bounds given; nothing is trained or timed.

    Args:
        config: resolved config of ``nas front``.

    Raises:
        ConfigError: no member qualifies; of several devices, on none of them.
    """
    check_rule(config["rule"])
    folder = find_study(config["study"], config["folder"])
    store = existing(folder)
    views = device_stores(store)
    if not views:
        return _decided(store, folder, config)
    devices, refusals = {}, []
    for name, view in views.items():
        try:
            devices[name] = _decided(view, folder, config)
        except ConfigError as error:
            refusals.append(f"{name}: {error}")
    if not devices:
        raise ConfigError("; ".join(refusals))
    joint = _decided(store, folder, {**config, "rule": "knee"}, everywhere=True)
    return _of_several(joint, devices, views, config["rule"], refusals)


def _of_several(
    joint: SearchReport,
    devices: Mapping[str, SearchReport],
    views: Mapping[str, StudyStore],
    rule: str,
    refusals: Sequence[str] = (),
) -> SearchReport:
    """Return the report over all axes with those of the devices, and the first one's winner in front."""
    first = next(iter(devices.values()))
    fronts = {name: (report.front, report.shipped) for name, report in devices.items()}
    return replace(
        joint,
        rule=rule,
        shipped=first.shipped,
        reason="; ".join([*(f"{name}: {report.reason}" for name, report in devices.items()), *refusals]),
        failed=any(report.failed for report in devices.values()),
        exportable=any(report.exportable for report in devices.values()),
        agreement=None,
        devices=devices,
        exchanges=exchanges_of(views, fronts),
    )


def _decided(store: StudyStore, folder: Path, config: Mapping[str, Any], everywhere: bool = False) -> SearchReport:
    """Return the front of a study, decided again; of several devices that of the one as which the store is seen.

    Args:
        store: of the study.
        folder: of the study.
        config: resolved config of ``nas front``.
        everywhere: the front over the costs on all devices, with bounds that hold on each.
    """
    objectives = _rebound(store, config, everywhere)
    extra = _other_bounds(config, objectives)
    members = [member for member in complete(store) if _within(member[1], (*objectives, *extra))]
    front = front_of(members, objectives)
    if not everywhere:
        objectives = own_axes(objectives)
        front = front_of(front, objectives)
    axes = study_objectives(store)
    own = {number for number, _ in front_of(eligible(store, axes), axes)}
    index, reason = pick(config["rule"], [evaluation.values for _, evaluation in front], objectives)
    exportable = front[index][0] in own and (folder / front[index][1].folder / "model.onnx").is_file()
    report = _reported(store, folder, objectives, front, config["rule"], reason)
    return replace(report, shipped=front[index][0], exportable=exportable, notes=store.get("within_noise", []))


def report_of(
    store: StudyStore,
    folder: Path,
    rule: str,
    ended: str,
    outcomes: Mapping[str, tuple[ShippedModel | None, str]],
    notes: Sequence[str],
    tracking: str,
) -> SearchReport:
    """Return the report of a search that has ended, its numbers read from the store.

    Args:
        store: of the study.
        folder: of the study.
        rule: by which was picked what ships.
        ended: why the search ended.
        outcomes: what ships and why, or why nothing, by device; under an empty name in a search for one device.
        notes: sentences.
        tracking: how to open the tracking page.
    """
    objectives = study_objectives(store)
    front = front_of(eligible(store, objectives), objectives)
    report = replace(_reported(store, folder, objectives, front, rule, ""), ended=ended, notes=notes, tracking=tracking)
    if "" in outcomes:
        return _shipping(report, *outcomes[""])
    views = device_stores(store)
    devices = {}
    for name, view in views.items():
        axes = own_axes(study_objectives(view))
        own = _reported(view, folder, axes, leading(view, axes), rule, "")
        devices[name] = _shipping(own, *outcomes[name])
    return _of_several(report, devices, views, rule)


def _shipping(report: SearchReport, shipped: ShippedModel | None, reason: str) -> SearchReport:
    return replace(
        report,
        shipped=shipped.trial if shipped else None,
        failed=reason.startswith("export failed"),
        exportable=shipped is not None,
        reason=reason,
        export=shipped.folder if shipped else None,
    )


def _reported(
    store: StudyStore, folder: Path, objectives: tuple[Objective, ...], front: Members, rule: str, reason: str
) -> SearchReport:
    """Return the report of a front before it is said what ships."""
    return SearchReport(
        study=store.get("study"),
        folder=folder,
        objectives=objectives,
        front=front,
        hypervolume=hypervolume_of(front, objectives),
        counts=store.counts(),
        ended="",
        elapsed_s=float(store.get("elapsed_s", 0.0)),
        shipped=None,
        failed=False,
        exportable=False,
        rule=rule,
        reason=reason,
        export=None,
        notes=(),
        tracking="",
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


def _rebound(store: StudyStore, config: Mapping[str, Any], everywhere: bool) -> tuple[Objective, ...]:
    """Return the study's objectives, or those asked for, under the bounds asked for.

    A bound is one on the device as which the store is seen, or on every one.
    """
    known = {objective.metric: objective for objective in study_objectives(store)}
    asked = config.get("objective")
    if asked:
        plain = [Objective(metric=metric, **{**fields, "reference": None}) for metric, fields in asked.items()]
        chosen = [
            replace(objective, reference=known[objective.metric].reference if objective.metric in known else None)
            for objective in expanded(plain, list(store.get(DEVICES, {}))[1:])
        ]
    else:
        chosen = list(known.values())
    bounds = config.get("bounds", {})
    asked_for = {axis.metric: bounds.get(split(axis.metric)[0] if everywhere else axis.metric) for axis in chosen}
    return tuple(
        objective if asked_for[objective.metric] is None else replace(objective, bound=asked_for[objective.metric])
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
