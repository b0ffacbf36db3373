"""The network of the experiment: a residual convnet of 1.2 million parameters, trained on CIFAR-10 at 16 x 16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nas.accuracy.training import ShortTraining
from nas.architecture import Architecture
from nas.data import ImageDataset
from nas.data.cifar10 import Cifar10
from nas.quantize.torch_to_onnx import export_example
from search_spaces.convnet import ConvNet

SIDE = 16
RECIPE = ShortTraining(
    **{"epochs": 8, "batch_size": 64, "learning_rate": 0.003, "augment": "crop_flip", "bf16": True, "patience": None}
)


def load(folder: Path) -> ImageDataset:
    """Read 40,000 pictures to train on, 5,000 to choose by and 10,000 to test."""
    return Cifar10(str(folder), [SIDE], train_images=40_000, validation_images=5_000).load()


def network(dataset: ImageDataset) -> tuple[ConvNet, Architecture]:
    """Return the space that holds the one network, and the network."""
    space = ConvNet(
        dataset.task,
        [SIDE],
        stem_widths=[32],
        strides=["1222"],
        widths=[[64], [128], [256]],
        depths=[1],
        blocks=["residual"],
        dense_kernels=[3],
        activations=["relu"],
        squeeze_ratios=[0.0],
        head_widths=[0],
        precisions=["int8"],
    )
    return space, space.sample(np.random.default_rng(0))


def train_once(dataset: ImageDataset, target: Path) -> None:
    """Train and write the float network unless it is there."""
    if target.exists():
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space, architecture = network(dataset)
    module = space.build(architecture)
    encoding = dataset.preprocessing(SIDE, SIDE)
    result = RECIPE.train(module, dataset, encoding, seed=0)
    print(result, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    export_example(module, target, encoding.example())
