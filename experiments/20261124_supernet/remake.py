"""Does accuracy from shared weights rank as standalone training does? Digits, architectures of `convnet` drawn with seed 0.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/20261124_supernet/remake.py [ARCHITECTURES]

The supernet's file and results.jsonl are gone on with where they stopped; table.md is written anew.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr

from nas.accuracy.supernet import Supernet
from nas.accuracy.training import ShortTraining
from nas.data.digits import Digits
from search_spaces.convnet import ConvNet

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
# Small, since the machine was busy: two stages, one size of input, one activation.
SPACE = {
    **{"widths": ((4, 8, 16), (8, 16, 32)), "strides": ("122", "121", "212"), "activations": ("relu",)},
    **{"depths": (1, 2), "kernels": (3, 5), "expansions": (1, 2, 4), "head_widths": (0,)},
}
SUPERNET = Supernet(folder=str(HERE.parents[1] / "runs" / "supernets"), passes=10, batch_size=64, learning_rate=8e-3)
ALONE = ShortTraining(epochs=4, patience=None)


def main(count: int) -> None:
    torch.set_num_threads(1)
    digits = Digits(resolutions=(8,)).load()
    space = ConvNet(digits.task, (8,), **SPACE)
    began = time.process_time()
    SUPERNET.prepare(space, digits, seed=0)
    spent = time.process_time() - began
    encoding = digits.preprocessing(8, 8)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(count)]
    if not any("supernet_s" in row for row in rows):
        write(rows, {"supernet_s": spent})
    for architecture in drawn:
        if any(row.get("id") == architecture.id for row in rows):
            continue
        torch.manual_seed(0)
        module, graph = space.build(architecture), space.lower(architecture)
        began = time.process_time()
        shared = SUPERNET.adopt(module, space, architecture, digits, encoding, seed=0)
        middle = time.process_time()
        torch.manual_seed(0)
        alone = ALONE.train(space.build(architecture), digits, encoding, seed=0)
        row = {"id": architecture.id, "macs": graph.macs, "params": graph.parameters}
        row |= {"shared": shared.accuracy_fp32, "alone": alone.accuracy_fp32}
        write(rows, row | {"shared_s": middle - began, "alone_s": time.process_time() - middle})
    (HERE / "table.md").write_text(table(rows))


def write(rows: list[dict[str, float]], row: dict[str, float]) -> None:
    rows.append(row)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def table(rows: list[dict[str, float]]) -> str:
    supernet_s = next(row["supernet_s"] for row in rows if "supernet_s" in row)
    found = [row for row in rows if "id" in row]
    column = {name: np.array([float(row[name]) for row in found]) for name in found[0] if name != "id"}
    lines = [
        f"{len(found)} architectures, rank correlation with the validation accuracy of {ALONE.epochs} epochs of their own.",
        "",
        "| score | Spearman rho | Kendall tau | mean | processor seconds, all |",
        "|---|---|---|---|---|",
    ]
    costs = {
        "shared": f"{supernet_s:.0f} training + {column['shared_s'].sum():.0f} scoring",
        "macs": "0",
        "params": "0",
    }
    for name, cost in costs.items():
        rho, tau = (rank(column[name], column["alone"]).statistic for rank in (spearmanr, kendalltau))
        mean = f"{column[name].mean():.3f}" if name == "shared" else ""
        lines.append(f"| {name} | {rho:.3f} | {tau:.3f} | {mean} | {cost} |")
    lines.append(f"| alone | | | {column['alone'].mean():.3f} | {column['alone_s'].sum():.0f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
