"""Torch modules of NAS-Bench-201's blocks; module paths are those of the ops in :mod:`search_spaces.nasbench201`."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from search_spaces.cells import Cell, CellHead, CellStage, Reduction
from search_spaces.layers import build_block, conv_unit, make_linear
from search_spaces.specs import ConvUnit


def relu_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return ReLU, convolution and batch norm; the ReLU is not in place, since other edges read its input."""
    conv, norm, _ = conv_unit(ConvUnit(inputs, outputs, kernel, stride, "none"))
    return nn.Sequential(OrderedDict(act=nn.ReLU(), conv=conv, norm=norm))


class CellModule(nn.Module):
    """Edges between four nodes; those that carry nothing are left out."""

    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        self.edges = tuple((written, read, f"node{written}_from{read}") for written, read, _ in cell.live)
        for (_, _, name), (_, _, operation) in zip(self.edges, cell.live, strict=True):
            self.add_module(name, _edge(operation, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        nodes = {0: x}
        for written, read, name in self.edges:
            made = self.get_submodule(name)(nodes[read])
            nodes[written] = nodes[written] + made if written in nodes else made
        return nodes[3]


def _edge(operation: str, channels: int) -> nn.Module:
    if operation == "skip_connect":
        return nn.Identity()
    if operation == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return relu_conv(channels, channels, int(operation[-1]))


class ReductionBlock(nn.Module):
    """Two convolutions beside a pooled and projected shortcut, without an activation behind the sum."""

    def __init__(self, spec: Reduction) -> None:
        super().__init__()
        outputs = 2 * spec.inputs
        self.conv1 = relu_conv(spec.inputs, outputs, 3, 2)
        self.conv2 = relu_conv(outputs, outputs, 3)
        # As published: the projection has neither a norm nor a bias.
        projection = nn.Conv2d(spec.inputs, outputs, 1, bias=False)
        self.shortcut = nn.Sequential(OrderedDict(pool=nn.AvgPool2d(2, 2), conv=projection))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, 2 * inputs, height / 2, width / 2)."""
        out: Tensor = self.shortcut(x) + self.conv2(self.conv1(x))
        return out


@build_block.register
def _(spec: CellStage) -> nn.Module:
    cells = (CellModule(spec.cell, spec.channels) for _ in range(spec.cells))
    return nn.Sequential(OrderedDict((f"cell{index}", cell) for index, cell in enumerate(cells)))


@build_block.register
def _(spec: CellHead) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["norm"] = nn.BatchNorm2d(spec.inputs)
    parts["act"] = nn.ReLU()
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["classifier"] = make_linear(spec.inputs, spec.classes)
    return nn.Sequential(parts)


build_block.register(Reduction, ReductionBlock)
