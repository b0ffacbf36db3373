"""Adapts to every latency column of two tables in turn: few_shot.py CODE [TABLE ...]; `few_shot.py table` writes what is there.

CODE names the code that scores. Each column is a line of few_shot.jsonl, so that what was scored by earlier code stays beside.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from remake import FBNET, NASBENCH, ROWS, SHARED, Row, sources
from report import table, write_between

from latency_models.score import TableScorer
from latency_models.tables import read_table

RESULTS = HERE / "few_shot.jsonl"
TABLES = {"fbnet": FBNET, "nasbench201": NASBENCH}
SEEDS = 5


def main() -> None:
    """Score what was asked for, then write the tables of everything scored so far."""
    if sys.argv[1] != "table":
        for space in sys.argv[2:] or TABLES:
            for row in columns(space):
                score(row, sys.argv[1])
    write()


def columns(space: str) -> list[Row]:
    """Return a row per latency column of the table: each in turn is the new device."""
    names = read_table(SHARED / TABLES[space]).columns
    wanted = [name for name in names if name.startswith("latency_") and "_std_" not in name]
    return [Row(name, TABLES[space], space, name, 10, {}, transfer=True) for name in wanted]


def score(row: Row, code: str) -> None:
    """Append the scores of one column."""
    report = TableScorer().score(
        str(SHARED / row.file), row.space, row.target, row.train, SEEDS, transfer_from=sources(row)
    )
    kept = {name: report[name] for name in ("spearman", "within_10_pct", "mape", "coverage_90", "n_test")}
    with RESULTS.open("a") as file:
        file.write(json.dumps({"code": code, "table": row.space, "target": row.target, **kept}) + "\n")


def write() -> None:
    """Write a line per column that all codes scored, and a summary per table without the bars' own columns."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    codes = list(dict.fromkeys(one["code"] for one in found))
    by = {(one["code"], one["table"], one["target"]): one for one in found}
    barred = {(row.space, row.target) for row in ROWS if row.transfer}
    lines, totals = [], []
    for space in TABLES:
        scored = dict.fromkeys(one["target"] for one in found if one["table"] == space)
        targets = [target for target in scored if all((code, space, target) in by for code in codes)]
        for target in targets:
            runs = [by[code, space, target] for code in codes]
            name = target.removeprefix("latency_") + (" (bar)" if (space, target) in barred else "")
            lines.append([space, name, f"{runs[-1]['spearman']:.4f}", *(f"{run['coverage_90']:.1%}" for run in runs)])
        others = [target for target in targets if (space, target) not in barred]
        for code in codes:
            covered = np.array([by[code, space, target]["coverage_90"] for target in others])
            inside = int(((covered >= 0.85) & (covered <= 0.95)).sum())
            outside = np.maximum(0, np.maximum(0.85 - covered, covered - 0.95)).mean()
            totals.append([space, code, f"{covered.mean():.1%}", f"{inside} of {len(covered)}", f"{100 * outside:.1f}"])
    heads = ["table", "new device", "spearman", *(f"coverage, {code}" for code in codes)]
    write_between(HERE / "README.md", "few-shot", table(heads, lines))
    heads = ["table", "code", "mean coverage", "columns in 85 to 95 %", "points outside of it, mean"]
    write_between(HERE / "README.md", "few-shot-total", table(heads, totals))


if __name__ == "__main__":
    main()
