"""What MLflow shall hold for a snapshot, worked out without MLflow: runs with their parameters, metrics and tags."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nas.agreement import agreement, first_reading, is_predicting, kendall_tau
from nas.evaluation import Baseline, Evaluation, State
from nas.objective import Objective
from nas.plots.points import fully_evaluated, precision_summary
from nas.protocols import SearchSnapshot
from nas.targets import on_device

STUDY_ID, KIND, EVALUATION, WRITTEN = "hwnas.study_id", "hwnas.kind", "hwnas.evaluation", "hwnas.written"
NOTE = "mlflow.note.content"
PARAMETER_LIMIT, TAG_LIMIT = 6000, 7900


@dataclass(frozen=True)
class MetricPoint:
    """One value of a metric.

    Args:
        name: as MLflow accepts it.
        value: finite.
        step: number of trials of the search up to it; 0 for a candidate.
        time_ms: since the epoch.
    """

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class Candidate:
    """The child run of one fully evaluated candidate.

    Args:
        key: evaluation key, by which the run is found again.
        name: of the run.
        params: name to text; they never change for a key.
        metrics: name to finite value.
        tags: name to text; those that depend on the front change while the search goes on.
        started_ms: since the epoch.
        ended_ms: since the epoch.
    """

    key: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started_ms: int
    ended_ms: int

    @property
    def digest(self) -> str:
        """Hash of all that the run shall hold; a run tagged with it is up to date."""
        content = json.dumps([self.name, dict(self.params), dict(self.metrics), dict(self.tags)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def study_id(snapshot: SearchSnapshot) -> str:
    """Return 16 hexadecimal digits that name a study by its name and the time at which it was created."""
    return hashlib.sha256(f"{snapshot.study}|{snapshot.started:.3f}".encode()).hexdigest()[:16]


def candidates(snapshot: SearchSnapshot) -> list[Candidate]:
    """Return the child runs that the snapshot asks for, one per evaluation key, in the order of the trials."""
    found: dict[str, Candidate] = {}
    for trial, evaluation in snapshot.evaluations:
        if fully_evaluated(evaluation, snapshot.objectives) and str(evaluation.key) not in found:
            found[str(evaluation.key)] = _candidate(snapshot, trial, evaluation)
    for baseline in snapshot.baselines:
        found[f"baseline|{baseline.key}"] = _baseline(snapshot, baseline)
    return list(found.values())


def _baseline(snapshot: SearchSnapshot, baseline: Baseline) -> Candidate:
    """Return a ready model's run, of the kind of candidates so that it is found again; a tag sets it apart."""
    tags = {
        STUDY_ID: study_id(snapshot),
        KIND: "candidate",
        EVALUATION: f"baseline|{baseline.key}",
        "study": snapshot.study,
        "baseline": baseline.name,
        "on_front": _flag(False),
        "shipped": _flag(False),
        "notes": "; ".join(baseline.notes) or "none",
    }
    for metric, origin in baseline.provenance.items():
        tags[f"provenance.{metric}"] = str(origin.get("provenance", "unknown"))
    params = {"baseline": baseline.name, "source": baseline.source, "precision": baseline.precision}
    return Candidate(
        key=f"baseline|{baseline.key}",
        name=f"baseline-{baseline.name}",
        params={name: value[:PARAMETER_LIMIT] for name, value in params.items()},
        metrics={_name(name): float(value) for name, value in baseline.values.items() if math.isfinite(value)},
        tags={_name(name): value[:TAG_LIMIT] for name, value in tags.items()},
        started_ms=milliseconds(snapshot.started),
        ended_ms=milliseconds(snapshot.started),
    )


