"""Remakes the experiment: python experiments/20261124_neu/remake.py --data FOLDER.

A search that was cut off goes on where it was when the command is repeated; one that is done is not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fronts import Point, counts, leading, members_of, run_once, share_right, time_in_turns
from report import card, machine, table, write_between

ROOT = Path("runs/experiments/neu")
LONGEST_MS = 5.0
SEEDS = [0, 1]
SAME = (
    "data=neu",
    "objective=accuracy_latency",
    f"objective.latency_ms.reference={LONGEST_MS}",
    "accuracy.epochs=12",
    "executor.workers=1",
    "accuracy.max_seconds=1200",  # a busy machine must not shorten a training
)
UNIFORM = "mobilenet_v2"


def run_searches(data: Path, trials: int) -> dict[str, dict[str, Any]]:
    """Run what is not done yet and return the report of each search."""
    reports = {}
    for seed in SEEDS:
        words = [
            *SAME,
            f"data.path={data}",
            "space=convnet",
            "limits.macs=30000000",
            f"seed={seed}",
            f"budget={trials}",
        ]
        reports[f"convnet_{seed}"] = run_once(ROOT, f"convnet_{seed}", words)
    words = ["space=reference", "space.networks=[mobilenet_v2]", "space.widths=[0.25,0.5]", "space.precisions=[int8]"]
    words += [*SAME, f"data.path={data}", "data.resolutions=[32,48]", "sampler=random", "keep=all", "budget=4"]
    reports[UNIFORM] = run_once(ROOT, UNIFORM, words)
    return reports


def summary(reports: Mapping[str, dict[str, Any]], points: list[Point]) -> str:
    """Return one row per search."""
    rows = []
    for name, report in reports.items():
        mine = [point for point in points if point.search == name]
        best, fastest = max(mine, key=lambda p: p.test), min(mine, key=lambda p: p.time_ms)
        shipped = card(report)
        rows.append(
            [
                name,
                counts(report),
                f"{report['elapsed_s'] / 60:.0f}",
                f"{share_right(mine, LONGEST_MS):.4f}",
                f"{best.test:.1%} at {best.time_ms:.3f}",
                f"{fastest.test:.1%} at {fastest.time_ms:.3f}",
                len(leading(mine)),
                f"{shipped['accuracy']['test_quantized']:.1%}" if shipped else report["reason"],
            ]
        )
    columns = [
        "search",
        "trials",
        "minutes",
        "hypervolume on test",
        "best, ms",
        "fastest, ms",
        "front",
        "shipped, test",
    ]
    return table(columns, rows)


def against_network(points: list[Point]) -> str:
    """Say per width and resolution of MobileNetV2 what a user who picks by validation accuracy gets from each search."""
    rows = []
    for network in sorted((p for p in points if p.search == UNIFORM), key=lambda p: p.time_ms):
        choices, values = network.evaluation.architecture.choices, network.evaluation.values
        cells = [
            f"x {choices['width']}, {choices['resolution']} px",
            f"{values['accuracy']:.1%}",
            f"{network.test:.1%}",
        ]
        cells.append(f"{network.time_ms:.3f} ± {network.spread_ms:.3f}")
        for seed in SEEDS:
            mine = [p for p in points if p.search == f"convnet_{seed}"]
            as_good = [p for p in mine if p.evaluation.values["accuracy"] >= values["accuracy"]]
            pick = min(as_good, key=lambda p: p.time_ms, default=None)
            gain = "none as accurate"
            if pick is not None:
                ratio, points_more = network.time_ms / pick.time_ms, 100 * (pick.test - network.test)
                gain = f"{ratio:.2f} x as fast, {points_more:+.1f} points"
            cells.append(gain)
        rows.append(cells)
    columns = ["MobileNetV2, int8", "validation", "test", "ms", *(f"convnet, seed {seed}" for seed in SEEDS)]
    return table(columns, rows)


def members(points: list[Point]) -> str:
    """Return one row per network of the fronts."""
    rows = []
    for point in sorted(points, key=lambda p: (p.search, -p.test)):
        values, choices = point.evaluation.values, point.evaluation.architecture.choices
        levels = [str(level) for level in point.evaluation.architecture.precision.values()]
        rows.append(
            [
                point.search,
                point.trial,
                f"{choices['resolution']} px",
                f"{values['accuracy']:.1%}",
                f"{point.test:.1%}",
                f"{point.time_ms:.3f} ± {point.spread_ms:.3f}",
                f"{values['size_kib']:.0f}",
                f"{values['macs'] / 1e6:.1f} M",
                f"{levels.count('int8')} of {len(levels)}",
            ]
        )
    columns = ["search", "trial", "input", "validation", "test", "ms", "KiB", "MACs", "blocks in int8"]
    return table(columns, rows)


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train-*.parquet and test-*.parquet")
    parser.add_argument("--trials", type=int, default=14, help="candidates per search")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS[:])
    arguments = parser.parse_args()
    SEEDS[:] = arguments.seeds
    reports = run_searches(arguments.data, arguments.trials)
    points = [point for name in reports for point in members_of(ROOT, name, everything=name == UNIFORM)]
    time_in_turns(ROOT, points)
    readme = HERE / "README.md"
    write_between(readme, "searches", summary(reports, points))
    write_between(readme, "network", against_network(points))
    write_between(readme, "members", members(points))
    write_between(readme, "machine", f"Machine: {machine(ROOT / UNIFORM)}.")


if __name__ == "__main__":
    main()
