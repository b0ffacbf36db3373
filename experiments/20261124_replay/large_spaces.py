"""Searches of convnet and transformer against a made-up truth: every sampler at 100 and 300 trials.

    .venv/bin/python experiments/20261124_replay/large_spaces.py [SAMPLER ...]

The truth has what makes real ones hard: accuracy saturates with capacity, each choice has an effect of its own, each pair of
choices another, narrow blocks lose in int8, and equal networks do not come out equal. Latency is that of a device whose
depthwise convolutions are slow and whose int8 is fast, so that multiply-accumulates, which the samplers know, do not tell it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from optuna.trial import TrialState

from nas.architecture import Architecture
from nas.data import Task
from nas.device import Device
from nas.errors import DegenerateArchitectureError
from nas.graph import Graph
from nas.objective import Objective
from nas.pareto import hypervolume, non_dominated
from nas.screen import Screen
from nas.search.ask_tell import AskTell
from nas.search.knowledge import problem_of
from nas.search.samplers import make_sampler
from nas.testing.synthetic import MacsLatency
from search_spaces.convnet import ConvNet
from search_spaces.transformer import Transformer

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "large_spaces.json"
MARKS = (100, 300)
SEEDS = (0, 1, 2)
SAMPLERS = ("random", "nsga2", "nsga3", "tpe", "tpe_univariate", "gp", "ehvi")
SPACES = {"convnet": ConvNet, "transformer": Transformer}
TASK = Task("image_classification", 3, 10)


@cache
def effect(*words: str) -> float:
    """Return a standard normal number that depends on the words alone."""
    digest = hashlib.sha256("|".join(words).encode()).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:8], "little")).normal())


def latency_ms(graph: Graph) -> float:
    total = 0.0
    for op in graph.ops:
        total += 0.004 + op.activation_bytes / 8e6
        if op.macs:
            depthwise = op.kind == "conv" and op.weights["weight"][1] == 1
            speed = 4e5 if depthwise else 6e6 if op.kind == "matmul" else 1e7
            total += op.macs / (speed * (3.0 if str(op.dtype) == "int8" and not depthwise else 1.0))
    return total


def accuracy(space: str, architecture: Architecture, graph: Graph) -> float:
    genes = [f"{name}={choice}" for name, choice in architecture.choices.items()]
    genes += [f"{block}={precision}" for block, precision in architecture.precision.items()]
    pairs = list(combinations(genes, 2))
    capacity = np.log10(graph.macs) + 0.5 * np.log10(graph.parameters)
    middle = {"convnet": 8.6, "transformer": 8.8}[space]
    logit = 1.0 + 0.9 * (capacity - middle)
    logit += 0.7 * sum(effect(space, gene) for gene in genes) / np.sqrt(len(genes))
    logit += 0.4 * sum(effect(space, *pair) for pair in pairs) / np.sqrt(len(pairs))
    narrow = [
        op for op in graph.mac_ops if str(op.dtype) == "int8" and op.output_shape[-1 if op.kind == "gemm" else 1] < 24
    ]
    logit -= 0.25 * len(narrow) / len(graph.mac_ops)
    return float(0.97 / (1 + np.exp(-logit)) + 0.004 * effect(space, architecture.id))


def evaluate(space: str, architecture: Architecture, graph: Graph) -> tuple[float, float]:
    return accuracy(space, architecture, graph), latency_ms(graph) * (1 + 0.02 * effect("noise", architecture.id))


def search(space_name: str, sampler: str, seed: int) -> list[float]:
    """Return the hypervolume, a share of the box, at each mark."""
    space = SPACES[space_name](TASK, (16, 24, 32))
    rng = np.random.default_rng(0)
    reference = float(np.quantile([latency_ms(space.lower(space.sample(rng))) for _ in range(128)], 0.9))
    axes = (
        Objective("accuracy", "maximize", "", None, 0.0),
        Objective("latency_ms", "minimize", "ms", None, reference),
    )
    screen = Screen(space, Device("made_up", "x86_64", 1), MacsLatency(), {}, axes, margin=1.0)
    ask_tell = AskTell(make_sampler(sampler, seed, None, problem_of(screen, False)), axes, [])
    seen: dict[str, tuple[float, float]] = {}
    volumes = []
    while len(seen) < MARKS[-1]:
        trial = ask_tell.ask()
        try:
            architecture = space.suggest(trial)
        except DegenerateArchitectureError:
            ask_tell.tell(trial, TrialState.PRUNED, None, {"degenerate": 1.0}, {})
            continue
        new = architecture.id not in seen
        values = seen.setdefault(architecture.id, evaluate(space_name, architecture, space.lower(architecture)))
        ask_tell.tell(trial, TrialState.COMPLETE, values, {}, {})
        if new and len(seen) in MARKS:
            losses = np.array([(-a, latency) for a, latency in seen.values()])
            losses = losses[non_dominated(losses)]
            volumes.append(hypervolume(losses, [0.0, reference]) / reference)
    return volumes


def load() -> dict[str, list[float]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def table(results: dict[str, list[float]]) -> str:
    lines = [f"Hypervolume, share of the box, mean and standard error of up to {len(SEEDS)} seeds.", ""]
    for space_name, kind in SPACES.items():
        lines += [
            f"| {space_name}, {kind(TASK, (16, 24, 32)).size():.1e} architectures | @100 | @300 |",
            "|---|---|---|",
        ]
        for sampler in SAMPLERS:
            found = [
                results[f"{space_name} | {sampler} | {s}"]
                for s in SEEDS
                if f"{space_name} | {sampler} | {s}" in results
            ]
            cells = []
            for index in range(len(MARKS)):
                values = [volumes[index] for volumes in found if len(volumes) > index]
                spread = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
                several = f"{np.mean(values):.4f} ± {spread:.4f}" if len(values) > 1 else "not run"
                cells.append(f"{values[0]:.4f}, one seed" if len(values) == 1 else several)
            lines.append(f"| {sampler} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    for seed in SEEDS:
        for space_name in SPACES:
            for sampler in sys.argv[1:] or SAMPLERS:
                key = f"{space_name} | {sampler} | {seed}"
                if key in load():
                    continue
                volumes = search(space_name, sampler, seed)
                print(key, volumes, flush=True)
                with open(HERE / ".lock", "w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    RESULTS.write_text(json.dumps({**load(), key: volumes}, indent=1, sort_keys=True) + "\n")
    (HERE / "large_spaces.md").write_text(table(load()))


if __name__ == "__main__":
    main()
