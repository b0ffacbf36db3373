"""Well-known networks with random weights, as quantized ONNX files of batch 1: what runtimes are compared on.

Weights do not decide how long a network takes, and a runtime that equals another one on random weights does so on
trained ones. Batch norms see a few random pictures first, so that activations have sane ranges.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.architecture import Precision
from nas.quantize.static import quantize_static

_OPSET = 20


def conv_unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Return a convolution, its batch norm and, with ``act``, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU6()] if act else []))


class InvertedBottleneck(nn.Module):
    """1x1 to ``expansion`` times the channels, depthwise, 1x1 back (Sandler et al. 2018, figure 4)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        first = [conv_unit(inputs, hidden, 1)] if expansion > 1 else []
        depthwise = conv_unit(hidden, hidden, kernel, stride, groups=hidden)
        self.layers = nn.Sequential(*first, depthwise, conv_unit(hidden, outputs, 1, act=False))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Classifier(nn.Module):
    """Global average pooling and one linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        out: Tensor = self.fc(self.pool(x).flatten(1))
        return out


def _bottlenecks(stem: int, stem_stride: int, rows: tuple[tuple[int, ...], ...], classes: int) -> nn.Sequential:
    """Return stem, rows of (expansion, outputs, blocks, stride, kernel), 1x1 to 1280 and the classifier."""
    blocks: list[nn.Module] = [conv_unit(3, stem, 3, stem_stride)]
    channels = stem
    for expansion, outputs, count, stride, kernel in rows:
        for index in range(count):
            blocks.append(InvertedBottleneck(channels, outputs, kernel, stride if index == 0 else 1, expansion))
            channels = outputs
    return nn.Sequential(*blocks, conv_unit(channels, 1280, 1), Classifier(1280, classes))


def mobilenet_v2(small: bool) -> nn.Module:
    """MobileNetV2 of width 1 (Sandler et al. 2018, table 2); ``small`` keeps the first two strides at 1."""
    first = ((1, 16, 1, 1, 3), (6, 24, 2, 1 if small else 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3))
    rows = (*first, (6, 96, 3, 1, 3), (6, 160, 3, 2, 3), (6, 320, 1, 1, 3))
    return _bottlenecks(32, 1 if small else 2, rows, 10 if small else 1000)


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0: B0 (Tan and Le 2019, table 1) without squeeze-and-excite, with ReLU6."""
    first = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3))
    rows = (*first, (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
    return _bottlenecks(32, 2, rows, 1000)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, figure 5, left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = conv_unit(outputs, outputs, 3, act=False)
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else conv_unit(inputs, outputs, 1, stride, act=False)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        out: Tensor = self.act(self.second(self.first(x)) + self.shortcut(x))
        return out


def resnet18() -> nn.Module:
    """ResNet-18 (He et al. 2016, table 1)."""
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    blocks: list[nn.Module] = [stem]
    channels = 64
    for outputs, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        blocks.append(BasicBlock(channels, outputs, stride))
        channels = outputs
    return nn.Sequential(*blocks, Classifier(512, 1000))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP of four times the width with GELU (Dosovitskiy et al. 2021, equations 2 and 3)."""

    def __init__(self, width: int, heads: int, tokens: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.tokens, self.size = heads, tokens, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        mask = torch.full((tokens, tokens), -1e4).triu(1) if causal else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (tokens, width) to the same shape."""
        joint = self.qkv(self.norm1(x)).reshape(1, self.tokens, 3 * self.heads, self.size).transpose(1, 2)
        query, key, value = joint.split((self.heads, self.heads, self.heads), dim=1)
        scores = torch.matmul(query * self.size**-0.5, key.transpose(-2, -1))
        if isinstance(self.mask, Tensor):
            scores = scores + self.mask
        mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
        x = x + self.out(mixed.transpose(1, 2).reshape(self.tokens, self.heads * self.size))
        out: Tensor = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return out


class VisionTransformer(nn.Module):
    """Patches of 16 pixels, a class token, learned positions (Dosovitskiy et al. 2021; the sizes of DeiT)."""

    def __init__(self, width: int, heads: int, depth: int = 12, side: int = 224) -> None:
        super().__init__()
        patches = (side // 16) ** 2
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(patches + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, patches + 1) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 1000)
        self.width, self.patches = width, patches

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 3, side, side) to (1, 1000)."""
        rows = self.patch(x).reshape(self.width, self.patches).transpose(0, 1)
        rows = self.blocks(torch.cat([self.token, rows]) + self.positions)
        token, _ = self.norm(rows).split((1, self.patches))
        out: Tensor = self.fc(token)
        return out


class Prefill(nn.Module):
    """A causal language model over a whole prompt: the logits of the word after it."""

    def __init__(self, width: int = 384, heads: int = 6, depth: int = 6, words: int = 8192, tokens: int = 128) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, tokens, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (1, tokens) to (1, words)."""
        rows = self.blocks(self.words(tokens.flatten()) + self.positions)
        _, last = self.norm(rows).split((len(rows) - 1, 1))
        out: Tensor = self.head(last)
        return out


@dataclass(frozen=True)
class ZooNetwork:
    """How a network is made and what it takes.

    Args:
        make: builds it, with fresh random weights.
        shape: of its one input.
        tokens: the input is word numbers below 8192 instead of normal floats.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: bool = False

    def example(self, seed: int) -> Tensor:
        """Return a random input."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(0, 8192, self.shape, generator=generator)
        return torch.randn(self.shape, generator=generator)


ZOO: Mapping[str, ZooNetwork] = {
    "mobilenetv2_224": ZooNetwork(lambda: mobilenet_v2(False), (1, 3, 224, 224)),
    "mobilenetv2_96": ZooNetwork(lambda: mobilenet_v2(False), (1, 3, 96, 96)),
    "mobilenetv2_32": ZooNetwork(lambda: mobilenet_v2(True), (1, 3, 32, 32)),
    "resnet18_224": ZooNetwork(resnet18, (1, 3, 224, 224)),
    "efficientnet_lite0_224": ZooNetwork(efficientnet_lite0, (1, 3, 224, 224)),
    "vit_tiny": ZooNetwork(lambda: VisionTransformer(192, 3), (1, 3, 224, 224)),
    "deit_small": ZooNetwork(lambda: VisionTransformer(384, 6), (1, 3, 224, 224)),
    "deit_small_block": ZooNetwork(
        lambda: nn.Sequential(nn.Flatten(0, 1), TransformerBlock(384, 6, 128)), (1, 128, 384)
    ),
    "decoder_prefill": ZooNetwork(Prefill, (1, 128), tokens=True),
}


def write_zoo_model(name: str, folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write a network of ``ZOO`` as fp32 and, with 8-bit weights and activations, as quantized ONNX file.

    Args:
        name: key of ``ZOO``.
        folder: is made where missing.
        seed: of the weights and of the input that sets the activations' ranges.

    Returns:
        Paths of the fp32 and of the quantized file.
    """
    network = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network.make()
        _randomize(module, network)
    folder.mkdir(parents=True, exist_ok=True)
    fp32, quantized = folder / f"{name}_fp32.onnx", folder / f"{name}_u8s8.onnx"
    example = network.example(seed)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its own deprecation
        torch.onnx.export(
            module.eval(), (example,), str(fp32), dynamo=False, opset_version=_OPSET, input_names=["input"]
        )
    # The embedding of words is one row of a table: nothing to gain.
    quantize_static(fp32, quantized, np.asarray(example.numpy()), {"words": Precision.FP32})
    return fp32, quantized


def _randomize(module: nn.Module, network: ZooNetwork) -> None:
    """Give norms random gains and offsets, and batch norms the statistics of random pictures.

    Gains and offsets that differ also keep the exporter from storing equal tensors once.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
                nn.init.uniform_(part.weight, 0.8, 1.2)
                nn.init.uniform_(part.bias, -0.1, 0.1)
        if any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
            module.train()
            for _ in range(8):
                module(torch.randn(4, *network.shape[1:]))
