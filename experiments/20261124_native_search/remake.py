"""Remakes the experiment: python experiments/20261124_native_search/remake.py --data FOLDER.

A search that was cut off goes on where it was when the command is repeated; one that is done is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fronts import LONGEST_MS, SMALL_CIFAR10, Point, counts, mean_and_error, members_of, run_once
from report import machine, table, write_between

from nas.config.parts import Parts
from nas.pareto import hypervolume, non_dominated
from nas.search.front import settled_metric, study_objectives
from nas.store import StudyStore

ROOT = Path("runs/experiments/native_search")
SEEDS = (0, 1, 2)
RUNTIMES = ("onnxruntime", "native")
COMMON = (*SMALL_CIFAR10, "space=convnet", "keep=all")
Times = dict[str, dict[tuple[str, int], float]]


def run_searches(data: Path, minutes: float) -> dict[str, dict[str, Any]]:
    """Run what is not done yet, the runtimes in turns, and return the report of each search."""
    reports = {}
    for seed in SEEDS:
        for runtime in RUNTIMES:
            words = [*COMMON, f"runtime={runtime}", f"data.path={data}", f"seed={seed}"]
            words += ["budget=1000", f"hours={minutes / 60}"]
            reports[f"{runtime}_{seed}"] = run_once(ROOT, f"{runtime}_{seed}", words)
    return reports


def time_in_both(points: Sequence[Point], rounds: int) -> Times:
    """Return the median latency in ms of every network in either runtime, round by round beside the anchor."""
    kept = ROOT / "times.json"
    readings: dict[str, list[float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for runtime in RUNTIMES:
        folder = ROOT / f"{runtime}_{SEEDS[0]}"
        store = StudyStore(folder / "store.sqlite")
        meter = Parts(store.get("config"), folder, study_objectives(store)).meter
        store.close()
        assert meter is not None, "the searches timed nothing"
        for turn in range(rounds):
            for point in points:
                key = f"{runtime} {point.search} {point.trial}"
                if len(readings.setdefault(key, [])) <= turn:
                    metric = settled_metric(point.evaluation.values)
                    readings[key].append(meter.measure(point.model)[metric].median)
            kept.write_text(json.dumps(readings))
    return {
        runtime: {
            (point.search, point.trial): statistics.median(readings[f"{runtime} {point.search} {point.trial}"])
            for point in points
        }
        for runtime in RUNTIMES
    }


def front(points: Sequence[Point], times: dict[tuple[str, int], float]) -> list[Point]:
    """Return the networks that none beats in validation accuracy and in these times, fastest first."""
    rows = [[-point.evaluation.values["accuracy"], times[point.search, point.trial]] for point in points]
    kept = [point for point, keep in zip(points, non_dominated(rows), strict=True) if keep]
    return sorted(kept, key=lambda point: times[point.search, point.trial])


def share(points: Sequence[Point], times: dict[tuple[str, int], float]) -> float:
    """Return the hypervolume over (accuracy on the test pictures, latency), as a share of the box."""
    rows = [[-point.test, times[point.search, point.trial]] for point in front(points, times)]
    return hypervolume(rows, [0.0, LONGEST_MS]) / LONGEST_MS


def of_search(points: Sequence[Point], name: str) -> list[Point]:
    """Return the networks that one search trained."""
    return [point for point in points if point.search == name]


def fronts_table(points: Sequence[Point], times: Times) -> str:
    """Return hypervolume, best accuracy and fastest member for each of the four pairs of search and clock."""
    rows = []
    for searched in RUNTIMES:
        for clock in RUNTIMES:
            each = [front(of_search(points, f"{searched}_{seed}"), times[clock]) for seed in SEEDS]
            rows.append(
                [
                    searched,
                    clock,
                    mean_and_error([share(of_search(points, f"{searched}_{seed}"), times[clock]) for seed in SEEDS]),
                    mean_and_error([max(point.test for point in members) for members in each]),
                    mean_and_error([times[clock][members[0].search, members[0].trial] for members in each]),
                    " / ".join(str(len(members)) for members in each),
                ]
            )
    return table(
        ["searched with", "timed by", "hypervolume on test", "best test accuracy", "fastest (ms)", "front, by seed"],
        rows,
    )


def gain(
    members: Sequence[Point], clock: dict[tuple[str, int], float], others: Sequence[Point], by: Times
) -> list[float]:
    """Return how many times faster than each member the fastest of ``others`` is that is at least as accurate."""
    ratios = []
    for point in members:
        level = point.evaluation.values["accuracy"]
        able = [other for other in others if other.evaluation.values["accuracy"] >= level]
        if able:
            best = min(by["native"][other.search, other.trial] for other in able)
            ratios.append(clock[point.search, point.trial] / best)
    return ratios


def geometric(values: Sequence[float]) -> float:
    """Return the geometric mean, nan of nothing."""
    return math.exp(statistics.mean(map(math.log, values))) if values else float("nan")


def gains_table(points: Sequence[Point], times: Times) -> str:
    """Split, seed by seed, what the native runtime gains into kernels, another choice among the same, and another search."""
    rows = []
    for seed in SEEDS:
        first, second = (of_search(points, f"{runtime}_{seed}") for runtime in RUNTIMES)
        members = front(first, times["onnxruntime"])
        same = [times["onnxruntime"][p.search, p.trial] / times["native"][p.search, p.trial] for p in members]
        chosen = gain(members, times["onnxruntime"], first, times)
        searched = gain(members, times["onnxruntime"], second, times)
        matched = len(searched)
        rows.append(
            [
                seed,
                len(members),
                f"{geometric(same):.2f}",
                f"{geometric(chosen):.2f}",
                f"{geometric(searched):.2f} ({matched} of {len(members)})",
            ]
        )
    return table(
        [
            "seed",
            "members of ONNX Runtime's front",
            "the same networks, native",
            "the fastest of the same search at least as accurate, native",
            "the fastest of the native search, native (members matched)",
        ],
        rows,
    )


def genes(points: Sequence[Point], times: Times) -> str:
    """Say what the fronts are made of: shares of choices over all members of all seeds."""
    rows = []
    for runtime in RUNTIMES:
        members = [p for seed in SEEDS for p in front(of_search(points, f"{runtime}_{seed}"), times[runtime])]
        counted: dict[str, list[object]] = {"kernel": [], "block": [], "precision": []}
        for point in members:
            for name, value in point.evaluation.architecture.choices.items():
                for word, values in counted.items():
                    if name.endswith(word):
                        values.append(value)
            counted["precision"].extend(point.evaluation.architecture.precision.values())
        cells = []
        for values in counted.values():
            kinds = sorted({str(value) for value in values})
            cells.append(", ".join(f"{k} {sum(str(v) == k for v in values) / len(values):.0%}" for k in kinds))
        ratios = [times["onnxruntime"][p.search, p.trial] / times["native"][p.search, p.trial] for p in members]
        rows.append([runtime, len(members), *cells, f"{geometric(ratios):.2f}"])
    return table(
        ["front of", "members", "kernels", "blocks", "precisions", "ONNX Runtime / native, geometric mean"], rows
    )


def searches_table(reports: dict[str, dict[str, Any]]) -> str:
    """Return one row per search."""
    rows = [
        [name, counts(report), f"{report['elapsed_s'] / 60:.1f}", f"{report['hypervolume']:.4f}"]
        for name, report in reports.items()
    ]
    return table(["search", "trials", "minutes in all", "hypervolume, validation, as searched"], rows)


def picture(points: Sequence[Point], times: Times, path: Path) -> None:
    """Draw three fronts per seed: of either search as timed by its own runtime, and the first timed natively."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(SEEDS), figsize=(15, 5), sharey=True, layout="constrained")
    lines = (
        ("onnxruntime", "onnxruntime", "#e69f00", "o", "searched and timed in ONNX Runtime"),
        ("onnxruntime", "native", "#0072b2", "s", "searched in ONNX Runtime, timed natively"),
        ("native", "native", "#009e73", "^", "searched and timed natively"),
    )
    for seed, axes in zip(SEEDS, panels, strict=True):
        for searched, clock, colour, mark, label in lines:
            members = front(of_search(points, f"{searched}_{seed}"), times[clock])
            axes.plot(
                [times[clock][point.search, point.trial] for point in members],
                [100 * point.test for point in members],
                color=colour,
                marker=mark,
                label=label,
                alpha=0.85,
            )
        axes.set_xscale("log")
        axes.set_xticks([0.01, 0.02, 0.05, 0.1, 0.2], ["0.01", "0.02", "0.05", "0.1", "0.2"])
        axes.minorticks_off()
        axes.set_xlim(0.01, 0.2)
        axes.set_title(f"seed {seed}")
        axes.set_xlabel("latency of the quantized file [ms, one thread]")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("accuracy of the quantized file, test [%]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run, time, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10 in the hub's parquet layout")
    parser.add_argument("--minutes", type=float, default=5.0, help="per search, after which no candidate is started")
    parser.add_argument("--rounds", type=int, default=2, help="how often each network is timed in each runtime")
    arguments = parser.parse_args()
    reports = run_searches(arguments.data, arguments.minutes)
    points = [point for name in reports for point in members_of(ROOT, name, everything=True)]
    times = time_in_both(points, arguments.rounds)
    readme = HERE / "README.md"
    write_between(readme, "fronts", fronts_table(points, times))
    write_between(readme, "gains", gains_table(points, times))
    write_between(readme, "genes", genes(points, times))
    write_between(readme, "searches", searches_table(reports))
    write_between(readme, "machine", f"Machine: {machine(ROOT / f'native_{SEEDS[0]}')}.")
    picture(points, times, HERE / "fronts.png")


if __name__ == "__main__":
    main()
