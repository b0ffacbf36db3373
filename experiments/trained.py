"""One network, trained once with the project's recipe, exported, and quantized in stated precisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.accuracy.training import ShortTraining
from nas.architecture import Architecture, Precision
from nas.data import Dataset, Encoding
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from search_spaces.block_space import BlockSpace

CALIBRATION = 256


@dataclass(frozen=True)
class Trained:
    """A network with trained weights.

    Args:
        architecture: the only one of its space, so the precisions that it names are the blocks.
        dataset: on which it was trained.
        encoding: of its input.
        fp32: exported file.
        report: of the training.
    """

    architecture: Architecture
    dataset: Dataset
    encoding: Encoding
    fp32: Path
    report: Mapping[str, Any]

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks that have a precision, in the order of the network."""
        return list(self.architecture.precision)

    def quantized(self, name: str, precision: Mapping[str, Precision]) -> Path:
        """Return the file of these precisions, written unless it is there."""
        path = self.fp32.with_name(f"{name}.onnx")
        if not path.is_file():
            calibration, _ = self.dataset.some("train", self.encoding, CALIBRATION)
            quantize_static(self.fp32, path, calibration, precision, Precision.FP32)
        return path


def train_once(space: BlockSpace, dataset: Dataset, recipe: Mapping[str, Any], folder: Path) -> Trained:
    """Train, export and note the report unless that is done, always to the same weights on one thread.

    Args:
        space: with one option per gene.
        dataset: posing the space's task.
        recipe: arguments of ``ShortTraining``.
        folder: of the files; changed settings need another one.
    """
    architecture = space.sample(np.random.default_rng(0))
    encoding = dataset.preprocessing(*space.input_size(architecture))
    fp32, noted = folder / "model_fp32.onnx", folder / "training.json"
    if not noted.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        module = space.build(architecture)
        result = ShortTraining(**recipe).train(module, dataset, encoding, seed=0)
        export_example(module, fp32, encoding.example())
        parameters = sum(parameter.numel() for parameter in module.parameters())
        noted.write_text(json.dumps({**asdict(result), "parameters": parameters}))
    return Trained(architecture, dataset, encoding, fp32, json.loads(noted.read_text()))
