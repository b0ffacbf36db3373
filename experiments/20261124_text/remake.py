"""Remakes the experiment: python experiments/20261124_text/remake.py --clinc FOLDER --shakespeare FOLDER.

A search that was cut off goes on where it was when the command is repeated; one that is done is not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fronts import Point, counts, leading, members_of, run_once, share_perplexity, share_right, time_in_turns
from report import machine, table, write_between

ROOT = Path("runs/experiments/text")
MOST_PERPLEXITY, LONGEST_MS = 200.0, 0.5
SEEDS = [0, 1]
SAME = ("accuracy.max_seconds=1200", "executor.workers=1")  # a busy machine must not shorten a training


@dataclass(frozen=True)
class Task:
    """One data set with its two settings.

    Args:
        searched: words of the search.
        uniform: words of the networks scaled in width and depth alone.
        trials: candidates of a search.
        networks: how many there are of the others.
    """

    searched: tuple[str, ...]
    uniform: tuple[str, ...]
    trials: int
    networks: int


TASKS: Mapping[str, Task] = {
    "clinc": Task(
        ("experiment=clinc150_transformer", "accuracy.epochs=5"),
        ("experiment=clinc150_uniform", "accuracy.epochs=5", "space.widths=[32,64,96]", "space.depths=[2,4]"),
        12,
        6,
    ),
    "shakespeare": Task(
        ("experiment=shakespeare_decoder", "accuracy.epochs=1", "accuracy.warmup_epochs=0.2"),
        (
            "experiment=shakespeare_uniform",
            "accuracy.epochs=1",
            "accuracy.warmup_epochs=0.2",
            "space.widths=[64,128,192]",
            "space.depths=[2,4]",
        ),
        12,
        6,
    ),
}


def run_searches(data: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Run what is not done yet and return the report of each search."""
    reports = {}
    for name, task in TASKS.items():
        same = [*SAME, f"data.path={data[name]}"]
        for seed in SEEDS:
            words = [*task.searched, *same, f"budget={task.trials}", f"seed={seed}"]
            reports[f"{name}_{seed}"] = run_once(ROOT, f"{name}_{seed}", words)
        reports[f"{name}_uniform"] = run_once(
            ROOT, f"{name}_uniform", [*task.uniform, *same, f"budget={task.networks}"]
        )
    return reports


def volume(name: str, points: list[Point]) -> float:
    """Return the hypervolume over the test metric and the time."""
    if name == "clinc":
        return share_right(points, LONGEST_MS)
    return share_perplexity(points, MOST_PERPLEXITY, LONGEST_MS)


def sign(name: str) -> float:
    """Return -1 where more of the test metric is better."""
    return -1.0 if name == "clinc" else 1.0


def summary(name: str, reports: Mapping[str, Mapping[str, Any]], points: list[Point]) -> str:
    """Return one row per search of a data set."""
    rows = []
    for search, report in reports.items():
        mine = [point for point in points if point.search == search]
        if not search.startswith(name):
            continue
        best, fastest = min(mine, key=lambda p: sign(name) * p.test), min(mine, key=lambda p: p.time_ms)
        rows.append(
            [
                search,
                counts(report),
                f"{report['elapsed_s'] / 60:.0f}",
                f"{volume(name, mine):.4f}",
                f"{metric(name, best)} at {best.time_ms:.3f}",
                f"{metric(name, fastest)} at {fastest.time_ms:.3f}",
                len(leading(mine, sign(name))),
            ]
        )
    return table(["search", "trials", "minutes", "hypervolume on test", "best, ms", "fastest, ms", "front"], rows)


def metric(name: str, point: Point) -> str:
    """Return the test metric as a user reads it."""
    return f"{point.test:.2%}" if name == "clinc" else f"{point.test:.1f}"


