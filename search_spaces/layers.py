"""From block descriptions to torch modules; this and ``cell_layers`` are all of the spaces that import torch.

Module paths are those of :mod:`search_spaces.lowering`, so that an ONNX node, a lowered op and a torch module of one
network share their name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.specs import (
    Attention,
    Bottleneck,
    ConvUnit,
    Mlp,
    Network,
    PatchStem,
    PooledHead,
    Residual,
    TokenHead,
    TokenStem,
)

# A residual branch starts small (Goyal et al. 2017, section 5.1, start at 0). Not 0: a branch of zeros hides from
# zero-cost proxies and gives the quantizer empty ranges when an untrained network is timed.
BRANCH_GAIN = 0.2


def assemble(network: Network) -> nn.Sequential:
    """Return the network with fresh weights; its children carry the names of the blocks."""
    return nn.Sequential(OrderedDict((name, build_block(spec)) for name, spec in network.blocks))


@singledispatch
def build_block(spec: Any) -> nn.Module:
    """Return the module of one block; register a function per kind of block."""
    raise TypeError(f"no layer for {type(spec).__name__}; register one with build_block.register")


def make_activation(name: str) -> nn.Module:
    """Return the activation module; in place where its input is needed by nobody else."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "relu": lambda: nn.ReLU(inplace=True),
        "relu6": lambda: nn.ReLU6(inplace=True),
        "hswish": lambda: nn.Hardswish(inplace=True),
        "silu": lambda: nn.SiLU(inplace=True),
        "gelu": nn.GELU,
    }
    return makers[name]()


def make_norm(name: str, width: int) -> nn.Module:
    """Return a norm over the last axis, ``layernorm`` or ``rmsnorm``."""
    return nn.LayerNorm(width, eps=1e-6) if name == "layernorm" else nn.RMSNorm(width, eps=1e-6)


@build_block.register
def conv_unit(spec: ConvUnit, gain: float = 1.0) -> nn.Sequential:
    """Return convolution, batch norm and activation.

    Args:
        spec: of the unit.
        gain: initial scale of the batch norm.
    """
    conv = nn.Conv2d(
        spec.inputs, spec.outputs, spec.kernel, spec.stride, spec.kernel // 2, groups=spec.groups, bias=False
    )
    # fan_out over the channels that one input channel reaches, which torch does not divide by the groups.
    fan_out = spec.kernel**2 * spec.outputs / spec.groups
    nn.init.normal_(conv.weight, std=(2.0 / fan_out) ** 0.5)
    norm = nn.BatchNorm2d(spec.outputs)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm, act=make_activation(spec.activation)))


