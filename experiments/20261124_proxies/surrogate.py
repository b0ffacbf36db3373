"""Writes surrogate.md: whether untrained scores as features of the default sampler lower its regret on the scored cells.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/20261124_proxies/surrogate.py [FIRST SEEDS]

The replay is that of `nas search experiment=nasbench201_replay`, on the part of the table that scores.jsonl covers, since
the other cells have no scores; every kind of features on the same cells with the same seeds. What was run stands in
surrogate.jsonl, regret by seed, and is not run again; two processes may run different seeds at a time.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from remake import DATA, HERE, read
from scipy.stats import rankdata

from nas.accuracy.combined import DEFAULT, rank_product
from nas.architecture import Architecture
from nas.search.candidates import Candidate, Description, Encoder
from nas.search.ehvi import EhviSampler
from nas.search.replay import problem_of, replay
from nas.search.table import Columns, Table

RESULTS = HERE / "surrogate.jsonl"
BUDGET, MARKS = 100, (25, 50, 100)
PROBLEMS = {
    "CIFAR-100, Pixel 3, Eyeriss": ("cifar100", ("latency_pixel3_ms", "latency_eyeriss_ms")),
    "ImageNet16-120, Pi 4": ("imagenet16", ("latency_raspi4_ms",)),
}
NONE = "none"
# Kind to whether its columns have a length scale of their own or share that of the graph's features.
KINDS = {
    NONE: False,
    "combination, among the graph's": False,
    "combination, on its own": True,
    "its three scores, on their own": True,
}
PREFIX = "proxy_"
MOST_SEEDS = 100


class ScoredTable(Table):
    """A table whose architectures are described by scores too."""

    def __init__(self, path: Path, columns: Columns, features: list[dict[str, float]]) -> None:
        super().__init__(path, columns)
        self._features = features

    def _describe(self, row: int, architecture: Architecture) -> Description:
        known = super()._describe(row, architecture)
        return replace(known, features={**known.features, **self._features[row]})


class ScoreEncoder(Encoder):
    """Gives scores a group of columns of their own, after genome, features and costs."""

    def encode(self, candidates: Sequence[Candidate]) -> tuple[NDArray[np.float64], tuple[NDArray[np.int64], ...]]:
        rows, (genome, features, costs) = super().encode(candidates)
        names = [name for _, name in self._columns]
        scores = np.array([names[column].startswith(PREFIX) for column in features], np.bool_)
        return rows, (genome, features[~scores], costs, features[scores])


@cache
def scored() -> tuple[list[int], dict[str, NDArray[np.float64]]]:
    cells, columns, _ = read()
    return cells, columns


def features(kind: str, columns: dict[str, NDArray[np.float64]], count: int) -> list[dict[str, float]]:
    if kind == NONE:
        return [{}] * count
    chosen = {"combined": rank_product(columns, DEFAULT)}
    if not kind.startswith("combination"):
        # A score's scale means nothing, and some have long tails.
        chosen = {name: rankdata(columns[name]) / count for name in DEFAULT}
    return [{f"{PREFIX}{name}": float(score[row]) for name, score in chosen.items()} for row in range(count)]


def run(kind: str, data: str, costs: tuple[str, ...], seed: int) -> dict[str, float]:
    """Return regret by budget of one replay, and the processor seconds that it took."""
    cells, columns = scored()
    whole = pq.read_table(DATA / "nasbench201" / "nasbench201.parquet")
    position = {int(index): row for row, index in enumerate(whole["idx"].to_numpy())}
    part = whole.take([position[cell] for cell in cells])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(part, path)
        table = ScoredTable(path, Columns(f"accuracy_{data}_test_pct", costs), features(kind, columns, len(cells)))
    assert len(table) == len(cells), "a row without costs would shift the scores"
    sampler = EhviSampler(problem_of(table), seed)
    if KINDS[kind]:
        sampler._encoder = ScoreEncoder()
    began = time.process_time()
    found = replay(table, sampler, BUDGET, seed)
    spent = time.process_time() - began
    return {str(mark): table.regret(found.within(mark)) for mark in MARKS} | {"seconds": spent, "cells": len(cells)}


def table_of(results: dict[str, dict[str, float]]) -> str:
    lines = []
    for title in PROBLEMS:
        seeds = range(MOST_SEEDS)
        rows_of = {kind: [results.get(f"{title} | {kind} | {seed}") for seed in seeds] for kind in KINDS}
        done = [seed for seed in seeds if all(rows[seed] for rows in rows_of.values())]
        if not done:
            continue
        cells = int(rows_of[NONE][done[0]]["cells"])
        lines += [
            f"{title}; {cells:,} cells, {len(done)} seeds. Regret x 1000 after n trainings, mean and standard error; beside it "
            "the difference from no scores, paired by seed.",
            "",
            f"| scores as features | {' | '.join(f'@{mark} | difference' for mark in MARKS)} | s a search |",
            "|---" * (2 + 2 * len(MARKS)) + "|",
        ]
        for kind, rows in rows_of.items():
            cells_of = []
            for mark in map(str, MARKS):
                ours, none = (np.array([found[seed][mark] for seed in done]) * 1e3 for found in (rows, rows_of[NONE]))
                cells_of += [spread(ours), "" if kind == NONE else spread(ours - none, "+")]
            seconds = np.median([rows[seed]["seconds"] for seed in done])
            lines.append(f"| {kind} | {' | '.join(cells_of)} | {seconds:.1f} |")
        lines.append("")
    return "\n".join(lines)


def spread(values: NDArray[np.float64], sign: str = "") -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):{sign}.1f} ± {error:.1f}"


def known() -> dict[str, dict[str, float]]:
    return dict(json.loads(line) for line in RESULTS.read_text().splitlines()) if RESULTS.is_file() else {}


def main(first: int, seeds: int) -> None:
    for title, (data, costs) in PROBLEMS.items():
        for seed in range(first, first + seeds):
            for kind in KINDS:
                key = f"{title} | {kind} | {seed}"
                if key not in known():
                    found = run(kind, data, costs, seed)
                    with RESULTS.open("a") as file:
                        file.write(json.dumps([key, found]) + "\n")
    (HERE / "surrogate.md").write_text(table_of(known()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3] or (0, 10)))
