"""Remakes "What of HAT's latencies the features can tell": python experiments/20261124_latency_tables/hat_limits.py.

Predicts every row from four fifths of the others, and asks of what is left: where in the table do large errors stand, do
architectures that are nearly alike err alike, and how far apart are their measurements?
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np
from numpy.typing import NDArray
from remake import HAT_TARGET, SHARED
from report import table, write_between
from scipy.optimize import minimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm

from latency_models.encodings import encoder
from latency_models.graph import ProcessOnValues
from latency_models.ridge import folds
from latency_models.tables import Table, read_table

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

DEVICES = {"hat_raspi4": "raspberrypi", "hat_xeon": "xeon"}
FIRST = 120
LEVELS = ("encoder_embed_dim", "decoder_embed_dim", "decoder_layer_num")  # alike in a pair; the rest is near
NEAR = 0.3  # share of the pairs that stand closest


def main() -> None:
    """Predict, look, write."""
    rows = []
    for name, device in DEVICES.items():
        read = read_table(SHARED / "hat" / f"wmt14ende_cpu_{device}_all.csv")
        measured = read.numbers(HAT_TARGET)
        left, right = pairs(read)
        error = measured / left_out(read, measured, left, right) - 1
        large = np.abs(error) > 0.1
        rest = np.arange(len(error)) >= FIRST
        clipped = np.clip(error, -0.3, 0.3)
        within = noise_within(np.log1p(error[left]) - np.log1p(error[right]), 0.1)
        rows.append(
            [
                name,
                f"{(~large).mean():.1%}",
                f"{(~large)[rest].mean():.1%}",
                f"{large[:FIRST].sum()} of {large.sum()}",
                f"{(error[large] > 0).mean():.0%}",
                f"{np.corrcoef(clipped[left], clipped[right])[0, 1]:.2f}",
                f"{np.median(np.abs(measured[left] / measured[right] - 1)):.1%}",
                f"{within:.1%}",
            ]
        )
    columns = [
        "row",
        "within_10_pct",
        f"the same without the first {FIRST} rows",
        f"errors over 10 % that stand in the first {FIRST} rows",
        "of them measured more than predicted",
        "correlation of errors of near twins",
        "near twins differ by (median)",
        "within_10_pct if only what near twins' errors differ by were left",
    ]
    write_between(HERE / "README.md", "hat-limits", table(columns, rows))


def left_out(read: Table, measured: Array, left: Rows, right: Rows) -> Array:
    """Return what each row is predicted by the process that was fitted to the other folds; twins are in one fold."""
    blocks = encoder("hat")(read).blocks
    count = len(measured)
    twins = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    groups = connected_components(twins, directed=False)[1].astype(np.int64)
    found = np.empty(count)
    for learn, leave in folds(groups):
        model = ProcessOnValues().fit({name: block[learn] for name, block in blocks.items()}, measured[learn], learn)
        found[leave] = model.predict({name: block[leave] for name, block in blocks.items()})[0]
    return found


def pairs(read: Table) -> tuple[Rows, Rows]:
    """Return the closest pairs: equal widths and layers, every row with its nearest in the other features."""
    names = [name for name in read.columns if name.startswith(("encoder_", "decoder_"))]
    other = np.stack([read.numbers(name) for name in names if name not in (*LEVELS, "encoder_layer_num")], axis=1)
    other = other / other.std(axis=0)
    groups = np.unique(np.stack([read.numbers(name) for name in LEVELS], axis=1), axis=0, return_inverse=True)[1]
    found = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups.reshape(-1) == group)
        distance = ((other[members][:, None] - other[members][None]) ** 2).sum(axis=-1)
        np.fill_diagonal(distance, np.inf)
        nearest = distance.argmin(axis=1)
        found += [(distance[one, two], members[one], members[two]) for one, two in enumerate(nearest)]
    closest = sorted(found)[: int(NEAR * len(found))]
    return np.array([one for _, one, _ in closest]), np.array([two for _, _, two in closest])


def noise_within(difference: Array, tolerance: float) -> float:
    """Return how often noise stays within the tolerance, if differences of twins are those of two draws of it.

    Noise is a mixture of a narrow and a wide normal distribution, fitted to the differences by maximum likelihood.
    """

    def parts(values: Array) -> tuple[float, float, float]:
        return float(np.exp(values[0])), float(np.exp(values[1])), float(1 / (1 + np.exp(-values[2])))

    def loss(values: Array) -> float:
        narrow, wide, share = parts(values)
        shapes = (
            ((1 - share) ** 2, 2 * narrow**2),
            (2 * share * (1 - share), narrow**2 + wide**2),
            (share**2, 2 * wide**2),
        )
        density = sum(weight * norm.pdf(difference, scale=np.sqrt(variance)) for weight, variance in shapes)
        return -float(np.log(density + 1e-300).sum())

    starts = ([-4.0, -2.0, -2.0], [-3.0, -1.5, -1.0], [-5.0, -2.5, -2.0])
    best = min((minimize(loss, start, method="Nelder-Mead") for start in starts), key=lambda run: run.fun)
    narrow, wide, share = parts(best.x)
    return sum(
        weight * (2 * norm.cdf(tolerance / spread) - 1) for weight, spread in ((1 - share, narrow), (share, wide))
    )


if __name__ == "__main__":
    main()