def make_linear(inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """Return a linear layer with truncated normal weights of deviation ``gain / sqrt(inputs)`` and zero bias."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    std = gain * inputs**-0.5
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means (Hu et al. 2018, equations 2 to 4)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gate


def _squeeze(channels: int, hidden: int) -> nn.Module:
    return SqueezeExcite(channels, hidden) if hidden else nn.Identity()


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, spec: Residual) -> None:
        super().__init__()
        first = ConvUnit(spec.inputs, spec.outputs, spec.kernel, spec.stride, spec.activation)
        self.conv1 = conv_unit(first)
        self.conv2 = conv_unit(ConvUnit(spec.outputs, spec.outputs, spec.kernel, 1, "none"), BRANCH_GAIN)
        self.squeeze = _squeeze(spec.outputs, spec.squeeze)
        projection = ConvUnit(spec.inputs, spec.outputs, 1, spec.stride, "none")
        self.shortcut = conv_unit(projection) if spec.projects else nn.Identity()
        self.act = make_activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        out: Tensor = self.act(self.squeeze(self.conv2(self.conv1(x))) + self.shortcut(x))
        return out


class BottleneckBlock(nn.Module):
    """Widen, filter, narrow; see :class:`search_spaces.specs.Bottleneck`."""

    def __init__(self, spec: Bottleneck) -> None:
        super().__init__()
        self.adds_input = spec.adds_input
        middle = spec.hidden if spec.widens or not spec.fused else spec.outputs
        self.expand: nn.Module = nn.Identity()
        self.depthwise: nn.Module = nn.Identity()
        self.project: nn.Module = nn.Identity()
        if spec.fused:
            self.expand = conv_unit(ConvUnit(spec.inputs, middle, spec.kernel, spec.stride, spec.activation))
        else:
            if spec.widens:
                self.expand = conv_unit(ConvUnit(spec.inputs, middle, 1, 1, spec.activation))
            unit = ConvUnit(middle, middle, spec.kernel, spec.stride, spec.activation, groups=middle)
            self.depthwise = conv_unit(unit)
        self.squeeze = _squeeze(middle, spec.squeeze)
        if not spec.fused or spec.widens:
            gain = BRANCH_GAIN if spec.adds_input else 1.0
            self.project = conv_unit(ConvUnit(middle, spec.outputs, 1, 1, "none"), gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        out: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return out + x if self.adds_input else out


class PatchEmbedding(nn.Module):
    """Pictures to rows of tokens."""

    def __init__(self, spec: PatchStem) -> None:
        super().__init__()
        self.shape = (-1, spec.width, spec.tokens)
        self.conv = nn.Conv2d(spec.channels, spec.width, spec.patch, spec.patch)
        self.table = nn.Parameter(torch.empty(spec.tokens, spec.width))
        nn.init.trunc_normal_(self.table, std=0.02, a=-0.04, b=0.04)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch * tokens, width)."""
        tokens: Tensor = self.conv(x).reshape(self.shape).transpose(1, 2) + self.table
        return tokens.reshape(-1, self.shape[1])


class TokenEmbedding(nn.Module):
    """Token numbers to rows of features."""

    def __init__(self, spec: TokenStem) -> None:
        super().__init__()
        self.width = spec.width
        self.embed = nn.Embedding(spec.vocabulary, spec.width)
        self.table = nn.Parameter(torch.empty(spec.tokens, spec.width))
        for weight in (self.embed.weight, self.table):
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, tokens) to (batch * tokens, width)."""
        rows: Tensor = self.embed(tokens) + self.table
        return rows.reshape(-1, self.width)


class AttentionBlock(nn.Module):
    """Softmax(q k^T / sqrt(head_size)) v, the queries of a group stacked so that no key is repeated."""

    def __init__(self, spec: Attention) -> None:
        super().__init__()
        self.spec = spec
        self.scale = spec.head_size**-0.5
        self.norm = make_norm(spec.norm, spec.width)
        self.qkv = make_linear(spec.width, (spec.heads + 2 * spec.kv_heads) * spec.head_size)
        self.out = make_linear(spec.heads * spec.head_size, spec.width, BRANCH_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch * tokens, width) to the same shape."""
        heads, kv_heads, tokens, size = self.spec.heads, self.spec.kv_heads, self.spec.tokens, self.spec.head_size
        joint = self.qkv(self.norm(x)).reshape(-1, tokens, heads + 2 * kv_heads, size).transpose(1, 2)
        query, key, value = joint.split((heads, kv_heads, kv_heads), dim=1)
        grouped = heads > kv_heads
        if grouped:
            query = query.reshape(-1, kv_heads, heads // kv_heads * tokens, size)
        scores = torch.matmul(query * self.scale, key.transpose(-2, -1))
        mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
        if grouped:
            mixed = mixed.reshape(-1, heads, tokens, size)
        rows = mixed.transpose(1, 2).reshape(-1, heads * size)
        out: Tensor = x + self.out(rows)
        return out


class MlpBlock(nn.Module):
    """Two linear layers with an activation between them, input added."""

    def __init__(self, spec: Mlp) -> None:
        super().__init__()
        self.norm = make_norm(spec.norm, spec.width)
        self.fc1 = make_linear(spec.width, spec.hidden)
        self.act = make_activation(spec.activation)
        self.fc2 = make_linear(spec.hidden, spec.width, BRANCH_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch * tokens, width) to the same shape."""
        out: Tensor = x + self.fc2(self.act(self.fc1(self.norm(x))))
        return out


class TokenClassifier(nn.Module):
    """Norm, pooling over tokens, classifier."""

    def __init__(self, spec: TokenHead) -> None:
        super().__init__()
        self.spec = spec
        self.norm = make_norm(spec.norm, spec.width)
        if spec.pooling == "attention":
            # No bias: a constant added to every score leaves the softmax as it is.
            self.score = make_linear(spec.width, 1, BRANCH_GAIN, bias=False)
        self.classifier = make_linear(spec.width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch * tokens, width) to logits of shape (batch, classes)."""
        tokens, width = self.spec.tokens, self.spec.width
        rows = self.norm(x)
        if self.spec.pooling == "mean":
            pooled = rows.reshape(-1, tokens, width).mean(dim=1)
        else:
            weights = torch.softmax(self.score(rows).reshape(-1, 1, tokens), dim=-1)
            pooled = torch.matmul(weights, rows.reshape(-1, tokens, width)).reshape(-1, width)
        out: Tensor = self.classifier(pooled)
        return out


@build_block.register
def _(spec: PooledHead) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.hidden:
        parts["conv"] = conv_unit(ConvUnit(spec.inputs, spec.hidden, 1, 1, spec.activation))
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["classifier"] = make_linear(spec.hidden or spec.inputs, spec.classes)
    return nn.Sequential(parts)


build_block.register(Residual, ResidualBlock)
build_block.register(Bottleneck, BottleneckBlock)
build_block.register(PatchStem, PatchEmbedding)
build_block.register(TokenStem, TokenEmbedding)
build_block.register(Attention, AttentionBlock)
build_block.register(Mlp, MlpBlock)
build_block.register(TokenHead, TokenClassifier)
