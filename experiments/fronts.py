"""Fronts of several searches side by side: run each once, score the members on the test split, time all in turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import search

from nas.config.parts import Parts
from nas.evaluation import Evaluation
from nas.pareto import hypervolume, non_dominated
from nas.search.front import complete, eligible, front_of, settled_metric, study_objectives
from nas.store import StudyStore

LONGEST_MS = 1.0
# CIFAR-10 in minutes: what the searches of several experiments have in common.
SMALL_CIFAR10 = (
    "data=cifar10",
    "data.resolutions=[24]",
    "data.train_images=2500",
    "data.validation_images=1000",
    "accuracy.epochs=6",
    "executor.workers=1",
    "objective=accuracy_latency",
    f"objective.latency_ms.reference={LONGEST_MS}",
    "limits.macs=4000000",
)


@dataclass
class Point:
    """A network of one of the searches, timed and scored again with all others.

    Args:
        search: name of its search.
        trial: number there.
        evaluation: as the search recorded it.
        model: quantized file.
        test: the task's metric of the quantized file on the test split, a share right or a perplexity.
        time_ms: median of the rounds, of one inference or of one more token.
        spread_ms: half the distance between the fastest and the slowest round.
    """

    search: str
    trial: int
    evaluation: Evaluation
    model: Path
    test: float
    time_ms: float = 0.0
    spread_ms: float = 0.0


def run_once(root: Path, name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the report of a search that is done, or run it or go on with it."""
    done = root / f"{name}.json"
    if not done.is_file():
        root.mkdir(parents=True, exist_ok=True)
        done.write_text(json.dumps(search(*words, f"study={name}", f"folder={root}")))
    report: dict[str, Any] = json.loads(done.read_text())
    return report


def members_of(root: Path, name: str, everything: bool = False) -> list[Point]:
    """Return the front of a search, or all that it evaluated, scored on the test split; a score is kept in a file."""
    folder = root / name
    store = StudyStore(folder / "store.sqlite")
    objectives = study_objectives(store)
    parts = Parts(store.get("config"), folder, objectives)
    known_file = root / f"{name}_test.json"
    known: dict[str, float] = json.loads(known_file.read_text()) if known_file.is_file() else {}
    points = []
    members = complete(store) if everything else front_of(eligible(store, objectives), objectives)
    for number, evaluation in members:
        model = folder / evaluation.folder / "model.onnx"
        if str(number) not in known:
            encoding = parts.preprocessing(evaluation.architecture)
            known[str(number)] = float(parts.evaluator.score(model, encoding, "test"))
            known_file.write_text(json.dumps(known))
        points.append(Point(name, number, evaluation, model, known[str(number)]))
    store.close()
    return points


def time_in_turns(root: Path, points: Sequence[Point], rounds: int = 3) -> None:
    """Time all points, round by round, each in a process of its own beside the anchor, and note median and half range."""
    store = StudyStore(root / points[0].search / "store.sqlite")
    meter = Parts(store.get("config"), root / points[0].search, study_objectives(store)).meter
    store.close()
    assert meter is not None, "the searches timed nothing"
    readings: list[list[float]] = [[] for _ in points]
    for _ in range(rounds):
        for point, times in zip(points, readings, strict=True):
            times.append(meter.measure(point.model)[settled_metric(point.evaluation.values)].median)
    for point, times in zip(points, readings, strict=True):
        point.time_ms, point.spread_ms = statistics.median(times), (max(times) - min(times)) / 2


def share_right(points: Iterable[Point], longest_ms: float) -> float:
    """Return the hypervolume over (share right on the test split, time) up to a time, as a share of the box."""
    return hypervolume([[-point.test, point.time_ms] for point in points], [0.0, longest_ms]) / longest_ms


def share_perplexity(points: Iterable[Point], most: float, longest_ms: float) -> float:
    """Return the hypervolume over (perplexity on the test split, time) up to both, as a share of the box."""
    return hypervolume([[point.test, point.time_ms] for point in points], [most, longest_ms]) / (most * longest_ms)


def leading(points: Sequence[Point], sign: float = -1.0) -> list[Point]:
    """Return the points that none beats in both test metric and time; ``sign`` is 1 where less is better."""
    mask = non_dominated([[sign * point.test, point.time_ms] for point in points])
    return [point for point, keep in zip(points, mask, strict=True) if keep]


def mean_and_error(values: Sequence[float]) -> str:
    """Return mean and standard error over seeds, or the value alone."""
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def counts(report: Mapping[str, Any]) -> str:
    """Return how many trials ended in which state."""
    return ", ".join(f"{count} {state}" for state, count in report["trials"].items())
