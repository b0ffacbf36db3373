"""Remakes the tables and the picture of this folder: every sampler, every pair of columns, by the command of a user.

    .venv/bin/python experiments/20261124_replay/remake.py [only=SAMPLER,... | only=none] [seed=SEED]

What was run already stands in results.json and is not run again; delete it for a fresh start. only=SAMPLER runs without
drawing, only=none draws without running. A sampler that is too slow for ten seeds is run seed by seed; seed=SEED runs that
one alone, so that several processes can share the work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = Path(os.environ.get("NAS_SHARED_DATA", ROOT.parent / "shared" / "data")) / "nasbench201" / "nasbench201.parquet"
RESULTS = HERE / "results.json"
SEEDS = 10
PROBLEMS = {
    "CIFAR-100, Pixel 3, Eyeriss": ("cifar100", ["latency_pixel3_ms", "latency_eyeriss_ms"]),
    "CIFAR-100, Pi 5 latency, energy": ("cifar100", ["latency_pi5_onnx_ms", "energy_pi5_onnx_mj"]),
    "ImageNet16-120, Pi 4": ("imagenet16", ["latency_raspi4_ms"]),
    "CIFAR-10, Xeon 6226": ("cifar10", ["latency_xeon_gold_6226_ms"]),
}
FIRST = next(iter(PROBLEMS))
SAMPLERS = ("random", "nsga2", "nsga3", "tpe", "tpe_univariate", "gp", "ehvi", "ehvi short")
MARKS = ("25", "50", "100")
BARS = {"ehvi": (50, 20, 12), "ehvi short": (25, 14, 8)}
SINGLY = {"gp": dict.fromkeys(PROBLEMS, SEEDS)}  # seeds of a sampler whose proposals take most of a second, by problem
CAPS = (8, 11, 14)
CAPPED = ("random", "tpe", "ehvi", "ehvi short")


def words(data: str, costs: list[str], sampler: str, seed: int | None = None) -> list[str]:
    name, _, short = sampler.partition(" ")
    found = [
        f"replay.accuracy=accuracy_{data}_test_pct",
        f"replay.costs=[{','.join(costs)}]",
        f"sampler={name}",
        # NSGA-II goes on to 200, for the hypervolume that it has then.
        f"budget={200 if name == 'nsga2' else 100}",
        *([f"seeds={SEEDS}"] if seed is None else ["seeds=1", f"seed={seed}"]),
    ]
    return [*found, f"replay.low_fidelity=accuracy_{data}_valid_12ep_pct"] if short else found


def run(arguments: list[str]) -> dict[str, dict[str, float]]:
    command = [
        sys.executable,
        "-m",
        "nas",
        "search",
        "experiment=nasbench201_replay",
        f"replay.table={DATA}",
        *arguments,
    ]
    print(" ".join(arguments), flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def jobs() -> dict[str, list[str]]:
    found = {}
    for title, (data, costs) in PROBLEMS.items():
        for sampler in SAMPLERS:
            if sampler in SINGLY:
                for seed in range(SINGLY[sampler].get(title, 0)):
                    found[f"{title} | {sampler} | {seed}"] = words(data, costs, sampler, seed)
                continue
            found[f"{title} | {sampler}"] = words(data, costs, sampler)
    for cap in CAPS:
        for sampler in CAPPED:
            limits = [f"+replay.limits.latency_xeon_gold_6226_ms={cap}"]
            found[f"cap {cap} ms | {sampler}"] = [*words("cifar100", [], sampler), *limits]
    return found


def load() -> dict[str, dict[str, dict[str, float]]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def save(key: str, result: dict[str, dict[str, float]]) -> None:
    """Add a result; several processes may do so, each for its own keys."""
    import fcntl

    with open(HERE / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = {**load(), key: result}
        RESULTS.write_text(json.dumps({name: results[name] for name in jobs() if name in results}, indent=1) + "\n")


def pooled(results: dict[str, dict[str, dict[str, float]]], key: str) -> tuple[dict[str, dict[str, float]] | None, int]:
    """Return a sampler's result and its seeds; of one that was run seed by seed the mean of those."""
    if key in results:
        return results[key], SEEDS
    runs = [result for name, result in results.items() if name.startswith(f"{key} | ")]
    if len(runs) < 2:
        return None, 0
    regrets = {mark: np.array([run[mark]["mean"] for run in runs]) for mark in MARKS}
    errors = {mark: float(np.std(values, ddof=1) / np.sqrt(len(runs))) for mark, values in regrets.items()}
    return {mark: {"mean": float(values.mean()), "sem": errors[mark]} for mark, values in regrets.items()}, len(runs)


