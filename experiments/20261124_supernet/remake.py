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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from nas.accuracy.supernet import Supernet
from nas.accuracy.training import ShortTraining
from nas.architecture import Architecture
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
        seed: of the draw of architectures.
        alone_of: the setting with the same architectures whose trainings alone are taken.
        supernet_of: the setting with the same supernet, whose seconds of training are taken.
        epochs: over which networks cut out are trained on for another score; 0 for none.
        brief: a short training alone for another score, from other first weights than ``alone`` has.
    """

    title: str
    load: Callable[[], Dataset]
    space: Callable[[Dataset], SearchSpace]
    supernet: Supernet
    alone: ShortTraining
    count: int = 24
    seed: int = 0
    alone_of: str | None = None
    supernet_of: str | None = None
    epochs: int = 0
    brief: ShortTraining | None = None

    def architectures(self, space: SearchSpace) -> list[Architecture]:
        """Draw them."""
        rng = np.random.default_rng(self.seed)
        return [space.sample(rng) for _ in range(self.count)]

    def scores(self) -> dict[str, Supernet]:
        """Name what gives a network its part of the shared weights, and trains it on from there where asked."""
        tuned = replace(self.supernet, finetune_epochs=self.epochs)
        return {"shared": self.supernet} | ({"tuned": tuned} if self.epochs else {})


def digits() -> Dataset:
    return Digits(resolutions=(8,)).load()


def cifar10() -> Dataset:
    return Cifar10(str(DATA / "cifar10"), (16,), 5000, 2000, 64).load()


def more_cifar10() -> Dataset:
    return Cifar10(str(DATA / "cifar10"), (16,), 20000, 5000, 64).load()


def same(passes: int, batch_size: int, learning_rate: float) -> tuple[Supernet, ShortTraining]:
    """Return both trainings by one recipe: a network alone has as many epochs as the supernet has passes."""
    recipe = {"batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": 0.01, "label_smoothing": 0.1}
    return Supernet(folder=FOLDER, passes=passes, **recipe), ShortTraining(epochs=passes, patience=None, **recipe)


def default(passes: int) -> Supernet:
    """Return a supernet by the default recipe but for its passes."""
    return Supernet(folder=FOLDER, passes=passes)


def cifar10_setting(passes: int, seed: int = 0, alone_of: str | None = None, supernet_of: str | None = None) -> Setting:
    """Return a setting in which networks alone are trained for 20 epochs, by the recipe of the supernet."""
    drawn = "" if seed == 0 else ", others drawn"
    return Setting(
        f"convnet, CIFAR-10, 5,000 pictures at 16x16; {passes} passes, alone 20 epochs by the same recipe{drawn}",
        cifar10,
        lambda data: ConvNet(data.task, (16,), stem_widths=(4, 8), **CONVNET),
        same(passes, 32, 8e-3)[0],
        same(20, 32, 8e-3)[1],
        seed=seed,
        alone_of=alone_of,
        supernet_of=supernet_of,
        epochs=1,
        brief=same(2, 32, 8e-3)[1],
    )


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
    "convnet_cifar10_longer": cifar10_setting(20),
    "convnet_cifar10_60": cifar10_setting(60, alone_of="convnet_cifar10_longer"),
    "convnet_cifar10_150": cifar10_setting(150, alone_of="convnet_cifar10_longer"),
    "convnet_cifar10_others": cifar10_setting(150, seed=1, supernet_of="convnet_cifar10_150"),
    "convnet_cifar10_more": Setting(
        "convnet, CIFAR-10, 20,000 pictures at 16x16; 15 passes, alone 15 epochs by the same recipe",
        more_cifar10,
        lambda data: ConvNet(data.task, (16,), stem_widths=(4, 8), **CONVNET),
        *same(15, 32, 8e-3),
        epochs=1,
        brief=same(2, 32, 8e-3)[1],
    ),
}


def run(name: str, setting: Setting) -> None:
    torch.set_num_threads(1)
    data, path = setting.load(), HERE / f"{name}.jsonl"
    space, rows = setting.space(data), read(path)
    began = time.process_time()
    setting.supernet.prepare(space, data, seed=0)
    key, seconds = setting.supernet.key, time.process_time() - began
    if setting.supernet_of is not None:
        seconds = supernet_seconds(read(HERE / f"{setting.supernet_of}.jsonl"))
    if not any("supernet_s" in row and row["shared_key"] == key for row in rows):
        rows = [row for row in rows if "id" in row]
        rows.append({"shared_key": key, "supernet_s": seconds})
    if setting.alone_of is not None:
        take_alone(rows, read(HERE / f"{setting.alone_of}.jsonl"))
    for architecture in setting.architectures(space):
        row = next((row for row in rows if row.get("id") == architecture.id), None)
        if row is None:
            graph = space.lower(architecture)
            row = {"id": architecture.id, "macs": graph.macs, "params": graph.parameters}
            rows.append(row)
        fill(row, setting, space, architecture, data)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def supernet_seconds(rows: list[ROW]) -> float:
    return next(float(row["supernet_s"]) for row in rows if "supernet_s" in row)


def take_alone(rows: list[ROW], others: list[ROW]) -> None:
    """Add rows with the trainings alone of another setting where they are not among the rows."""
    known = {row.get("id") for row in rows}
    told = {"id", "macs", "params"} | {f"{name}{end}" for name in ("alone", "brief") for end in ("", "_key", "_s")}
    new = [row for row in others if "id" in row and row["id"] not in known]
    rows += [{name: value for name, value in row.items() if name in told} for row in new]


def fill(row: ROW, setting: Setting, space: SearchSpace, architecture: Architecture, data: Dataset) -> None:
    """Fill in what a row lacks."""
    encoding = data.preprocessing(*space.input_size(architecture))
    for name, supernet in setting.scores().items():
        if row.get(f"{name}_key") != supernet.key:
            torch.manual_seed(0)
            module, began = space.build(architecture), time.process_time()
            found = supernet.adopt(module, space, architecture, data, encoding, seed=0).accuracy_fp32
            row |= {f"{name}_key": supernet.key, name: found, f"{name}_s": time.process_time() - began}
    for name, training, seed in (("brief", setting.brief, 1), ("alone", setting.alone, 0)):
        if training is not None and row.get(f"{name}_key") != training.key:
            torch.manual_seed(seed)
            module, began = space.build(architecture), time.process_time()
            found = training.train(module, data, encoding, seed=seed).accuracy_fp32
            row |= {f"{name}_key": training.key, name: found, f"{name}_s": time.process_time() - began}


def read(path: Path) -> list[ROW]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(name: str, setting: Setting) -> list[str]:
    rows = read(HERE / f"{name}.jsonl")
    found = [row for row in rows if "id" in row]
    if len(found) < 2:
        return []
    # A training that was cut and gone on with has its time in parts, of which only the last was noted.
    supernet_s = supernet_seconds(rows)
    scores, alone = list(setting.scores()), column(found, "alone")
    costs = {one: f"{supernet_s:.0f} training + {column(found, f'{one}_s').sum():.0f} scoring" for one in scores}
    if setting.brief is not None:
        scores.append("brief")
        costs["brief"] = f"{column(found, 'brief_s').sum():.0f}"
    lines = [
        f"{setting.title}; {len(found)} architectures.",
        "",
        "| score | Spearman rho | Kendall tau | mean accuracy | processor seconds, all |",
        "|---|---|---|---|---|",
    ]
    for score in (*scores, "macs", "params"):
        rho, tau = (rank(column(found, score), alone).statistic for rank in (spearmanr, kendalltau))
        mean = f"{column(found, score).mean():.3f}" if score in scores else ""
        lines.append(f"| {score} | {rho:.3f} | {tau:.3f} | {mean} | {costs.get(score, 0)} |")
    lines.append(f"| alone | | | {alone.mean():.3f} | {column(found, 'alone_s').sum():.0f} |")
    return [*lines, ""]


def column(rows: list[ROW], name: str) -> NDArray[np.float64]:
    return np.array([float(row[name]) for row in rows])


def main(names: list[str]) -> None:
    for name in names:
        run(name, SETTINGS[name])
    lines = ["Rank correlation of each score with the validation accuracy of networks trained alone.", ""]
    for name, setting in SETTINGS.items():
        lines += table(name, setting)
    (HERE / "table.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETTINGS))
