"""Remakes table.md from scores.jsonl, and perplexity.md: how untrained scores rank trained networks.

    .venv/bin/python experiments/20261124_proxies/remake.py

The combination in nas/accuracy/combined.py was chosen on the first CHOSEN_ON cells; the table shows it on the others too.
"""

import ast
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from nas.accuracy.combined import AZ_NAS, DEFAULT, rank_product, rank_product_within
from nas.accuracy.population import MEMBERS

HERE = Path(__file__).parent
DATA = Path(os.environ.get("NAS_SHARED_DATA", HERE.parents[2] / "shared" / "data"))
SETS = ("cifar10", "cifar100", "imagenet16")
TITLES = ("CIFAR-10", "CIFAR-100", "ImageNet16-120")
# Of all networks and on CIFAR-10; as issue 6 of this project gives them.
PUBLISHED = {
    **{"naswot": "rho .713", "synflow": "rho .737", "jacob_cov": "rho .731", "macs": "rho .753", "params": "rho .738"},
    "AZ-NAS": "tau .741, rho .913",
}
AIM = (0.74, 0.70, 0.70)
CHOSEN_ON = 200
VOCABULARY, CONTEXT = 50_257, 1024  # of GPT-2

Array = NDArray[np.float64]


def read() -> tuple[list[int], dict[str, Array], dict[str, float]]:
    """Return cells, scores by proxy with NaN for what is missing, and median seconds by proxy."""
    scores: dict[int, dict[str, float | None]] = {}
    seconds: dict[str, list[float]] = {}
    for row in map(json.loads, (HERE / "scores.jsonl").read_text().splitlines()):
        scores.setdefault(row["idx"], {}).update(row["scores"])
        for name, value in row["seconds"].items():
            seconds.setdefault(name, []).append(value)
    cells = list(scores)
    columns = {
        name: np.array([np.nan if scores[cell].get(name) is None else scores[cell][name] for cell in cells], float)
        for name in seconds
    }
    return cells, columns, {name: float(np.median(values)) for name, values in seconds.items()}


def truth(cells: list[int]) -> dict[str, Array]:
    names = [f"accuracy_{data}_test_pct" for data in SETS]
    table = pq.read_table(DATA / "nasbench201" / "nasbench201.parquet", columns=["idx", *names])
    row = {int(index): position for position, index in enumerate(table["idx"].to_numpy())}
    chosen = [row[cell] for cell in cells]
    return {data: table[name].to_numpy()[chosen] for data, name in zip(SETS, names, strict=True)}


def correlations(score: Array, accuracy: dict[str, Array], rows: NDArray[np.bool_]) -> list[tuple[float, float]]:
    found = []
    for data in SETS:
        one, other = score[rows], accuracy[data][rows]
        found.append((float(kendalltau(one, other).statistic), float(spearmanr(one, other).statistic)))
    return found


def line(title: str, found: list[tuple[float, float]], count: int, published: str = "", seconds: str = "") -> str:
    cells = " | ".join(f"{tau:.3f} / {rho:.3f}" for tau, rho in found)
    return f"| {title} | {count} | {cells} | {published} | {seconds} |"


def combined(columns: dict[str, Array], names: tuple[str, ...], rows: NDArray[np.bool_]) -> Array:
    """Return the rank product within the rows, 0 elsewhere."""
    score = np.zeros(len(rows))
    score[rows] = rank_product({name: columns[name][rows] for name in names}, names)
    return score


def proxies_table() -> str:
    cells, columns, seconds = read()
    accuracy = truth(cells)
    lines = [
        "Kendall tau / Spearman rho of an untrained score with the test accuracy after 200 epochs. Seconds are of one core.",
        "",
        f"| score | cells | {' | '.join(TITLES)} | published, CIFAR-10 | s |",
        "|---|---|---|---|---|---|---|",
    ]
    ranked = []
    for name, score in columns.items():
        known = ~np.isnan(score)
        found = correlations(score, accuracy, known)
        ranked.append((found[0][0], name, found, int(known.sum())))
    for _, name, found, count in sorted(ranked, reverse=True):
        lines.append(line(name, found, count, PUBLISHED.get(name, ""), f"{seconds[name]:.2f}"))
    lines += ["", "Rank products of several:", "", *lines[2:4]]
    known = {names: np.all([~np.isnan(columns[name]) for name in names], axis=0) for names in (AZ_NAS, DEFAULT)}
    for title, names, rows in (
        ("AZ-NAS", AZ_NAS, known[AZ_NAS]),
        ("default, cells of AZ-NAS", DEFAULT, known[AZ_NAS] & known[DEFAULT]),
        ("**default**", DEFAULT, known[DEFAULT]),
        (
            f"default, cells after the first {CHOSEN_ON}",
            DEFAULT,
            known[DEFAULT] & (np.arange(len(cells)) >= CHOSEN_ON),
        ),
    ):
        found = correlations(combined(columns, names, rows), accuracy, rows)
        total = f"{sum(seconds[name] for name in names):.2f}"
        lines.append(line(title, found, int(rows.sum()), PUBLISHED.get(title, ""), total))
    members = np.arange(len(cells)) < MEMBERS
    within = np.zeros(len(cells))
    within[~members] = rank_product_within(
        {name: columns[name][members] for name in DEFAULT}, {name: columns[name][~members] for name in DEFAULT}
    )
    title = f"`combined`: default, ranks among the first {MEMBERS} cells"
    lines.append(line(title, correlations(within, accuracy, ~members), int((~members).sum()), "", total))
    lines.append(line("*aim*", [(tau, np.nan) for tau in AIM], 0).replace(" / nan", "").replace("| 0 |", "| |"))
    return "\n".join([*lines, "", f"The default is the product of the ranks of {', '.join(DEFAULT)}.", ""])


