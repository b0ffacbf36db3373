"""The front found through shared weights and then trained, against the front of short trainings for the same seconds of the processor.

    .venv/bin/python experiments/20261124_supernet_front/remake.py CIFAR10_FOLDER [--passes 40] [--candidates 60] [--seeds 0 1 2]

Searches that are done are read back from runs/experiments; tables are written anew.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fronts import LONGEST_MS, SMALL_CIFAR10, Point, counts, leading, members_of, run_once, share_right, time_in_turns
from report import machine, table, write_between

HERE = Path(__file__).parent
ROOT = Path("runs/experiments/20261124_supernet_front")
ARMS = {
    "shared": "through shared weights, as cut out",
    "tuned": "through shared weights, then trained on from them",
    "trained": "through shared weights, then trained from scratch",
    "alone": "short trainings",
}
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
# Smaller pictures and fewer of them than other experiments have, so that minutes are enough for both ways.
SMALLER = ("data.resolutions=[16]", "data.train_images=1500")
TUNED_EPOCHS = 3  # of a member of the front, half as many as from scratch
FIRST = 6  # candidates, from which follows how many more there is time for
_REPLACED = tuple(word.partition("=")[0] for word in SMALLER)
COMMON = (
    *SPACE,
    *SMALLER,
    *(word for word in SMALL_CIFAR10 if word not in TRAINED and word.partition("=")[0] not in _REPLACED),
)


def timed(name: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return the report of a search with the clock's and the processor's seconds of its command, all its runs together.

    They stand under ``wall_s`` and ``cpu_s``.
    """
    began, file = (time.monotonic(), processor_s()), ROOT / f"{name}_seconds.json"
    done = (ROOT / f"{name}.json").is_file()
    try:
        report = run_once(ROOT, name, words)
    finally:
        earlier = json.loads(file.read_text()) if file.is_file() else [0.0, 0.0]
        if not done:
            ROOT.mkdir(parents=True, exist_ok=True)
            now = (time.monotonic(), processor_s())
            file.write_text(
                json.dumps([kept + end - start for kept, end, start in zip(earlier, now, began, strict=True)])
            )
    wall_s, cpu_s = json.loads(file.read_text())
    return {**report, "wall_s": wall_s, "cpu_s": cpu_s}


def processor_s() -> float:
    """Return the processor's seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def searches(data: str, seed: int, passes: int, candidates: int) -> dict[str, dict[str, Any]]:
    """Run both ways, the second for as many seconds of the processor as the first took, and return the reports."""
    common = (*COMMON, f"data.path={data}", f"seed={seed}")
    shared_words = ("accuracy=supernet", f"accuracy.passes={passes}", f"budget={candidates}")
    shared = timed(f"shared_{seed}", (*common, *shared_words))
    front = len(shared["front"])
    tuned_words = (*shared_words[:-1], f"accuracy.finetune_epochs={TUNED_EPOCHS}", f"budget={front}")
    tuned = timed(f"tuned_{seed}", (*common, *tuned_words, f"start_from=shared_{seed}"))
    trained = timed(f"trained_{seed}", (*common, *TRAINED, f"start_from=shared_{seed}", f"budget={front}"))
    spent = shared["cpu_s"] + trained["cpu_s"]
    return {
        "shared": shared,
        "tuned": tuned,
        "trained": trained,
        "alone": alone(f"alone_{seed}", (*common, *TRAINED), spent),
    }


def alone(name: str, words: tuple[str, ...], spent_s: float) -> dict[str, Any]:
    """Return the report of a search that trains every candidate, gone on with until it has taken as many seconds."""
    budget = FIRST
    while True:
        report = timed(name, (*words, f"budget={budget}"))
        each = report["cpu_s"] / budget
        more = int((spent_s - report["cpu_s"]) / each)
        if more < 1:
            return report
        budget += more
        (ROOT / f"{name}.json").unlink()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("data", help="folder of CIFAR-10's parquet files")
    options.add_argument("--passes", type=int, default=40, help="of the supernet")
    options.add_argument("--candidates", type=int, default=60, help="scored by the supernet")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = options.parse_args()
    reports = {seed: searches(given.data, seed, given.passes, given.candidates) for seed in given.seeds}
    points = {f"{arm}_{seed}": members_of(ROOT, f"{arm}_{seed}") for seed in given.seeds for arm in ARMS}
    time_in_turns(ROOT, [point for front in points.values() for point in front])
    write_between(HERE / "README.md", "arms", arms(points, reports))
    write_between(HERE / "README.md", "searches", runs(reports))
    write_between(HERE / "README.md", "machine", machine(ROOT / f"alone_{given.seeds[0]}"))


def arms(points: dict[str, list[Point]], reports: dict[int, dict[str, dict[str, Any]]]) -> str:
    rows = []
    for seed in reports:
        for arm, words in ARMS.items():
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
            minutes = [f"{report[name] / 60:.1f}" for name in ("wall_s", "cpu_s")]
            rows.append([f"{arm}_{seed}", counts(report), *minutes, f"{report['hypervolume']:.4f}"])
    columns = ["search", "trials", "minutes", "processor minutes", "hypervolume, validation, as searched"]
    return table(columns, rows)


if __name__ == "__main__":
    main()
