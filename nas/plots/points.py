"""What every Pareto plot shows, decided once: axes, points, their order, their words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.evaluation import Baseline, Evaluation, State
from nas.objective import Objective
from nas.pareto import non_dominated
from nas.protocols import SearchSnapshot
from nas.targets import split

_NAMES = {
    "accuracy": "Accuracy (quantized)",
    "perplexity": "Perplexity (quantized)",
    "latency_ms": "Latency",
    "ttft_ms": "Time to the first token",
    "token_ms": "Time per token",
    "kv_cache_kib": "Cache of keys and values",
    "energy_mj": "Energy",
    "memory_kib": "Peak memory",
    "size_kib": "File size",
    "macs": "MACs",
}

_BARS = {"measured": "half the quartiles' distance", "estimated": "standard deviation"}


@dataclass(frozen=True)
class Point:
    """One fully evaluated candidate.

    Args:
        trial: its number.
        evaluation: its outcome.
        on_front: whether the snapshot's front holds it.
        shipped: whether it is the exported model.
    """

    trial: int
    evaluation: Evaluation
    on_front: bool
    shipped: bool

    @property
    def feasible(self) -> bool:
        """False when a constraint was violated."""
        return self.evaluation.state is State.COMPLETE

    def value(self, axis: Objective) -> float:
        """Return the metric of an axis, in its unit."""
        return float(self.evaluation.values[axis.metric])

    def spread(self, metric: str) -> float | None:
        """Return half the interquartile range of a measurement or an estimate's deviation; None where unknown."""
        origin = self.evaluation.provenance.get(metric, {})
        found = origin.get("spread", origin.get("std"))
        return float(found) if found is not None and math.isfinite(found) else None

    def bar(self, metric: str) -> str | None:
        """Return ``measured`` where the spread is that of a measurement, ``estimated``, or None where there is none."""
        if not self.spread(metric):
            return None
        return "measured" if "spread" in self.evaluation.provenance[metric] else "estimated"


@dataclass(frozen=True)
class ParetoView:
    """A search as a picture shows it.

    Args:
        x: horizontal axis; None for a search with a single objective, whose picture is its history.
        y: vertical axis.
        colour: third objective, or None.
        size: fourth objective, or None.
        points: fully evaluated candidates in the order of the trials.
        staircase: the front's members that no other member dominates in x and y alone, by rising x.
        baselines: ready models that have a value on both axes.
    """

    x: Objective | None
    y: Objective
    colour: Objective | None
    size: Objective | None
    points: tuple[Point, ...]
    staircase: tuple[Point, ...]
    baselines: tuple[Baseline, ...] = ()

    def values(self, axis: Objective) -> list[float]:
        """Return all that is drawn along an axis, baselines too."""
        return [*(point.value(axis) for point in self.points), *(one.values[axis.metric] for one in self.baselines)]

    def of(self, on_front: bool, feasible: bool = True) -> tuple[Point, ...]:
        """Return the points of one role."""
        return tuple(point for point in self.points if (point.on_front, point.feasible) == (on_front, feasible))


def fully_evaluated(evaluation: Evaluation, objectives: Sequence[Objective]) -> bool:
    """Say whether every objective has a finite value; infeasible candidates may, failed ones do not count."""
    values = evaluation.values
    known = all(math.isfinite(values.get(axis.metric, math.nan)) for axis in objectives)
    return evaluation.state is not State.FAILED and known


def pareto_view(snapshot: SearchSnapshot) -> ParetoView:
    """Pick the axes (accuracy up, latency to the right, where there are such) and sort the points into roles.

    Raises:
        ValueError: the snapshot has no objective.
    """
    if not snapshot.objectives:
        raise ValueError(f"study '{snapshot.study}' has no objectives; expected 1 to 4")
    shipped = snapshot.shipped.trial if snapshot.shipped else None
    points = tuple(
        Point(trial, item, trial in snapshot.front, trial == shipped)
        for trial, item in snapshot.evaluations
        if fully_evaluated(item, snapshot.objectives)
    )
    rest = list(snapshot.objectives)
    y = _take(rest, lambda axis: "accuracy" in axis.metric) or _take(rest, lambda axis: axis.direction == "maximize")
    y = y or rest.pop(0)
    x = _take(rest, lambda axis: axis.metric.startswith("latency")) or (rest.pop(0) if rest else None)
    colour, size = (*rest, None, None)[:2]
    axes = [axis.metric for axis in (x, y) if axis is not None]
    baselines = tuple(
        item
        for item in snapshot.baselines
        if x is not None and all(math.isfinite(item.values.get(metric, math.nan)) for metric in axes)
    )
    return ParetoView(x, y, colour, size, points, _staircase(points, x, y), baselines)


def _take(axes: list[Objective], wanted: Callable[[Objective], bool]) -> Objective | None:
    found = next((axis for axis in axes if wanted(axis)), None)
    if found is not None:
        axes.remove(found)
    return found


def _staircase(points: Sequence[Point], x: Objective | None, y: Objective) -> tuple[Point, ...]:
    if x is None:
        return _records(points, y)
    members = [point for point in points if point.on_front]
    if not members:
        return ()
    keep = non_dominated([[x.loss(point.evaluation.values), y.loss(point.evaluation.values)] for point in members])
    best = [members[index] for index in np.flatnonzero(keep)]
    return tuple(sorted(best, key=lambda point: (point.value(x), point.value(y))))


