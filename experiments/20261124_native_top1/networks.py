"""The trained networks of the experiment: `networks.py --data FOLDER` trains those that are not there yet."""

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
from nas.data.plain_text import TinyShakespeare
from search_spaces.block_space import BlockSpace
from search_spaces.convnet import ConvNet
from search_spaces.decoder import Decoder
from search_spaces.hybrid import Hybrid
from search_spaces.transformer import Transformer

ROOT = Path("runs/experiments/native_top1")
PICTURES = {"epochs": 6, "batch_size": 64, "augment": "crop_flip", "bf16": True, "patience": None}
TEXTS = {"epochs": 6, "batch_size": 64, "patience": None}
LANGUAGE = {
    "epochs": 1,
    "warmup_epochs": 0.2,
    "batch_size": 16,
    "label_smoothing": 0.0,
    "learning_rate": 0.002,
    "patience": None,
}
ATTENTION = {"heads": [4], "kv_heads": [4], "head_sizes": [16], "poolings": ["mean"]}


def pictures(root: Path) -> Dataset:
    """Return 10,000 pictures of CIFAR-10 to train on."""
    return Cifar10(str(root / "cifar10"), [32], train_images=10_000, validation_images=2_000).load()


def intents(root: Path) -> Dataset:
    """Return CLINC150 as published, intents and out of scope."""
    return Clinc150(str(root / "clinc150")).load()


def shakespeare(root: Path) -> Dataset:
    """Return Tiny Shakespeare in tokens of 1,024."""
    return TinyShakespeare(str(root / "tiny_shakespeare")).load()


def picture_transformer(dataset: Dataset) -> BlockSpace:
    """Return 4 layers of 64 features on 64 patches."""
    lists: dict[str, Any] = {**ATTENTION, "patches": [4], "widths": [64], "depths": [4], "mlp_ratios": [2]}
    return Transformer(dataset.task, [32], **lists, activations=["gelu"], norms=["layernorm"], precisions=["int8"])


def wide_transformer(dataset: Dataset) -> BlockSpace:
    """Return the same with heads of 64 features, wider than those that the spaces offer."""
    lists: dict[str, Any] = {
        **{"patches": [4], "widths": [64], "depths": [4], "mlp_ratios": [2], "heads": [2], "kv_heads": [2]},
        **{"head_sizes": [64], "poolings": ["mean"], "activations": ["gelu"], "norms": ["layernorm"]},
    }
    return Transformer(dataset.task, [32], **lists, precisions=["int8"])


def long_transformer(dataset: Dataset) -> BlockSpace:
    """Return 3 layers with such heads on 256 patches, whose attention is computed in 16 bits."""
    lists: dict[str, Any] = {
        **{"patches": [2], "widths": [64], "depths": [3], "mlp_ratios": [2], "heads": [2], "kv_heads": [2]},
        **{"head_sizes": [64], "poolings": ["mean"], "activations": ["gelu"], "norms": ["layernorm"]},
    }
    return Transformer(dataset.task, [32], **lists, precisions=["int8"])


def text_transformer(dataset: Dataset) -> BlockSpace:
    """Return 3 layers of 64 features on 24 tokens, two heads sharing keys."""
    lists: dict[str, Any] = {**ATTENTION, "kv_heads": [2], "widths": [64], "depths": [3], "mlp_ratios": [4]}
    return Transformer(
        dataset.task, lengths=[24], **lists, activations=["gelu"], norms=["rmsnorm"], precisions=["int8"]
    )


def hybrid(dataset: Dataset) -> BlockSpace:
    """Return two stages of convolutions and two layers of attention among 64 pixels."""
    convolutions: dict[str, Any] = {
        **{"stem_widths": [16], "strides": ["122"], "widths": [[24], [48]], "depths": [2], "blocks": ["mbconv"]},
        **{"kernels": [3], "expansions": [4], "squeeze_ratios": [0.0], "activations": ["hswish"]},
    }
    lists: dict[str, Any] = {**ATTENTION, "patches": [1], "token_widths": [64], "layers": [2], "mlp_ratios": [2]}
    return Hybrid(dataset.task, [32], **convolutions, **lists, norms=["layernorm"], precisions=["int8"])


def decoder(dataset: Dataset) -> BlockSpace:
    """Return 3 layers of 128 features with a context of 128 tokens, two heads sharing keys."""
    lists: dict[str, Any] = {
        **{"widths": [128], "depths": [3], "heads": [4], "kv_heads": [2], "head_sizes": [32], "mlp_ratios": [4]},
        **{"activations": ["gelu"], "norms": ["layernorm"], "embeddings": ["tied"], "precisions": ["int8"]},
    }
    return Decoder(dataset.task, contexts=[128], **lists)


def convnet(dataset: Dataset) -> BlockSpace:
    """Return three stages of convolutions without attention, for comparison."""
    lists: dict[str, Any] = {
        **{"stem_widths": [16], "strides": ["1222"], "widths": [[24], [48], [96]], "depths": [1], "kernels": [3]},
        **{"blocks": ["mbconv"], "expansions": [4], "squeeze_ratios": [0.25], "activations": ["hswish"]},
    }
    return ConvNet(dataset.task, [32], **lists, head_widths=[0], precisions=["int8"])


Parts = tuple[Callable[[Path], Dataset], Callable[[Dataset], BlockSpace], Mapping[str, Any]]
NETWORKS: Mapping[str, Parts] = {
    "transformer_clinc150": (intents, text_transformer, TEXTS),
    "transformer_cifar10": (pictures, picture_transformer, PICTURES),
    "wide_cifar10": (pictures, wide_transformer, PICTURES),
    "long_cifar10": (pictures, long_transformer, PICTURES),
    "hybrid_cifar10": (pictures, hybrid, PICTURES),
    "decoder_shakespeare": (shakespeare, decoder, LANGUAGE),
    "convnet_cifar10": (pictures, convnet, PICTURES),
}


def trained(name: str, root: Path) -> Trained:
    """Return one of ``NETWORKS``, trained."""
    load, space, recipe = NETWORKS[name]
    dataset = load(root)
    return train_once(space(dataset), dataset, recipe, ROOT / name)


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10, clinc150 and tiny_shakespeare")
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    for name in arguments.names:
        report = trained(name, arguments.data).report
        scores = {key: report[key] for key in ("accuracy_fp32", "perplexity_fp32", "parameters", "seconds")}
        print(name, scores, flush=True)


if __name__ == "__main__":
    main()
