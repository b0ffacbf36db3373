"""The networks of more than a million parameters: `networks.py --data FOLDER` trains those that are not there yet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trained import Trained, train_once

from nas.data import Dataset
from nas.data.cifar10 import Cifar10
from nas.data.clinc150 import Clinc150
from search_spaces.block_space import BlockSpace
from search_spaces.convnet import ConvNet
from search_spaces.transformer import Transformer

ROOT = Path("runs/experiments/int4_size")
PICTURES = {"epochs": 10, "batch_size": 64, "learning_rate": 0.003, "augment": "crop_flip", "bf16": True}
TEXTS = {"epochs": 6, "batch_size": 64, "learning_rate": 0.001}


def pictures(root: Path) -> Dataset:
    """Return CIFAR-10 at 16 pixels: 45,000 to train on, 5,000 to choose by, 10,000 to test."""
    return Cifar10(str(root / "cifar10"), [16], train_images=45_000, validation_images=5_000).load()


def intents(root: Path) -> Dataset:
    """Return CLINC150 as published, intents and out of scope."""
    return Clinc150(str(root / "clinc150")).load()


def convnet(dataset: Dataset) -> BlockSpace:
    """Return a stem of 32 channels and three residual blocks of 64, 128 and 256."""
    lists: dict[str, Any] = {
        **{"stem_widths": [32], "strides": ["1222"], "widths": [[64], [128], [256]], "depths": [1]},
        **{"blocks": ["residual"], "dense_kernels": [3], "activations": ["relu"], "squeeze_ratios": [0.0]},
    }
    return ConvNet(dataset.task, [16], **lists, head_widths=[0], precisions=["int8"])


def transformer(dataset: Dataset) -> BlockSpace:
    """Return 4 layers of 128 features on 24 tokens."""
    lists: dict[str, Any] = {
        **{"widths": [128], "depths": [4], "heads": [4], "kv_heads": [4], "head_sizes": [32], "mlp_ratios": [4]},
        **{"activations": ["gelu"], "norms": ["layernorm"], "poolings": ["mean"], "precisions": ["int8"]},
    }
    return Transformer(dataset.task, lengths=[24], **lists)


Parts = tuple[Callable[[Path], Dataset], Callable[[Dataset], BlockSpace], Mapping[str, Any]]
NETWORKS: Mapping[str, Parts] = {
    "convnet_cifar10": (pictures, convnet, PICTURES),
    "transformer_clinc150": (intents, transformer, TEXTS),
}


def trained(name: str, root: Path) -> Trained:
    """Return one of ``NETWORKS``, trained."""
    load, space, recipe = NETWORKS[name]
    dataset = load(root)
    return train_once(space(dataset), dataset, {**recipe, "patience": None}, ROOT / name)


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10 and clinc150")
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    for name in arguments.names:
        report = trained(name, arguments.data).report
        scores = {key: report[key] for key in ("accuracy_fp32", "parameters", "seconds")}
        print(name, scores, flush=True)


if __name__ == "__main__":
    main()