def _candidate(snapshot: SearchSnapshot, trial: int, evaluation: Evaluation) -> Candidate:
    architecture = evaluation.architecture
    shipped = snapshot.shipped is not None and snapshot.shipped.trial == trial
    tags = {
        STUDY_ID: study_id(snapshot),
        KIND: "candidate",
        EVALUATION: str(evaluation.key),
        "study": snapshot.study,
        "trial": str(trial),
        "architecture": architecture.id,
        "state": str(evaluation.state),
        "on_front": _flag(trial in snapshot.front),
        "shipped": _flag(shipped),
        "device": evaluation.key.device,
        "runtime": evaluation.key.runtime,
    }
    for metric, origin in evaluation.provenance.items():
        tags[f"provenance.{metric}"] = str(origin.get("provenance", "unknown"))
    if evaluation.reason:
        tags["reason"] = evaluation.reason
    params = {_name(name): str(value) for name, value in architecture.choices.items()}
    params |= {"space": architecture.space, "precision": precision_summary(architecture) or "none chosen"}
    for precision in sorted(set(map(str, architecture.precision.values()))):
        blocks = [block for block, value in architecture.precision.items() if str(value) == precision]
        params[f"precision.{precision}"] = " ".join(sorted(blocks))
    return Candidate(
        key=str(evaluation.key),
        name=f"trial-{trial:04d}-{architecture.id[:8]}",
        params={name: value[:PARAMETER_LIMIT] for name, value in params.items()},
        metrics=_candidate_metrics(evaluation),
        tags={_name(name): value[:TAG_LIMIT] for name, value in tags.items()},
        started_ms=milliseconds(evaluation.created - evaluation.cost_s),
        ended_ms=milliseconds(evaluation.created),
    )


def _candidate_metrics(evaluation: Evaluation) -> dict[str, float]:
    metrics = dict(evaluation.values)
    for metric, origin in evaluation.provenance.items():
        for part in ("spread", "std", "p10", "anchor_ratio"):
            if isinstance(origin.get(part), int | float):
                metrics[f"{metric}.{part}"] = float(origin[part])
    metrics |= {f"violation.{name}": value for name, value in evaluation.constraints.items()}
    metrics |= {f"seconds.{phase}": value for phase, value in evaluation.seconds.items()}
    metrics["seconds.total"] = evaluation.cost_s
    return {_name(name): float(value) for name, value in metrics.items() if math.isfinite(value)}


def search_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a config to dotted names, so that searches compare setting by setting."""
    return {_name(name): str(value)[:PARAMETER_LIMIT] for name, value in _flatten("", config)}


def _flatten(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), inner)
    elif prefix:
        yield prefix, value


def search_tags(snapshot: SearchSnapshot) -> dict[str, str]:
    """Return the parent's tags: identity, environment and device."""
    tags = {STUDY_ID: study_id(snapshot), KIND: "search", "study": snapshot.study, "folder": str(snapshot.folder)}
    tags |= {f"env.{name}": str(value) for name, value in snapshot.environment.items()}
    tags |= {f"device.{name}": str(value) for name, value in _flatten("", snapshot.device)}
    tags["objectives"] = ", ".join(f"{axis.direction} {axis.metric}" for axis in snapshot.objectives)
    tags |= {"mlflow.source.name": "nas search", "mlflow.source.type": "LOCAL"}
    if snapshot.shipped is not None:
        tags |= {"shipped.trial": str(snapshot.shipped.trial), "shipped.rule": snapshot.shipped.rule}
        tags |= {"shipped.reason": snapshot.shipped.reason, "shipped.folder": str(snapshot.shipped.folder)}
    return {_name(name): value[:TAG_LIMIT] for name, value in tags.items()}


def search_metrics(snapshot: SearchSnapshot) -> list[MetricPoint]:
    """Return the parent's metrics; their step is the number of trials so far, and each point differs from the last.

    ``best_<metric>`` per objective, ``fastest_<metric>`` of the feasible candidate with the least latency,
    ``fastest_above_floor_ms`` of the candidates that reach ``accuracy_floor``, ``front_size`` and ``hypervolume`` grow
    with the search; ``trials_<state>`` and ``shipped_<metric>`` are final. Of predictions see ``_foresight_points``.
    """
    points: dict[tuple[str, int], MetricPoint] = {}
    last_step, last_ms = 0, milliseconds(snapshot.started)
    now: dict[str, float] = {}
    front: list[tuple[float, ...]] = []
    times: dict[int, int] = {}

    def note(name: str, value: float, step: int, time_ms: int) -> None:
        if math.isfinite(value) and now.get(name) != value:
            now[name] = value
            points[(name, step)] = MetricPoint(_name(name), value, step, time_ms)

    for trial, evaluation in snapshot.evaluations:
        step, time_ms = trial + 1, milliseconds(evaluation.created)
        times[step] = last_ms = time_ms
        last_step = step
        if evaluation.state is not State.COMPLETE or not fully_evaluated(evaluation, snapshot.objectives):
            continue
        for name, value in _records(evaluation, snapshot.objectives, now).items():
            note(name, value, step, time_ms)
        floor = snapshot.config.get("accuracy_floor")
        if floor is not None and evaluation.values.get("accuracy", -math.inf) >= floor:
            fastest = min(evaluation.values.get("latency_ms", math.inf), now.get("fastest_above_floor_ms", math.inf))
            note("fastest_above_floor_ms", fastest, step, time_ms)
        front = _grown(front, tuple(axis.loss(evaluation.values) for axis in snapshot.objectives))
        note("front_size", float(len(front)), step, time_ms)
    for step, volume in snapshot.hypervolume:
        last_step = max(last_step, step)
        note("hypervolume", volume, step, times.get(step, last_ms))
    for name, value, step, time_ms in _foresight_points(snapshot):
        last_step, last_ms = max(last_step, step), max(last_ms, time_ms)
        note(name, value, step, time_ms)
    # The front of the snapshot has the last word: re-measurement may have changed it.
    note("front_size", float(len(snapshot.front)), last_step, last_ms)
    for state, count in snapshot.counts.items():
        note(f"trials_{state}", float(count), last_step, last_ms)
    for name, value in _shipped_values(snapshot).items():
        note(name, value, last_step, last_ms)
    if snapshot.finished:
        # MLflow shows the point of the highest step: an earlier snapshot's must not outlive a correction.
        for name, value in now.items():
            points[(name, last_step)] = MetricPoint(_name(name), value, last_step, last_ms)
    return list(points.values())


