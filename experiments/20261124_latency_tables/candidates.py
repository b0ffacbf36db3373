"""Fits single candidates of the graph regressor and scores each: candidates.py NAME,... ROW,... SEED,...; `table` writes what is there.

Each result is a line of candidates.jsonl, so a run that was cut loses nothing and one may be added to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from remake import ROWS, SHARED
from report import table, write_between

from latency_models.encodings import encoder
from latency_models.graph import CANDIDATES, once_per_group, validation_error
from latency_models.metrics import scores
from latency_models.score import Task
from latency_models.tables import group_rows, read_table, split_rows

RESULTS = HERE / "candidates.jsonl"
COLUMNS = ("spearman", "within_5_pct", "within_10_pct", "mape")


def main() -> None:
    """Score what was asked for, then write the table of everything scored so far."""
    if sys.argv[1:] != ["table"]:
        import torch

        torch.set_num_threads(1)
        names, rows, seeds = (word.split(",") for word in sys.argv[1:4])
        for row in ROWS:
            if row.name in rows:
                for seed in map(int, seeds):
                    score(row, seed, names)
    write()


def score(row, seed: int, names: list[str]) -> None:
    """Append a line per candidate: its error on left-out groups, its scores on the test rows, seconds of the fit."""
    read = read_table(str(SHARED / row.file))
    target = read.numbers(row.target)
    task = Task(encoder(row.space)(read), target, group_rows(read, target))
    learn, test = split_rows(task.groups, row.train, seed)
    groups = task.groups.of_row[learn]
    for name in names:
        begun, used = time.monotonic(), os.times().user
        model = CANDIDATES[name]().fit(task.blocks(learn), task.target[learn], groups)
        left_out, _ = model.left_out()
        found = {
            "row": row.name,
            "seed": seed,
            "candidate": name,
            "validation": validation_error(task.target[learn], left_out, once_per_group(groups)),
            "cpu_s": os.times().user - used,
            "wall_s": time.monotonic() - begun,
            **scores(task.target[test], *model.predict(task.blocks(test))),
        }
        with RESULTS.open("a") as file:
            file.write(json.dumps(found) + "\n")


def write() -> None:
    """Write means over the seeds that all candidates of a row share."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    lines = []
    for row in dict.fromkeys(one["row"] for one in found):
        for name in dict.fromkeys(one["candidate"] for one in found if one["row"] == row):
            runs = [one for one in found if (one["row"], one["candidate"]) == (row, name)]
            means = [float(np.mean([one[column] for one in runs])) for column in ("validation", *COLUMNS, "cpu_s")]
            lines.append([row, name, *(f"{mean:.4f}" for mean in means[:-1]), f"{means[-1]:.0f}", len(runs)])
    heads = ["row", "candidate", "validation error", *COLUMNS, "CPU seconds of a fit", "splits"]
    write_between(HERE / "README.md", "candidates", table(heads, lines))


if __name__ == "__main__":
    main()