def _records(points: Sequence[Point], y: Objective) -> tuple[Point, ...]:
    records: list[Point] = []
    for point in points:
        if point.feasible and (not records or y.sign * point.value(y) < y.sign * records[-1].value(y)):
            records.append(point)
    return tuple(records)


def staircase_line(view: ParetoView) -> tuple[list[float], list[float]]:
    """Return the corners of the front's line; a history goes on to the last trial."""
    ys = [point.value(view.y) for point in view.staircase]
    if view.x is not None:
        return [point.value(view.x) for point in view.staircase], ys
    last = view.points[-1].trial if view.points else 0
    return [*(float(point.trial) for point in view.staircase), float(last)], [*ys, *ys[-1:]]


def reference_in_sight(view: ParetoView) -> tuple[float, float] | None:
    """Return (x, y) of the reference point if it lies at most 15 % of the points' span beyond them, else None."""
    if view.x is None or view.x.reference is None or view.y.reference is None or not view.points:
        return None
    for axis, position in ((view.x, view.x.reference), (view.y, view.y.reference)):
        values = [point.value(axis) for point in view.points]
        margin = 0.15 * (max(values) - min(values))
        if not min(values) - margin <= position <= max(values) + margin:
            return None
    return view.x.reference, view.y.reference


def metric_name(axis: Objective) -> str:
    """Return a metric's name for people, without its unit."""
    plain, device = split(axis.metric)
    if device:
        return f"{metric_name(replace(axis, metric=plain))} on {device}"
    if axis.metric in _NAMES:
        return _NAMES[axis.metric]
    suffix = f"_{axis.unit.lower()}"
    return axis.metric.removesuffix(suffix if axis.unit else "").replace("_", " ").capitalize()


def axis_title(axis: Objective, points: Iterable[Point] = ()) -> str:
    """Return name, unit and how the shown values were made, such as ``Latency [ms, measured]``."""
    origins = Counter(str(point.evaluation.provenance.get(axis.metric, {}).get("provenance", "")) for point in points)
    made = " and ".join(origin for origin, _ in origins.most_common() if origin)
    notes = ", ".join(note for note in ("" if is_share(axis) else axis.unit, made) if note)
    return f"{metric_name(axis)} [{notes}]" if notes else metric_name(axis)


def is_share(axis: Objective) -> bool:
    """Say whether a metric is an accuracy from 0 to 1, shown in percent."""
    return "accuracy" in axis.metric and axis.unit == ""


def show(axis: Objective, value: float, spread: float | None = None) -> str:
    """Return a value with its unit, such as ``1.234 ± 0.010 ms`` or ``97.2 %``."""
    if is_share(axis):
        return f"{100 * value:.1f} %"
    text = number(value)
    if spread is not None:
        text += f" ± {number(spread, 2)}"
    return f"{text} {axis.unit}".strip()


def number(value: float, digits: int = 4) -> str:
    """Return a number in significant digits, without an exponent up to a million."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"


def precision_summary(architecture: Architecture) -> str:
    """Return how many blocks run at which precision, such as ``7 int8, 2 fp32``; empty where none is chosen."""
    counts = Counter(str(value) for value in architecture.precision.values())
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def spans_decade(values: Sequence[float]) -> bool:
    """Say whether positive values spread over more than a factor of ten, so that a log axis reads better."""
    return len(values) > 0 and min(values) > 0 and max(values) > 10 * min(values)


def log_ticks(values: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten that cover the values, one step beyond at either end."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [step for step in steps if 0.4 * min(values) <= step <= 2.5 * max(values)]


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return Plotly's settings of a logarithmic axis where values spread over more than a factor of ten, else none."""
    if not spans_decade(values):
        return {}
    ticks = log_ticks(values)
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def headline(view: ParetoView, snapshot: SearchSnapshot) -> str:
    """Return what the picture shows and on which device, to follow the study's name."""
    versus = metric_name(view.x).lower() if view.x else "trials"
    device = snapshot.device.get("name")
    return f"{metric_name(view.y).lower()} over {versus}" + (f" on {device}" if device and view.x else "")


def facts(view: ParetoView, snapshot: SearchSnapshot) -> tuple[str, str]:
    """Return the two lines under the title: what was found, and how to read it."""
    beyond, members = len(view.of(on_front=False, feasible=False)), len(view.of(on_front=True))
    found = [f"{len(view.points)} candidates fully evaluated", f"{members} on the front"]
    if beyond:
        found.insert(1, f"{beyond} beyond a constraint")
    reading = []
    corners = [f"{axis.metric} {axis.reference:g}" for axis in snapshot.objectives if axis.reference is not None]
    if snapshot.hypervolume and corners:
        found.append(f"hypervolume {number(snapshot.hypervolume[-1][1])}")
        reading.append(f"reference point: {', '.join(corners)}")
    if view.size is not None:
        reading.append(f"area of a marker: {axis_title(view.size)}")
    bars = {point.bar(axis.metric) for axis in (view.x, view.y) if axis for point in view.of(on_front=True)}
    words = [
        f"{meaning} of what is {made}" if len(bars - {None}) > 1 else meaning
        for made, meaning in _BARS.items()
        if made in bars
    ]
    if words:
        reading.append(f"bars: {', '.join(words)}")
    return " · ".join(found), " · ".join(reading)
