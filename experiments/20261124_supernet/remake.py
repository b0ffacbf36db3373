"""Does accuracy from shared weights rank as standalone training does? Architectures drawn with seed 0, setting by setting.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/20261124_supernet/remake.py [SETTING ...]

The supernet's file and each setting's <setting>.jsonl are gone on with where they stopped, and what was trained by another
recipe is trained anew; table.md is written anew.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr

from nas.accuracy.supernet import Supernet
from nas.accuracy.training import ShortTraining
from nas.data import Dataset
from nas.data.cifar10 import Cifar10
from nas.data.digits import Digits
from nas.protocols import SearchSpace
from search_spaces.convnet import ConvNet
from search_spaces.hybrid import Hybrid
from search_spaces.transformer import Transformer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = Path(os.environ.get("NAS_SHARED_DATA", ROOT.parent / "shared" / "data"))
FOLDER = str(ROOT / "runs" / "supernets")
ROW = dict[str, float | str]


@dataclass(frozen=True)
class Setting:
    """What is compared.

    Args:
        title: in words.
        load: the data.
        space: of the data.
        supernet: trained once.
        alone: the training of one network.
        count: architectures.
    """

    title: str
    load: Callable[[], Dataset]
    space: Callable[[Dataset], SearchSpace]
    supernet: Supernet
    alone: ShortTraining
    count: int = 24


def digits() -> Dataset:
    return Digits(resolutions=(8,)).load()


def cifar10() -> Dataset:
    return Cifar10(str(DATA / "cifar10"), (16,), 5000, 2000, 64).load()


def same(passes: int, batch_size: int, learning_rate: float) -> tuple[Supernet, ShortTraining]:
    """Return both trainings by one recipe: a network alone has as many epochs as the supernet has passes."""
    recipe = {"batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": 0.01, "label_smoothing": 0.1}
    return Supernet(folder=FOLDER, passes=passes, **recipe), ShortTraining(epochs=passes, patience=None, **recipe)


def default(passes: int) -> Supernet:
    """Return a supernet by the default recipe but for its passes."""
    return Supernet(folder=FOLDER, passes=passes)


# Small spaces, since the machine was busy: one size of input, one activation.
CONVNET = {
    **{"widths": ((4, 8, 16), (8, 16, 32)), "strides": ("122", "121", "212"), "activations": ("relu",)},
    **{"depths": (1, 2), "kernels": (3, 5), "expansions": (1, 2, 4), "head_widths": (0,)},
}
LAYERS = {
    **{"heads": (2, 4), "kv_heads": (1, 2), "head_sizes": (4, 8), "mlp_ratios": (1, 2, 3)},
    **{"activations": ("gelu",), "norms": ("layernorm",), "poolings": ("mean",)},
}
HYBRID = {
    **{"stem_widths": (4, 8), "widths": ((4, 8, 16),), "strides": ("11", "12"), "depths": (1, 2)},
    **{"expansions": (1, 2, 4), "patches": (1, 2), "token_widths": (8, 16, 32), "layers": (1, 2, 3)},
}
SETTINGS = {
    "convnet_digits": Setting(
        "convnet, digits; 10 passes of 64 pictures a step, alone 4 epochs by the default recipe",
        digits,
        lambda data: ConvNet(data.task, (8,), **CONVNET),
        Supernet(folder=FOLDER, passes=10, batch_size=64, learning_rate=8e-3),
        ShortTraining(epochs=4, patience=None),
    ),
    "convnet_digits_longer": Setting(
        "convnet, digits; 20 passes, alone 20 epochs by the same recipe",
        digits,
        lambda data: ConvNet(data.task, (8,), **CONVNET),
        *same(20, 32, 8e-3),
    ),
    "transformer_digits": Setting(
        "transformer, digits; 30 passes, alone 30 epochs at half the rate and 64 pictures a step",
        digits,
        lambda data: Transformer(data.task, (8,), patches=(2, 4), widths=(8, 16, 32), depths=(1, 2, 3, 4), **LAYERS),
        default(30),
        same(30, 64, 4e-3)[1],
    ),
    "hybrid_digits": Setting(
        "hybrid, digits; 40 passes, alone 15 epochs at half the rate and 64 pictures a step",
        digits,
        lambda data: Hybrid(data.task, (8,), **HYBRID, **LAYERS),
        default(40),
        same(15, 64, 4e-3)[1],
    ),
    "convnet_cifar10": Setting(
        "convnet, CIFAR-10, 5,000 pictures at 16x16; 6 passes, alone 6 epochs at half the rate and 64 pictures a step",
        cifar10,
        lambda data: ConvNet(data.task, (16,), stem_widths=(4, 8), **CONVNET),
        default(6),
        same(6, 64, 4e-3)[1],
        count=16,
    ),
    "convnet_cifar10_longer": Setting(
        "convnet, CIFAR-10, 5,000 pictures at 16x16; 20 passes, alone 20 epochs by the same recipe",
        cifar10,
        lambda data: ConvNet(data.task, (16,), stem_widths=(4, 8), **CONVNET),
        *same(20, 32, 8e-3),
    ),
}


def run(name: str, setting: Setting) -> None:
    torch.set_num_threads(1)
    data, path = setting.load(), HERE / f"{name}.jsonl"
    space, rows = setting.space(data), read(path)
    began = time.process_time()
    setting.supernet.prepare(space, data, seed=0)
    shared_key, alone_key = setting.supernet.key, setting.alone.key
    if not any("supernet_s" in row and row["shared_key"] == shared_key for row in rows):
        rows = [row for row in rows if "id" in row]
        rows.append({"shared_key": shared_key, "supernet_s": time.process_time() - began})
    rng = np.random.default_rng(0)
    for architecture in [space.sample(rng) for _ in range(setting.count)]:
        row = next((row for row in rows if row.get("id") == architecture.id), None)
        if row is None:
            graph = space.lower(architecture)
            row = {"id": architecture.id, "macs": graph.macs, "params": graph.parameters}
            rows.append(row)
        encoding = data.preprocessing(*space.input_size(architecture))
        torch.manual_seed(0)
        if row.get("shared_key") != shared_key:
            module, began = space.build(architecture), time.process_time()
            shared = setting.supernet.adopt(module, space, architecture, data, encoding, seed=0)
            row |= {"shared_key": shared_key, "shared": shared.accuracy_fp32, "shared_s": time.process_time() - began}
        torch.manual_seed(0)
        if row.get("alone_key") != alone_key:
            module, began = space.build(architecture), time.process_time()
            alone = setting.alone.train(module, data, encoding, seed=0)
            row |= {"alone_key": alone_key, "alone": alone.accuracy_fp32, "alone_s": time.process_time() - began}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path) -> list[ROW]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(name: str, setting: Setting) -> list[str]:
    rows = read(HERE / f"{name}.jsonl")
    found = [row for row in rows if "id" in row]
    if len(found) < 2:
        return []
    # A training that was cut and gone on with has its time in parts, of which only the last was noted.
    supernet_s = next(float(row["supernet_s"]) for row in rows if "supernet_s" in row)
    numbers = ("macs", "params", "shared", "shared_s", "alone", "alone_s")
    column = {name: np.array([float(row[name]) for row in found]) for name in numbers}
    lines = [
        f"{setting.title}; {len(found)} architectures.",
        "",
        "| score | Spearman rho | Kendall tau | mean accuracy | processor seconds, all |",
        "|---|---|---|---|---|",
    ]
    costs = {
        "shared": f"{supernet_s:.0f} training + {column['shared_s'].sum():.0f} scoring",
        "macs": "0",
        "params": "0",
    }
    for score, cost in costs.items():
        rho, tau = (rank(column[score], column["alone"]).statistic for rank in (spearmanr, kendalltau))
        mean = f"{column[score].mean():.3f}" if score == "shared" else ""
        lines.append(f"| {score} | {rho:.3f} | {tau:.3f} | {mean} | {cost} |")
    lines.append(f"| alone | | | {column['alone'].mean():.3f} | {column['alone_s'].sum():.0f} |")
    return [*lines, ""]


def main(names: list[str]) -> None:
    for name in names:
        run(name, SETTINGS[name])
    lines = ["Rank correlation of each score with the validation accuracy of networks trained alone.", ""]
    for name, setting in SETTINGS.items():
        lines += table(name, setting)
    (HERE / "table.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETTINGS))