def _foresight_points(snapshot: SearchSnapshot) -> Iterable[tuple[str, float, int, int]]:
    """Yield name, value, step and time of what a search that predicts latencies has learned, candidate by candidate.

    ``latency_kendall_tau`` is that of all predictions so far which were measured afterwards,
    ``latency_measurements`` counts measured candidates, ``latency_measurements_saved`` complete ones without. Of
    several devices the first one's keep their names, the others' carry the device.
    """
    for place, (name, own) in enumerate((snapshot.devices or {"": snapshot}).items()):
        if is_predicting(own.config):
            for metric, value, step, time_ms in _foresight_points_on(own):
                yield on_device(metric, name if place else ""), value, step, time_ms


def _foresight_points_on(snapshot: SearchSnapshot) -> Iterable[tuple[str, float, int, int]]:
    measured = saved = 0
    found = agreement(snapshot.evaluations)
    place = {pair.trial: index for index, pair in enumerate(found.pairs) if not pair.after_search}
    step, time_ms = 0, 0
    for trial, evaluation in snapshot.evaluations:
        step, time_ms = trial + 1, milliseconds(evaluation.created)
        when, _ = first_reading(evaluation)
        measured += when == "search"
        saved += when != "search" and evaluation.state is State.COMPLETE
        yield "latency_measurements", float(measured), step, time_ms
        yield "latency_measurements_saved", float(saved), step, time_ms
        if trial in place:
            tau = kendall_tau(found.pairs[: place[trial] + 1])
            if tau is not None:
                yield "latency_kendall_tau", tau, step, time_ms
    yield "latency_measurements_saved", float(found.saved), step, time_ms
    if found.kendall_tau is not None:
        yield "latency_kendall_tau", found.kendall_tau, step, time_ms
    if found.coverage is not None:
        yield "latency_coverage_90", found.coverage, step, time_ms


def _records(evaluation: Evaluation, objectives: Iterable[Objective], now: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that this candidate sets anew."""
    values = evaluation.values
    new: dict[str, float] = {}
    for axis in objectives:
        best = now.get(f"best_{axis.metric}")
        if best is None or axis.loss(values) < axis.sign * best:
            new[f"best_{axis.metric}"] = values[axis.metric]
            if axis.metric == "latency_ms":
                new |= {f"fastest_{other.metric}": values[other.metric] for other in objectives}
    return new


def _grown(front: list[tuple[float, ...]], losses: tuple[float, ...]) -> list[tuple[float, ...]]:
    if any(all(a <= b for a, b in zip(member, losses, strict=True)) and member != losses for member in front):
        return front
    kept = [m for m in front if m == losses or not all(a <= b for a, b in zip(losses, m, strict=True))]
    return [*kept, losses]


def _shipped_values(snapshot: SearchSnapshot) -> dict[str, float]:
    for trial, evaluation in snapshot.evaluations:
        if snapshot.shipped is not None and trial == snapshot.shipped.trial:
            return {f"shipped_{axis.metric}": evaluation.values[axis.metric] for axis in snapshot.objectives}
    return {}


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, MLflow's unit of time, never negative."""
    return max(0, round(1000 * seconds))


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _name(name: str) -> str:
    """Return a name in the letters that MLflow allows, at most 250 of them."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:250]