def against_uniform(name: str, points: list[Point]) -> str:
    """Say per uniformly scaled network what a user who picks by the validation metric gets from each search."""
    rows = []
    value = "accuracy" if name == "clinc" else "perplexity"
    for network in sorted((p for p in points if p.search == f"{name}_uniform"), key=lambda p: p.time_ms):
        choices = network.evaluation.architecture.choices
        title = f"{choices['depth']} layers of {choices['width']}"
        cells = [title, metric(name, network), f"{network.time_ms:.3f} ± {network.spread_ms:.3f}"]
        cells.append(f"{network.evaluation.values['size_kib']:.0f}")
        level = sign(name) * network.evaluation.values[value]
        for seed in SEEDS:
            mine = [p for p in points if p.search == f"{name}_{seed}"]
            pick = min(
                (p for p in mine if sign(name) * p.evaluation.values[value] <= level),
                key=lambda p: p.time_ms,
                default=None,
            )
            cells.append(
                "none as good"
                if pick is None
                else f"{metric(name, pick)}, {network.time_ms / pick.time_ms:.2f} x as fast, "
                f"{pick.evaluation.values['size_kib'] / network.evaluation.values['size_kib']:.2f} x the size"
            )
        rows.append(cells)
    return table(["network, int8", "test", "ms", "KiB", *(f"search, seed {seed}" for seed in SEEDS)], rows)


def members(name: str, points: list[Point]) -> str:
    """Return one row per network, best first."""
    rows = []
    for point in sorted(
        (p for p in points if p.search.startswith(name)), key=lambda p: (p.search, sign(name) * p.test)
    ):
        values, choices = point.evaluation.values, point.evaluation.architecture.choices
        levels = [str(level) for level in point.evaluation.architecture.precision.values()]
        rows.append(
            [
                point.search,
                point.trial,
                f"{choices['depth']} x {choices['width']}",
                metric(name, point),
                f"{point.time_ms:.3f} ± {point.spread_ms:.3f}",
                f"{values['size_kib']:.0f}",
                f"{levels.count('int8')} of {len(levels)}",
            ]
        )
    return table(["search", "trial", "layers x width", "test", "ms", "KiB", "blocks in int8"], rows)


def picture(points: list[Point], path: Path) -> None:
    """Draw both data sets side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for axes, name in zip(panels, TASKS, strict=True):
        for search, mark, colour in (
            *((f"{name}_{seed}", mark, c) for seed, mark, c in zip(SEEDS, "o^", ("#0072b2", "#56b4e9"), strict=False)),
            (f"{name}_uniform", "*", "black"),
        ):
            mine = [p for p in points if p.search == search]
            lead = sorted(leading(mine, sign(name)), key=lambda p: p.time_ms)
            scale = 100 if name == "clinc" else 1
            axes.scatter(
                [p.time_ms for p in mine], [scale * p.test for p in mine], marker=mark, color=colour, label=search
            )
            axes.plot([p.time_ms for p in lead], [scale * p.test for p in lead], color=colour, alpha=0.5)
        axes.set_xscale("log")
        axes.set_xticks([0.05, 0.1, 0.2], ["0.05", "0.1", "0.2"])
        axes.minorticks_off()
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    panels[0].set_title("CLINC150, 151 classes")
    panels[0].set_xlabel("latency [ms, one thread]")
    panels[0].set_ylabel("accuracy of the quantized file, test [%]")
    panels[1].set_title("Tiny Shakespeare")
    panels[1].set_xlabel("one more token with a full cache [ms, one thread]")
    panels[1].set_ylabel("perplexity of the quantized file, test")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clinc", type=Path, required=True, help="folder with data_full.json")
    parser.add_argument("--shakespeare", type=Path, required=True, help="folder with input.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS[:])
    arguments = parser.parse_args()
    SEEDS[:] = arguments.seeds
    reports = run_searches({"clinc": arguments.clinc, "shakespeare": arguments.shakespeare})
    readme, points = HERE / "README.md", []
    for name in TASKS:
        mine = [p for s in reports if s.startswith(name) for p in members_of(ROOT, s, everything=s.endswith("uniform"))]
        time_in_turns(ROOT, mine)
        points += mine
        write_between(readme, f"{name}-searches", summary(name, reports, mine))
        write_between(readme, f"{name}-uniform", against_uniform(name, mine))
        write_between(readme, f"{name}-members", members(name, mine))
    write_between(readme, "machine", f"Machine: {machine(ROOT / 'clinc_uniform')}.")
    picture(points, HERE / "fronts.png")


if __name__ == "__main__":
    main()
