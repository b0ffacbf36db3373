"""Remakes the experiment: python experiments/20261123_cifar10_first_search/remake.py --data FOLDER [--budget 30].

A search that was cut off goes on where it was when the command is repeated; one that is done is not run again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fronts import Point, leading, members_of, run_once, share_right, time_in_turns
from report import card, machine, table, write_between

from nas.search.front import complete
from nas.store import StudyStore

ROOT = Path("runs/experiments/cifar10_first_search")
REFERENCE_MS = 2.0
ROUNDS = 3
SPACES = ("convnet", "transformer")
SAMPLERS = ("tpe", "random")
NETWORKS = ("mobilenet_v2", "resnet20")


def run_searches(data: Path, budget: int) -> dict[str, dict[str, Any]]:
    """Run what is not done yet, each at most an hour, and return the report of each search."""
    reports = {}
    for space in SPACES:
        for sampler in SAMPLERS:
            words = [f"experiment=cifar10_{space}", f"sampler={sampler}", f"budget={budget}"]
            reports[f"{space}_{sampler}"] = run_once(ROOT, f"{space}_{sampler}", [*words, f"data.path={data}"])
    for network in NETWORKS:
        words = ["experiment=cifar10_reference", f"space.networks=[{network}]"]
        reports[f"reference_{network}"] = run_once(ROOT, f"reference_{network}", [*words, f"data.path={data}"])
    return reports


def collect(names: list[str]) -> list[Point]:
    """Score the fronts, and all reference networks, on the test pictures, and time them all in turns."""
    points = [point for name in names for point in members_of(ROOT, name, everything=name.startswith("reference"))]
    # In turns, each with the anchor beside it: forty models in one process would time cold caches.
    time_in_turns(ROOT, points, ROUNDS)
    return points


def summary(reports: dict[str, dict[str, Any]], points: list[Point]) -> str:
    """Return one row per search."""
    rows = []
    for name, report in reports.items():
        mine = [point for point in points if point.search == name]
        best, fastest = max(mine, key=lambda p: p.test), min(mine, key=lambda p: p.time_ms)
        shipped = card(report)
        rows.append(
            [
                name,
                ", ".join(f"{count} {state}" for state, count in report["trials"].items()),
                f"{report['elapsed_s'] / 60:.0f}",
                len(leading(mine)),
                f"{share_right(mine, REFERENCE_MS):.4f}",
                f"{best.test:.2%} at {best.time_ms:.3f}",
                f"{fastest.test:.2%} at {fastest.time_ms:.3f}",
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
                f"{point.time_ms:.3f} ± {point.spread_ms:.3f}",
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
        cells = [named(point), f"{point.test:.2%}, {point.time_ms:.3f} ms"]
        for search_name in (f"{space}_{sampler}" for space in SPACES for sampler in SAMPLERS):
            level = point.evaluation.values["accuracy"]
            mine = [p for p in points if p.search == search_name]
            as_good = [p for p in mine if p.evaluation.values["accuracy"] >= level]
            if not as_good:
                cells.append("none as accurate")
                continue
            pick = min(as_good, key=lambda p: p.time_ms)
            ratio, gain = point.time_ms / pick.time_ms, 100 * (pick.test - point.test)
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
        mine = sorted((p for p in points if p.search == name), key=lambda p: p.time_ms)
        x, y = [p.time_ms for p in mine], [100 * p.test for p in mine]
        size = 140 if name.startswith("reference") else 45
        axes.scatter(x, y, marker=mark, s=size, color=colours[name], label=name.replace("_", ", "), zorder=3)
        if not name.startswith("reference"):
            axes.plot(x, y, color=colours[name], alpha=0.4, linewidth=1)
            continue
        for p in mine:
            above = "int8" in named(p)
            axes.annotate(
                named(p).replace("_", " "),
                (p.time_ms, 100 * p.test),
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