def choices(most: int = 5, shown: int = 8) -> str:
    """Return the best combinations on the cells on which the default was chosen, and what they reach on the others."""
    cells, columns, _ = read()
    rows = np.arange(len(cells)) < CHOSEN_ON
    names = [name for name, score in columns.items() if name != "params" and not np.isnan(score[rows]).any()]
    accuracy, tried = truth(cells), []
    for size in range(2, most + 1):
        for some in itertools.combinations(names, size):
            found = correlations(combined(columns, some, rows), accuracy, rows)
            tried.append((float(np.mean([tau for tau, _ in found])), some, found))
    lines = [
        f"The best of {len(tried)} combinations on the first {CHOSEN_ON} cells, on which the default was chosen; beside it the mean "
        "of the three tau there, and on those of the other cells that have all of its scores.",
        "",
        f"| scores | {' | '.join(TITLES)} | mean tau | others: mean tau | others: default's | cells |",
        "|---" * 7 + "|",
    ]
    for mean, some, found in sorted(tried, reverse=True)[:shown]:
        others = ~rows & np.all([~np.isnan(columns[name]) for name in some], axis=0)
        held = [mean_tau(combined(columns, names, others), accuracy, others) for names in (some, DEFAULT)]
        cells_of = " | ".join(f"{tau:.3f} / {rho:.3f}" for tau, rho in found)
        told = f"{mean:.3f} | {held[0]:.3f} | {held[1]:.3f} | {int(others.sum())}"
        lines.append(f"| {', '.join(some)} | {cells_of} | {told} |")
    return "\n".join([*lines, ""])


def mean_tau(score: Array, accuracy: dict[str, Array], rows: NDArray[np.bool_]) -> float:
    return float(np.mean([tau for tau, _ in correlations(score, accuracy, rows)]))


def perplexity_table() -> str:
    table = pq.read_table(DATA / "hw_gpt_bench" / "gpt_s.parquet", columns=["arch", "perplexity"])
    words = [text.replace("false", "False").replace("true", "True") for text in table["arch"].to_pylist()]
    found = [ast.literal_eval(text) for text in words]
    perplexity = table["perplexity"].to_numpy()
    width, layers = (np.array([one[place] for one in found], float) for place in (0, 1))
    heads, ratios = (np.array([sum(one[place][: one[1]]) for one in found], float) for place in (2, 3))
    attention, mlp = 4 * width**2 * layers, 2 * width**2 * ratios
    inside = attention + mlp
    macs = inside + 2 * CONTEXT * width * layers + VOCABULARY * width
    scores = {
        "non-embedding parameters": inside,
        "all parameters": inside + (VOCABULARY + CONTEXT) * width,
        "MACs per token": macs,
        "width": width,
        "layers": layers,
        "width x layers": width * layers,
        "parameters of the MLPs": mlp,
        "parameters of attention": attention,
        "heads": heads,
        "attention maps: heads x width": heads * width,
        "non-embedding parameters x heads per layer ^ 1/4": inside * (heads / layers) ** 0.25,
        "**non-embedding parameters x heads per layer ^ 1/2**": inside * (heads / layers) ** 0.5,
        "non-embedding parameters x heads per layer": inside * (heads / layers),
        "MACs per token x heads per layer ^ 1/2": macs * (heads / layers) ** 0.5,
    }
    halves = np.arange(len(width)) % 2 == 0
    lines = [
        f"Kendall tau / Spearman rho with the perplexity of {len(width):,} GPT-2 variants, sign turned. The exponent was "
        "guessed from a regression over all rows.",
        "",
        "| score | all | first half | second half |",
        "|---|---|---|---|",
    ]
    for name, score in scores.items():
        cells = [
            f"{kendalltau(score[rows], -perplexity[rows]).statistic:.3f} / "
            f"{spearmanr(score[rows], -perplexity[rows]).statistic:.3f}"
            for rows in (np.ones_like(halves), halves, ~halves)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    (HERE / "table.md").write_text(proxies_table() + "\n" + choices())
    (HERE / "perplexity.md").write_text(perplexity_table())
