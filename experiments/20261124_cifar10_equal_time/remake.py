"""Remakes the experiment: python experiments/20261124_cifar10_equal_time/remake.py --data FOLDER.

A search that was cut off goes on where it was when the command is repeated; one that is done is not run again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fronts import (
    LONGEST_MS,
    SMALL_CIFAR10,
    Point,
    counts,
    leading,
    mean_and_error,
    members_of,
    run_once,
    share_right,
    time_in_turns,
)
from report import machine, table, write_between

ROOT = Path("runs/experiments")
SEEDS = (0, 1, 2)
# What differs; all have the same minutes.
ARMS: dict[str, tuple[str, ...]] = {
    "convnet": ("space=convnet",),
    "halving": ("space=convnet", "halving.rungs=[2]"),
    "hybrid": ("space=hybrid",),
    "random": ("space=convnet", "sampler=random"),
    "nsga2": ("space=convnet", "sampler=nsga2"),
    "tpe": ("space=convnet", "sampler=tpe"),
}
UNIFORM = "uniform"


def run_searches(root: Path, data: Path, minutes: float, arms: list[str]) -> dict[str, dict[str, Any]]:
    """Run what is not done yet, the arms in turns, and return the report of each search."""
    reports = {}
    for seed in SEEDS:
        for arm in arms:
            words = [
                *SMALL_CIFAR10,
                f"data.path={data}",
                *ARMS[arm],
                f"seed={seed}",
                "budget=1000",
                f"hours={minutes / 60}",
            ]
            reports[f"{arm}_{seed}"] = run_once(root, f"{arm}_{seed}", words)
    words = ["space=reference", "space.widths=[0.25,0.35,0.5,0.75]", "space.precisions=[int8]", "keep=all"]
    # MobileNetV2 has more than the searches may have even at its narrowest.
    words += [*SMALL_CIFAR10, f"data.path={data}", "limits.macs=9000000", "sampler=random", "budget=8"]
    reports[UNIFORM] = run_once(root, UNIFORM, words)
    return reports


def arms_table(reports: dict[str, dict[str, Any]], points: list[Point], arms: list[str]) -> str:
    """Return one row per arm, means over the seeds."""
    rows = []
    for arm in arms:
        names = [f"{arm}_{seed}" for seed in SEEDS]
        fronts = [[point for point in points if point.search == name] for name in names]
        trained = [sum(reports[name]["trials"].get(state, 0) for state in ("complete", "pruned")) for name in names]
        rows.append(
            [
                arm,
                " / ".join(str(count) for count in trained),
                mean_and_error([share_right(front, LONGEST_MS) for front in fronts]),
                mean_and_error([max(point.test for point in front) for front in fronts]),
                mean_and_error([min(point.time_ms for point in front) for front in fronts]),
                " / ".join(str(len(leading(front))) for front in fronts),
            ]
        )
    uniform = [point for point in points if point.search == UNIFORM]
    rows.append(
        [
            UNIFORM,
            str(len(uniform)),
            f"{share_right(uniform, LONGEST_MS):.4f}",
            f"{max(point.test for point in uniform):.4f}",
            f"{min(point.time_ms for point in uniform):.4f}",
            str(len(leading(uniform))),
        ]
    )
    columns = [
        "arm",
        "candidates trained, by seed",
        "hypervolume on test",
        "best test accuracy",
        "fastest (ms)",
        "front, by seed",
    ]
    return table(columns, rows)


def against_networks(points: list[Point], arms: list[str]) -> str:
    """Say per hand-designed network what a user who picks by validation accuracy gets from each arm, by seed."""
    rows = []
    for network in sorted((p for p in points if p.search == UNIFORM), key=lambda p: p.time_ms):
        choices = network.evaluation.architecture.choices
        cells = [f"{choices['network']} x {choices['width']}", f"{network.test:.2%}, {network.time_ms:.3f} ms"]
        for arm in arms:
            found = []
            for seed in SEEDS:
                level = network.evaluation.values["accuracy"]
                mine = [p for p in points if p.search == f"{arm}_{seed}" and p.evaluation.values["accuracy"] >= level]
                pick = min(mine, key=lambda p: p.time_ms, default=None)
                found.append(
                    "none"
                    if pick is None
                    else f"{network.time_ms / pick.time_ms:.2f} x {100 * (pick.test - network.test):+.1f}"
                )
            cells.append("; ".join(found))
        rows.append(cells)
    return table(["network, int8", "test, time", *arms], rows)


def searches_table(reports: dict[str, dict[str, Any]], points: list[Point]) -> str:
    """Return one row per search."""
    rows = []
    for name, report in reports.items():
        mine = [point for point in points if point.search == name]
        rows.append(
            [
                name,
                counts(report),
                f"{report['elapsed_s'] / 60:.1f}",
                f"{report['hypervolume']:.4f}",
                f"{share_right(mine, LONGEST_MS):.4f}",
            ]
        )
    columns = ["search", "trials", "minutes in all", "hypervolume, validation, as searched", "on test, timed in turns"]
    return table(columns, rows)


def picture(points: list[Point], arms: list[str], path: Path) -> None:
    """Draw the fronts, one panel per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = dict(zip(ARMS, ("#0072b2", "#e69f00", "#d55e00", "#999999", "#cc79a7", "#009e73"), strict=True))
    marks = dict(zip(ARMS, ("o", "P", "^", "s", "D", "v"), strict=True))
    figure, panels = plt.subplots(1, len(SEEDS), figsize=(15, 5), sharey=True, layout="constrained")
    uniform = sorted((p for p in points if p.search == UNIFORM), key=lambda p: p.time_ms)
    for seed, axes in zip(SEEDS, panels, strict=True):
        for arm in arms:
            mine = sorted(leading([p for p in points if p.search == f"{arm}_{seed}"]), key=lambda p: p.time_ms)
            axes.plot(
                [p.time_ms for p in mine],
                [100 * p.test for p in mine],
                marker=marks[arm],
                color=colours[arm],
                label=arm,
                alpha=0.85,
            )
        axes.scatter(
            [p.time_ms for p in uniform],
            [100 * p.test for p in uniform],
            marker="*",
            s=120,
            color="black",
            label="MobileNetV2, ResNet-20 in int8",
            zorder=4,
        )
        axes.set_xscale("log")
        axes.set_xticks([0.03, 0.05, 0.1, 0.2], ["0.03", "0.05", "0.1", "0.2"])
        axes.minorticks_off()
        axes.set_title(f"seed {seed}")
        axes.set_xlabel("latency of the quantized file [ms, one thread]")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("accuracy of the quantized file, test [%]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10 in the hub's parquet layout")
    parser.add_argument("--minutes", type=float, default=5.0, help="per search, after which no candidate is started")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--into", type=Path, default=HERE, help="folder of the README whose tables are written")
    arguments = parser.parse_args()
    # The runs of an experiment lie under its name without the date.
    root = ROOT / arguments.into.resolve().name.split("_", 1)[1]
    reports = run_searches(root, arguments.data, arguments.minutes, arguments.arms)
    points = [point for name in reports for point in members_of(root, name, everything=name == UNIFORM)]
    time_in_turns(root, points)
    readme = arguments.into / "README.md"
    write_between(readme, "arms", arms_table(reports, points, arguments.arms))
    write_between(readme, "networks", against_networks(points, arguments.arms))
    write_between(readme, "searches", searches_table(reports, points))
    write_between(readme, "machine", f"Machine: {machine(root / UNIFORM)}.")
    picture(points, arguments.arms, arguments.into / "fronts.png")


if __name__ == "__main__":
    main()
