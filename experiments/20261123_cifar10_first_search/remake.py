"""Remakes the experiment: python experiments/20261123_cifar10_first_search/remake.py --data FOLDER [--budget 30].

A search that was cut off goes on where it was when the command is repeated; one that is done is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from report import card, machine, search, table, write_between

from nas.config.parts import Parts
from nas.evaluation import Evaluation
from nas.pareto import hypervolume, non_dominated
from nas.search.front import complete, eligible, front_of, study_objectives
from nas.store import StudyStore

ROOT = Path("runs/experiments/cifar10_first_search")
REFERENCE_MS = 2.0
ROUNDS = 3
SPACES = ("convnet", "transformer")
SAMPLERS = ("tpe", "random")
NETWORKS = ("mobilenet_v2", "resnet20")


@dataclass
class Point:
    """A network of one of the searches, timed and scored again with all others.

    Args:
        search: name of its search.
        trial: number there.
        evaluation: as the search recorded it.
        model: quantized file.
        test: share of the 10,000 test pictures that the quantized file gets right.
        latency_ms: median of the rounds.
        spread_ms: half the distance between the fastest and the slowest round.
    """

    search: str
    trial: int
    evaluation: Evaluation
    model: Path
    test: float
    latency_ms: float = 0.0
    spread_ms: float = 0.0


def run_searches(data: Path, budget: int) -> dict[str, dict[str, Any]]:
    """Run what is not done yet, each at most an hour, and return the report of each search."""
    reports = {}
    for space in SPACES:
        for sampler in SAMPLERS:
            words = [f"experiment=cifar10_{space}", f"sampler={sampler}", f"budget={budget}"]
            reports[f"{space}_{sampler}"] = run_once(f"{space}_{sampler}", data, words)
    for network in NETWORKS:
        words = ["experiment=cifar10_reference", f"space.networks=[{network}]"]
        reports[f"reference_{network}"] = run_once(f"reference_{network}", data, words)
    return reports


def run_once(name: str, data: Path, words: list[str]) -> dict[str, Any]:
    """Return the report of a search that is done, or run it."""
    done = ROOT / f"{name}.json"
    if not done.is_file():
        report = search(*words, f"data.path={data}", f"study={name}", f"folder={ROOT}")
        done.write_text(json.dumps(report))
    report: dict[str, Any] = json.loads(done.read_text())
    return report


def collect(names: list[str]) -> list[Point]:
    """Score the fronts, and all reference networks, on the test pictures, and time them all in turns."""
    points, meter = [], None
    for name in names:
        folder = ROOT / name
        store = StudyStore(folder / "store.sqlite")
        objectives = study_objectives(store)
        parts = Parts(store.get("config"), folder, objectives)
        members = complete(store) if name.startswith("reference") else front_of(eligible(store, objectives), objectives)
        for number, evaluation in members:
            model = folder / evaluation.folder / "model.onnx"
            test = parts.evaluator.score(model, parts.preprocessing(evaluation.architecture), "test")
            points.append(Point(name, number, evaluation, model, test))
        meter = parts.meter
        store.close()
    assert meter is not None
    # In turns, each with the anchor beside it: forty models in one process would time cold caches.
    readings: list[list[float]] = [[] for _ in points]
    for _ in range(ROUNDS):
        for point, times in zip(points, readings, strict=True):
            times.append(meter.measure(point.model)["latency_ms"].median)
    for point, times in zip(points, readings, strict=True):
        point.latency_ms, point.spread_ms = statistics.median(times), (max(times) - min(times)) / 2
    return points


def share_of_box(points: list[Point]) -> float:
    """Return the hypervolume over (test accuracy, latency), as a share of the box up to the reference."""
    return hypervolume([[-point.test, point.latency_ms] for point in points], [0.0, REFERENCE_MS]) / REFERENCE_MS


def summary(reports: dict[str, dict[str, Any]], points: list[Point]) -> str:
    """Return one row per search."""
    rows = []
    for name, report in reports.items():
        mine = [point for point in points if point.search == name]
        front = [
            p for p, keep in zip(mine, non_dominated([[-p.test, p.latency_ms] for p in mine]), strict=True) if keep
        ]
        best, fastest = max(mine, key=lambda p: p.test), min(mine, key=lambda p: p.latency_ms)
        shipped = card(report)
        rows.append(
            [
                name,
                ", ".join(f"{count} {state}" for state, count in report["trials"].items()),
                f"{report['elapsed_s'] / 60:.0f}",
                len(front),
                f"{share_of_box(mine):.4f}",
                f"{best.test:.2%} at {best.latency_ms:.3f}",
                f"{fastest.test:.2%} at {fastest.latency_ms:.3f}",
                f"{shipped['accuracy']['test_quantized']:.2%}" if shipped else report["reason"],
            ]
        )
    columns = [
        "search",
        "trials",
        "minutes",
        "front",
        "hypervolume",
        "best test accuracy, ms",
        "fastest, ms",
        "shipped, test",
    ]
    return table(columns, rows)


def networks(points: list[Point]) -> str:
    """Return one row per network, the reference networks by name."""
    rows = []
    for point in sorted(points, key=lambda p: (p.search, -p.test)):
        values = point.evaluation.values
        levels = [str(level) for level in point.evaluation.architecture.precision.values()]
        rows.append(
            [
                point.search,
                named(point),
                f"{values['accuracy']:.2%}",
                f"{point.test:.2%}",
                f"{values['accuracy_fp32']:.2%}",
                f"{point.latency_ms:.3f} ± {point.spread_ms:.3f}",
                f"{values['size_kib']:.0f}",
                f"{values['macs'] / 1e6:.1f} M",
                f"{levels.count('int8')} of {len(levels)}",
            ]
        )
    columns = [
        "search",
        "network",
        "validation",
        "test",
        "validation, fp32",
        "latency (ms)",
        "KiB",
        "MACs",
        "blocks in int8",
    ]
    return table(columns, rows)


def verdicts(points: list[Point]) -> str:
    """Say for each reference network what a user who picks by validation accuracy would get from each search."""
    rows = []
    for point in (p for p in points if p.search.startswith("reference")):
        cells = [named(point), f"{point.test:.2%}, {point.latency_ms:.3f} ms"]
        for search_name in (f"{space}_{sampler}" for space in SPACES for sampler in SAMPLERS):
            level = point.evaluation.values["accuracy"]
            mine = [p for p in points if p.search == search_name]
            as_good = [p for p in mine if p.evaluation.values["accuracy"] >= level]
            if not as_good:
                cells.append("none as accurate")
                continue
            pick = min(as_good, key=lambda p: p.latency_ms)
            ratio, gain = point.latency_ms / pick.latency_ms, 100 * (pick.test - point.test)
            cells.append(f"{ratio:.2f} x as fast, {gain:+.1f} points")
        rows.append(cells)
    rows.sort(key=lambda cells: str(cells[0]))
    return table(
        ["network", "test, latency", *(f"{space}_{sampler}" for space in SPACES for sampler in SAMPLERS)], rows
    )


def named(point: Point) -> str:
    """Return the name of a reference network, or the trial's number."""
    choices = point.evaluation.architecture.choices
    if not point.search.startswith("reference"):
        return f"trial {point.trial}"
    level = str(next(iter(point.evaluation.architecture.precision.values())))
    return f"{choices['network']} x {choices['width']}, {choices['resolution']} px, {level}"


