"""Writes surrogate.md: whether untrained scores as features of the default sampler lower its regret on the scored cells.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/20261124_proxies/surrogate.py [SEEDS]

The replay is that of `nas search experiment=nasbench201_replay`, on the part of the table that scores.jsonl covers, since
the other cells have no scores; what was run stands in surrogate.json and is not run again.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from remake import DATA, HERE, read

from nas.accuracy.combined import DEFAULT, rank_product
from nas.architecture import Architecture
from nas.search.candidates import Description
from nas.search.replay import problem_of, replay, summarize
from nas.search.samplers import make_sampler
from nas.search.table import Columns, Table

RESULTS = HERE / "surrogate.json"
BUDGET, MARKS = 100, (25, 50, 100)
COSTS = ("latency_pixel3_ms", "latency_eyeriss_ms")
KINDS = ("none", "default combination", "its scores", "all scores")


class ScoredTable(Table):
    """A table whose architectures are described by scores too."""

    def __init__(self, path: Path, columns: Columns, features: list[dict[str, float]]) -> None:
        super().__init__(path, columns)
        self._features = features

    def _describe(self, row: int, architecture: Architecture) -> Description:
        known = super()._describe(row, architecture)
        return replace(known, features={**known.features, **self._features[row]})


def features(kind: str, columns: dict[str, np.ndarray], count: int) -> list[dict[str, float]]:
    scaled = {name: score for name, score in columns.items() if not np.isnan(score).any()}
    if kind == "none":
        return [{}] * count
    if kind == "default combination":
        scaled = {"combined": rank_product(columns, DEFAULT)}
    elif kind == "its scores":
        scaled = {name: scaled[name] for name in DEFAULT}
    return [{f"proxy_{name}": float(score[row]) for name, score in scaled.items()} for row in range(count)]


def run(kind: str, data: str, seeds: int) -> dict[str, dict[str, float]]:
    cells, columns, _ = read()
    whole = pq.read_table(DATA / "nasbench201" / "nasbench201.parquet")
    position = {int(index): row for row, index in enumerate(whole["idx"].to_numpy())}
    part = whole.take([position[cell] for cell in cells])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(part, path)
        table = ScoredTable(path, Columns(f"accuracy_{data}_test_pct", COSTS), features(kind, columns, len(cells)))
        assert len(table) == len(cells), "a row without costs would shift the scores"
        runs = [
            replay(table, make_sampler("ehvi", seed, None, problem_of(table)), BUDGET, seed) for seed in range(seeds)
        ]
        found = summarize(runs, BUDGET, table.regret)
    return {str(mark): {"mean": found[mark].mean, "sem": found[mark].sem} for mark in MARKS} | {"cells": len(cells)}


def main(seeds: int) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for kind in KINDS:
        for data in ("cifar100",):
            key = f"{data} | {kind} | {seeds} seeds"
            if key not in results:
                results[key] = run(kind, data, seeds)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    lines = [
        "Hypervolume regret x 1000 of `ehvi` after n trainings, mean and standard error; Pixel 3 and Eyeriss latency.",
        "",
        f"| scores as features | cells | {' | '.join(f'@{mark}' for mark in MARKS)} |",
        "|---|---|---|---|---|",
    ]
    for key, result in results.items():
        cells = [f"{result[str(mark)]['mean'] * 1e3:.0f} ± {result[str(mark)]['sem'] * 1e3:.0f}" for mark in MARKS]
        lines.append(f"| {key.replace(' | ', ', ')} | {result['cells']} | {' | '.join(cells)} |")
    (HERE / "surrogate.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
