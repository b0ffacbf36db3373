"""The front found through shared weights and then trained, against the front of short trainings in the same time.

    .venv/bin/python experiments/20261124_supernet_front/remake.py CIFAR10_FOLDER [--minutes 10] [--passes 12] [--seeds 0]

Searches that are done are read back from runs/experiments; tables and picture are written anew.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fronts import LONGEST_MS, SMALL_CIFAR10, Point, counts, leading, members_of, run_once, share_right, time_in_turns
from report import machine, table, write_between

HERE = Path(__file__).parent
ROOT = Path("runs/experiments/20261124_supernet_front")
# Narrower than the default, since a supernet computes its widest network at every step.
SPACE = (
    "space.widths=[[8,16],[16,24],[24,48]]",
    "space.depths=[1,2]",
    "space.kernels=[3,5]",
    "space.expansions=[2,4]",
    "space.squeeze_ratios=[0]",
    "space.strides=['1212','1222','2122','2212']",
    "space.activations=[relu]",
    "space.head_widths=[0]",
)
TRAINED = tuple(word for word in SMALL_CIFAR10 if word.startswith("accuracy."))
COMMON = (*SPACE, *(word for word in SMALL_CIFAR10 if word not in TRAINED))


def timed(name: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return the report of a search with the wall clock of its command, all its runs together, as ``wall_s``."""
    began, file = time.monotonic(), ROOT / f"{name}_wall.json"
    done = (ROOT / f"{name}.json").is_file()
    try:
        report = run_once(ROOT, name, words)
    finally:
        earlier = json.loads(file.read_text()) if file.is_file() else 0.0
        if not done:
            file.write_text(json.dumps(earlier + time.monotonic() - began))
    return {**report, "wall_s": json.loads(file.read_text())}


def searches(data: str, seed: int, minutes: float, passes: int) -> dict[str, dict[str, Any]]:
    """Run both ways, the second for as long as the first took, and return the reports."""
    common = (*COMMON, f"data.path={data}", f"seed={seed}")
    shared_words = ("accuracy=supernet", f"accuracy.passes={passes}", f"hours={minutes / 60}", "budget=1000")
    shared = timed(f"shared_{seed}", (*common, *shared_words))
    front = len(shared["front"])
    trained = timed(f"trained_{seed}", (*common, *TRAINED, f"start_from=shared_{seed}", f"budget={front}"))
    spent = shared["wall_s"] + trained["wall_s"]
    alone = timed(f"alone_{seed}", (*common, *TRAINED, f"hours={spent / 3600}", "budget=1000"))
    return {"shared": shared, "trained": trained, "alone": alone}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("data", help="folder of CIFAR-10's parquet files")
    options.add_argument(
        "--minutes", type=float, default=10.0, help="of the first search, the supernet's training included"
    )
    options.add_argument("--passes", type=int, default=12)
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = options.parse_args()
    reports = {seed: searches(given.data, seed, given.minutes, given.passes) for seed in given.seeds}
    points = {
        f"{arm}_{seed}": members_of(ROOT, f"{arm}_{seed}") for seed in given.seeds for arm in ("trained", "alone")
    }
    time_in_turns(ROOT, [point for front in points.values() for point in front])
    write_between(HERE / "README.md", "arms", arms(points, reports))
    write_between(HERE / "README.md", "searches", runs(reports))
    write_between(HERE / "README.md", "machine", machine(ROOT / f"alone_{given.seeds[0]}"))


def arms(points: dict[str, list[Point]], reports: dict[int, dict[str, dict[str, Any]]]) -> str:
    rows = []
    for seed in reports:
        for arm, words in (("trained", "through shared weights, then trained"), ("alone", "short trainings")):
            front = leading(points[f"{arm}_{seed}"])
            best, fastest = max(point.test for point in front), min(point.time_ms for point in front)
            volume = share_right(points[f"{arm}_{seed}"], LONGEST_MS)
            rows.append([seed, words, len(front), f"{volume:.4f}", f"{best:.4f}", f"{fastest:.4f}"])
    return table(
        ["seed", "front found by", "members", "hypervolume on test", "best test accuracy", "fastest (ms)"], rows
    )


def runs(reports: dict[int, dict[str, dict[str, Any]]]) -> str:
    rows = []
    for seed, by_arm in reports.items():
        for arm, report in by_arm.items():
            rows.append(
                [f"{arm}_{seed}", counts(report), f"{report['wall_s'] / 60:.1f}", f"{report['hypervolume']:.4f}"]
            )
    return table(["search", "trials", "minutes in all", "hypervolume, validation, as searched"], rows)


if __name__ == "__main__":
    main()
