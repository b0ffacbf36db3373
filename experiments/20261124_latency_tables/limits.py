"""Remakes the table "What more rows would give": python experiments/20261124_latency_tables/limits.py.

Trains on all but 3,000 cells of NAS-Bench-201 instead of 900, with two models that need no choice of features, and
looks at what is left: do cells measured one after the other err alike, do cells that compute the same agree?
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from report import table, write_between
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

Array = NDArray[np.float64]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
COLUMNS = {"xeon_6226": "latency_xeon_gold_6226_ms", "pixel3": "latency_pixel3_ms"}
HELD_OUT = 3000
NEAR_ZERO = 0.05  # of the median: cells with no path from input to output


def main() -> None:
    """Train, look, write."""
    folder = Path(os.environ.get("NAS_SHARED_DATA", HERE.parents[1].parent / "shared" / "data"))
    read = pq.read_table(folder / "nasbench201" / "nasbench201.parquet").to_pydict()
    cells = [
        [OPERATIONS.index(word.split("~")[0]) for word in re.findall(r"\w+~\d", text)] for text in read["arch_str"]
    ]
    codes = np.array(cells)
    once = np.array(read["idx"]) == np.array(read["representative_idx"])
    rows = []
    for name, column in COLUMNS.items():
        values = np.array(read[column], float)
        good = np.isfinite(values) & (values > NEAR_ZERO * np.nanmedian(values))
        for model, outside in left_out(codes, values, good).items():
            rows.append([name, model, *scores(values, outside, once, good), f"{twins(codes, values, good):.4f}"])
    columns = [
        "row",
        "model",
        "spearman",
        "within_10_pct",
        "of the errors over 10 %: measured more than predicted",
        "correlation of errors of neighbours in the table",
        "spearman between cells that compute the same",
    ]
    write_between(HERE / "README.md", "limits", table(columns, rows))


def left_out(codes: NDArray[np.int64], values: Array, good: NDArray[np.bool_]) -> dict[str, Array]:
    """Return each model's predictions, NaN where a row was learned from."""
    order = np.random.default_rng(0).permutation(np.flatnonzero(good))
    test, learn = order[:HELD_OUT], order[HELD_OUT:]
    single = np.concatenate([codes[:, [edge]] == np.arange(len(OPERATIONS)) for edge in range(6)], axis=1).astype(float)
    first, second = np.triu_indices(single.shape[1], 1)
    pairs = np.hstack([single, single[:, first] * single[:, second]])
    found = {}
    models = {
        "ridge on pairs of edges": (Ridge(1.0), pairs),
        "boosted trees": (HistGradientBoostingRegressor(max_iter=400, learning_rate=0.05), single),
    }
    for name, (model, features) in models.items():
        model.fit(features[learn], values[learn])
        found[name] = np.full(len(values), np.nan)
        found[name][test] = model.predict(features[test])
    return found


def scores(values: Array, outside: Array, once: NDArray[np.bool_], good: NDArray[np.bool_]) -> list[str]:
    """Return rank and tolerance over representatives, and what the errors are like."""
    known = np.flatnonzero(np.isfinite(outside))
    seen = known[once[known]]
    error = outside / values - 1
    large = known[np.abs(error[known]) > 0.1]
    # In the order of the table, which is that of measuring: the next held-out row is five rows away on average.
    ordered = np.clip(error[known], -0.3, 0.3)
    return [
        f"{spearmanr(values[seen], outside[seen])[0]:.4f}",
        f"{(np.abs(error[seen]) <= 0.1).mean():.1%}",
        f"{(error[large] < 0).mean():.0%}",
        f"{np.corrcoef(ordered[:-1], ordered[1:])[0, 1]:.2f}",
    ]


def twins(codes: NDArray[np.int64], values: Array, good: NDArray[np.bool_]) -> float:
    """Return the rank correlation between cells without an edge from node 1 to node 2 and the same with both swapped."""
    place = {tuple(code): index for index, code in enumerate(codes.tolist())}
    left, right = [], []
    for index, (a, b, c, d, e, f) in enumerate(codes.tolist()):
        other = place[b, a, c, d, f, e]
        if OPERATIONS[c] == "none" and index < other and good[index] and good[other]:
            left.append(values[index])
            right.append(values[other])
    return float(spearmanr(left, right)[0])


if __name__ == "__main__":
    main()