def cell(result: dict[str, dict[str, float]], mark: str) -> str:
    return f"{result[mark]['mean'] * 1e3:.0f} ± {result[mark]['sem'] * 1e3:.0f}"


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [f"Hypervolume regret x 1000 after n full trainings, mean and standard error of {SEEDS} seeds.", ""]
    for title in PROBLEMS:
        lines += [f"| {title} | " + " | ".join(f"@{mark}" for mark in MARKS) + " | bar |", "|---|---|---|---|---|"]
        for sampler in SAMPLERS:
            result, seeds = pooled(results, f"{title} | {sampler}")
            if result is None:
                lines.append(f"| {sampler} | not run | | | |")
                continue
            bar = " / ".join(map(str, BARS[sampler])) if sampler in BARS and title == FIRST else ""
            few = f", {seeds} seeds" if seeds < SEEDS else ""
            lines.append(f"| {sampler}{few} | " + " | ".join(cell(result, mark) for mark in MARKS) + f" | {bar} |")
        lines.append("")
    lines += ["| problem | nsga2 @200 | ehvi @50 | ehvi short @50 |", "|---|---|---|---|"]
    for title in PROBLEMS:
        names = (("nsga2", "200"), ("ehvi", "50"), ("ehvi short", "50"))
        found = [(results.get(f"{title} | {name}"), mark) for name, mark in names]
        cells = [cell(result, mark) if result else "not run" for result, mark in found]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Best CIFAR-100 accuracy under a cap on the latency of the Xeon Gold 6226 after n full trainings, percent.",
        "",
    ]
    lines += [
        "| cap | oracle | sampler | " + " | ".join(f"@{mark}" for mark in MARKS) + " |",
        "|---|---|---|---|---|---|",
    ]
    for cap in CAPS:
        for sampler in CAPPED:
            result = results.get(f"cap {cap} ms | {sampler}")
            if result is None:
                lines.append(f"| {cap} ms | | {sampler} | not run | | |")
                continue
            cells = [f"{result[m]['accuracy']['mean']:.2f} ± {result[m]['accuracy']['sem']:.2f}" for m in MARKS]
            oracle = result["100"]["oracle_accuracy"]
            lines.append(f"| {cap} ms | {oracle:.2f} | {sampler} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(results: dict[str, dict[str, dict[str, float]]]) -> None:
    figure, axes = plt.subplots(1, len(PROBLEMS), figsize=(15, 4), sharey=True)
    for axis, title in zip(axes, PROBLEMS, strict=True):
        for sampler in SAMPLERS:
            result, _ = pooled(results, f"{title} | {sampler}")
            if result is None:
                continue
            marks = [int(mark) for mark in MARKS]
            mean = [result[mark]["mean"] * 1e3 for mark in MARKS]
            spread = [result[mark]["sem"] * 1e3 for mark in MARKS]
            width = 2.2 if sampler.startswith("ehvi") else 1.0
            axis.errorbar(marks, mean, spread, label=sampler, linewidth=width, marker="o", markersize=3)
        axis.set(title=title, xscale="log", yscale="log", xlabel="full trainings")
        axis.set_xticks([int(mark) for mark in MARKS], MARKS)
        axis.minorticks_off()
    axes[0].set_ylabel("hypervolume regret x 1000")
    figure.tight_layout(rect=(0, 0, 0.9, 1))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="center right", fontsize=8)
    figure.savefig(HERE / "regret.png", dpi=110)


def main() -> None:
    only = [word.removeprefix("only=").split(",") for word in sys.argv[1:] if word.startswith("only=")]
    seeds = [word for word in sys.argv[1:] if word.startswith("seed=")]
    for key, arguments in jobs().items():
        chosen = (not only or key.split(" | ")[1] in only[0]) and (not seeds or seeds[0] in arguments)
        if chosen and key not in load():
            save(key, run(arguments))
    if only not in ([], [["none"]]):
        return
    results = load()
    (HERE / "table.md").write_text(table(results))
    picture(results)


if __name__ == "__main__":
    main()
