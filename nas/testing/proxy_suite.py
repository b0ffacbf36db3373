"""What every accuracy proxy must do, as tests to inherit."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from nas.protocols import AccuracyProxy

CHANNELS, SIDE, CLASSES = 3, 8, 4


def convnet(width: int = 8, depth: int = 2) -> nn.Module:
    """Return a small convnet with batch norms and dropout, fresh weights."""
    layers: list[nn.Module] = [nn.Conv2d(CHANNELS, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(width, CLASSES))


class Attention(nn.Module):
    """One pre-norm layer of attention and MLP on patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(CHANNELS, width, 4, 4)
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(
            OrderedDict(up=nn.Linear(width, 2 * width), act=nn.GELU(), down=nn.Linear(2 * width, width))
        )
        self.last = nn.LayerNorm(width)
        self.classes = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape (batch, classes) of images of shape (batch, channels, height, width)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        query, key, value = self.heads(self.norm(tokens)).chunk(3, dim=-1)
        tokens = tokens + nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.mlp(tokens)
        logits: Tensor = self.classes(self.last(tokens).mean(dim=1))
        return logits


class ProxySuite:
    """Subclass it as ``TestMyProxy`` and return your proxy from ``make_proxy``."""

    def make_proxy(self) -> AccuracyProxy:
        """Return a fresh proxy."""
        raise NotImplementedError

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return pictures of shape (batch, channels, height, width) and labels, the same every time."""
        generator = torch.Generator().manual_seed(7)
        images = torch.randn((16, CHANNELS, SIDE, SIDE), generator=generator)
        return images, torch.arange(16) % CLASSES

    def networks(self) -> list[nn.Module]:
        """Return a convnet and a transformer with fresh weights, the same every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return [convnet(), Attention(16)]

    def test_has_a_name_that_can_be_a_metric(self) -> None:
        """The name becomes part of the key ``proxy_NAME``."""
        assert self.make_proxy().name.isidentifier()

    def test_scores_are_finite_floats(self) -> None:
        """Also in torch's inference of a network that is in eval mode."""
        images, labels = self.batch()
        for module in self.networks():
            for mode in (True, False):
                score = self.make_proxy().score(module.train(mode), images, labels)
                assert type(score) is float
                assert math.isfinite(score)

    def test_same_network_same_score(self) -> None:
        """Whatever torch's random state is."""
        images, labels = self.batch()
        for module in self.networks():
            scores = set()
            for seed in (0, 1):
                torch.manual_seed(seed)
                scores.add(self.make_proxy().score(module, images, labels))
            assert len(scores) == 1

    def test_leaves_the_network_as_it_was(self) -> None:
        """Weights, buffers, data types, mode, gradients, requires_grad and hooks."""
        images, labels = self.batch()
        for module in self.networks():
            module(images).sum().backward()
            module.train()
            next(module.parameters()).requires_grad_(False)
            before = copy.deepcopy(module)
            gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
            self.make_proxy().score(module, images, labels)
            assert [m.training for m in module.modules()] == [m.training for m in before.modules()]
            for (name, is_now), was in zip(module.state_dict().items(), before.state_dict().values(), strict=True):
                assert is_now.dtype == was.dtype, name
                assert torch.equal(is_now, was), name
            for parameter, was, gradient in zip(module.parameters(), before.parameters(), gradients, strict=True):
                assert parameter.requires_grad == was.requires_grad
                assert (parameter.grad is None) == (gradient is None)
                assert gradient is None or (parameter.grad is not None and torch.equal(parameter.grad, gradient))
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())

    def test_leaves_the_random_state_and_the_batch_as_they_were(self) -> None:
        """A proxy must not change what training does afterwards."""
        images, labels = self.batch()
        kept, state = images.clone(), torch.get_rng_state()
        for module in self.networks():
            state = torch.get_rng_state()
            self.make_proxy().score(module, images, labels)
            assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(images, kept)

    def test_tells_networks_apart(self) -> None:
        """A constant ranks nothing."""
        images, labels = self.batch()
        torch.manual_seed(0)
        scores = {self.make_proxy().score(convnet(width, depth), images, labels) for width, depth in ((4, 1), (16, 3))}
        assert len(scores) == 2

    def test_a_deep_network_does_not_overflow(self) -> None:
        """Products over many layers stay finite."""
        images, labels = self.batch()
        torch.manual_seed(0)
        assert math.isfinite(self.make_proxy().score(convnet(32, 40), images, labels))