def proxies(names: list[str]) -> str:
    """Return the rank correlation of the zero-cost scores with the accuracy, over all candidates of each search."""
    from scipy.stats import spearmanr

    rows = []
    for name in names:
        store = StudyStore(ROOT / name / "store.sqlite")
        members = [evaluation.values for _, evaluation in complete(store)]
        store.close()
        cells: list[object] = [name, len(members)]
        for proxy in ("params", "macs", "synflow", "naswot"):
            pairs = [(v[f"proxy_{proxy}"], v["accuracy_fp32"]) for v in members if f"proxy_{proxy}" in v]
            cells.append(f"{spearmanr(*zip(*pairs, strict=True)).statistic:.2f}" if len(pairs) > 2 else "-")
        rows.append(cells)
    return table(["search", "candidates", "params", "MACs", "synflow", "NASWOT"], rows)


def picture(points: list[Point], path: Path) -> None:
    """Draw test accuracy over latency for all searches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    marks = {
        "convnet_tpe": "o",
        "convnet_random": "s",
        "transformer_tpe": "^",
        "transformer_random": "v",
        "reference_mobilenet_v2": "P",
        "reference_resnet20": "*",
    }
    colours = {
        "convnet_tpe": "#0072b2",
        "convnet_random": "#56b4e9",
        "transformer_tpe": "#d55e00",
        "transformer_random": "#e69f00",
        "reference_mobilenet_v2": "#009e73",
        "reference_resnet20": "#000000",
    }
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    for name, mark in marks.items():
        mine = sorted((p for p in points if p.search == name), key=lambda p: p.latency_ms)
        x, y = [p.latency_ms for p in mine], [100 * p.test for p in mine]
        size = 140 if name.startswith("reference") else 45
        axes.scatter(x, y, marker=mark, s=size, color=colours[name], label=name.replace("_", ", "), zorder=3)
        if not name.startswith("reference"):
            axes.plot(x, y, color=colours[name], alpha=0.4, linewidth=1)
            continue
        for p in mine:
            above = "int8" in named(p)
            axes.annotate(
                named(p).replace("_", " "),
                (p.latency_ms, 100 * p.test),
                xytext=(6, 5 if above else -10),
                textcoords="offset points",
                fontsize=7,
            )
    axes.set_xscale("log")
    axes.set_xlabel("latency of the quantized file [ms, one thread, measured in turns]")
    axes.set_ylabel("accuracy of the quantized file on 10,000 test pictures [%]")
    axes.set_title("CIFAR-10, 6,000 training pictures, 6 epochs")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10 in the hub's parquet layout")
    parser.add_argument("--budget", type=int, default=30, help="candidates per search")
    arguments = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    reports = run_searches(arguments.data, arguments.budget)
    points = collect(list(reports))
    readme = HERE / "README.md"
    write_between(readme, "searches", summary(reports, points))
    write_between(readme, "verdicts", verdicts(points))
    write_between(readme, "networks", networks(points))
    write_between(readme, "proxies", proxies(list(reports)))
    write_between(readme, "machine", f"Machine: {machine(ROOT / 'reference_resnet20')}.")
    picture(points, HERE / "fronts.png")


if __name__ == "__main__":
    main()
