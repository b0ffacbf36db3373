"""Small models of every kind that the native runtime plans, to be damaged by the fuzzers.

Usage: scripts/fuzz_models.py FOLDER [NAME...]      writes NAME.onnx and NAME.nasq for each, in a few seconds
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from nas.architecture import Precision
from nas.data import Task
from nas.protocols import SearchSpace
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example, export_fp32
from nas.runtime.program_file import write_program
from search_spaces.convnet import ConvNet
from search_spaces.decoder import Decoder
from search_spaces.transformer import Transformer

_PICTURES = Task("image_classification", 3, 10)
_WORDS, _CONTEXT = 40, 8
_LANGUAGE = Task("language_model", channels=0, classes=_WORDS, vocabulary=_WORDS)
_FEW = {"widths": [32], "depths": [1], "heads": [2], "head_sizes": [16], "mlp_ratios": [2]}


def convnet(folder: Path, blocks: str, precision: Precision, fp32_block: bool = False) -> Path:
    """Write a convolutional network, whole in one precision but for its last block where that stays float."""
    space = ConvNet(_PICTURES, [12], stem_widths=[8], blocks=[blocks], activations=["relu", "hswish"])
    return _pictures(space, folder, precision, fp32_block)


def vision_transformer(folder: Path, side: int = 16, patches: Sequence[int] = (4,)) -> Path:
    """Write a transformer on patches of a picture: attention, layer norms and GELU."""
    return _pictures(Transformer(_PICTURES, [side], patches=list(patches)), folder, Precision.INT8, False)


def operator_format(folder: Path) -> Path:
    """Write a convolutional network in QLinear operators."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize_operators

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.left = [{"input": rng.standard_normal((1, 3, 12, 12), dtype=np.float32)} for _ in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    full = convnet(folder, "mbconv", Precision.INT8).with_name("fp32.onnx")
    path = folder / "model.onnx"
    quantize_operators(
        *(full, path, Pictures()),
        quant_format=QuantFormat.QOperator,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def decoder(folder: Path, precision: Precision, embedding: str, norm: str) -> Path:
    """Write a language model with a cache."""
    lists = {**_FEW, "kv_heads": [1], "norms": [norm], "embeddings": [embedding], "activations": ["gelu"]}
    space = Decoder(_LANGUAGE, contexts=[_CONTEXT], prompt=4, precisions=["int8"], **lists)
    architecture = space.sample(np.random.default_rng(0))
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, _WORDS, (4, _CONTEXT))
    full, path = folder / "fp32.onnx", folder / "model.onnx"
    export_example(space.build(architecture), full, tokens[:1])
    if precision is Precision.FP32:
        return full
    quantize_static(full, path, tokens, dict.fromkeys(architecture.precision, precision), Precision.FP32)
    return path


def _pictures(space: SearchSpace, folder: Path, precision: Precision, fp32_block: bool) -> Path:
    architecture = space.sample(np.random.default_rng(1))
    torch.manual_seed(0)
    network = space.build(architecture)
    side = space.input_size(architecture)[0]
    with torch.no_grad():
        network.train()
        network(torch.randn(8, 3, side, side))
    export_fp32(network, folder / "fp32.onnx", 3, side, side)
    pictures = np.random.default_rng(0).standard_normal((8, 3, side, side), dtype=np.float32)
    precisions = dict.fromkeys(architecture.precision, precision)
    if fp32_block and precisions:
        precisions[list(precisions)[-1]] = Precision.FP32
    quantize_static(folder / "fp32.onnx", folder / "model.onnx", pictures, precisions)
    return folder / "model.onnx"


MODELS: dict[str, Callable[[Path], Path]] = {
    "convnet": lambda folder: convnet(folder, "mbconv", Precision.INT8),
    "convnet_mixed": lambda folder: convnet(folder, "mbconv", Precision.INT8, fp32_block=True),
    "convnet_int4": lambda folder: convnet(folder, "residual", Precision.INT4),
    "transformer": vision_transformer,
    "transformer_long": lambda folder: vision_transformer(folder, 20, [2]),  # attention in products of 16 bits
    "qlinear": operator_format,
    "decoder": lambda folder: decoder(folder, Precision.INT8, "tied", "rmsnorm"),
    "decoder_int4": lambda folder: decoder(folder, Precision.INT4, "own", "layernorm"),
    "decoder_fp32": lambda folder: decoder(folder, Precision.FP32, "own", "layernorm"),
}


def main(folder: Path, names: list[str]) -> None:
    """Write these, or all of them."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in names or MODELS:
        work = folder / f"{name}.made"
        work.mkdir(parents=True)
        path = MODELS[name](work).rename(folder / f"{name}.onnx")
        write_program(path, folder / f"{name}.nasq")
        print(f"{name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
