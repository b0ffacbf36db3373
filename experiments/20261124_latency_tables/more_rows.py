"""Remakes "Would more rows reach the bar of energy?": python experiments/20261124_latency_tables/more_rows.py.

Fits the process to more and more of the representatives, with the measured latency, and scores the same held-out ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np
from remake import ROWS, SHARED
from report import table, write_between

from latency_models.encodings import encoder
from latency_models.graph import ProcessOnValues
from latency_models.metrics import scores
from latency_models.score import Task
from latency_models.tables import group_rows, read_table, split_rows

TRAIN = (900, 2700, 4500)
SEED = 0


def main() -> None:
    """Fit, score, write."""
    row = next(row for row in ROWS if row.name == "pi5_energy")
    read = read_table(SHARED / row.file)
    target = read.numbers(row.target)
    task = Task(encoder(row.space)(read), target, group_rows(read, target), read.numbers(row.latency))
    held_out = split_rows(task.groups, max(TRAIN), SEED)[1]
    lines = []
    for count in TRAIN:
        learn, _ = split_rows(task.groups, count, SEED)
        model = ProcessOnValues().fit(task.blocks(learn), target[learn], task.groups.of_row[learn])
        mean, _ = model.predict(task.blocks(held_out))
        found = scores(target[held_out], mean)
        # In the order of the table; the next held-out representative is eight rows away on average.
        error = np.clip(target[held_out] / mean - 1, -0.2, 0.2)[np.argsort(held_out)]
        alike = np.corrcoef(error[:-1], error[1:])[0, 1]
        shown = [f"{found['spearman']:.4f}", f"{found['within_10_pct']:.1%}", f"{found['mape']:.1%}", f"{alike:.2f}"]
        lines.append([len(learn), len(held_out), *shown])
    columns = ["train", "test", "spearman", "within_10_pct", "mape", "correlation of errors of neighbours in the table"]
    write_between(HERE / "README.md", "more-rows", table(columns, lines))


if __name__ == "__main__":
    main()
