import math

import numpy as np
import pytest
import torch
from torch import nn

from nas.accuracy.gradient_scores import ZiCo
from nas.accuracy.pattern_scores import Meco, Swap
from nas.errors import CandidateError, ConfigError

IMAGES = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).reshape(2, 1, 1, 2)
LABELS = torch.tensor([0, 1])


def rectified(weight):
    layer = nn.Linear(2, len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU())


def test_swap_counts_patterns_once():
    # Signs for the two pictures: +-, ++, -+, --, and +- again.
    weight = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [2.0, 0.0]]
    assert Swap().score(rectified(weight), IMAGES, LABELS) == 4.0
    assert Swap().score(rectified(weight[:1] + weight[4:]), IMAGES, LABELS) == 1.0


def test_swap_counts_a_pattern_of_two_layers_once():
    first = rectified([[1.0, 0.0], [0.0, 1.0]])
    # What was rectified once has the signs +- and ++ again.
    assert Swap().score(nn.Sequential(first, nn.ReLU()), IMAGES, LABELS) == 2.0


def test_swap_reads_the_first_pictures_only():
    many = torch.cat([IMAGES, -IMAGES])
    network = rectified([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert Swap(2).score(network, many, LABELS) == Swap(2).score(network, IMAGES, LABELS)
    with pytest.raises(ConfigError, match="2 to 20"):
        Swap(21)


def test_swap_refuses_a_network_without_activation():
    with pytest.raises(CandidateError, match="no activation"):
        Swap().score(nn.Flatten(), IMAGES, LABELS)


class Mix(nn.Module):
    """Maps channels by a fixed matrix."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(matrix))

    def forward(self, x):
        return torch.einsum("oc,bchw->bohw", self.matrix, x)


def test_meco_is_the_least_eigenvalue_of_the_channels_correlation():
    images = torch.zeros(1, 2, 128, 128)
    # Of noise, channels a and a + b correlate by 1 / sqrt(2); the eigenvalues are 1 more and 1 less.
    expected = 1 - 1 / math.sqrt(2)
    assert Meco().score(Mix([[1.0, 0.0], [1.0, 1.0]]), images, LABELS) == pytest.approx(expected, abs=0.01)
    assert Meco().score(Mix([[1.0, 0.0], [0.0, 5.0]]), images, LABELS) == pytest.approx(1.0, abs=0.02)
    assert Meco().score(Mix([[1.0, 0.0], [2.0, 0.0]]), images, LABELS) == pytest.approx(0.0, abs=1e-6)


def test_meco_adds_up_layers():
    images = torch.zeros(1, 2, 64, 64)
    one, other = Mix([[1.0, 0.0], [1.0, 1.0]]), Mix([[1.0, 0.0], [0.0, 1.0]])
    both = Meco().score(nn.Sequential(one, other), images, LABELS)
    assert both == pytest.approx(2 * Meco().score(one, images, LABELS))


def test_meco_leaves_out_what_has_no_positions_and_takes_constants_for_singular():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    with pytest.raises(CandidateError, match="no layer writes features"):
        Meco().score(pooled, torch.zeros(1, 2, 8, 8), LABELS)
    assert Meco().score(Mix([[1.0, 0.0], [0.0, 0.0]]), torch.zeros(1, 2, 8, 8), LABELS) == 0.0
    with pytest.raises(CandidateError, match="tokens"):
        Meco().score(nn.Embedding(4, 2), torch.zeros(2, 3, dtype=torch.long), LABELS)


def test_zico_is_what_the_equation_says():
    weight = np.array([[0.5, -1.0], [2.0, 0.25]])
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    gradients = []
    for x, label in zip(IMAGES.reshape(2, 2).double().numpy(), (0, 1), strict=True):
        logits = weight @ x
        share = np.exp(logits) / np.exp(logits).sum()
        gradients.append(np.abs(np.outer(share - np.eye(2)[label], x)))
    expected = math.log((np.mean(gradients, axis=0) / np.std(gradients, axis=0)).sum())
    assert ZiCo().score(nn.Sequential(nn.Flatten(), layer), IMAGES, LABELS) == pytest.approx(expected, rel=1e-4)


def test_zico_needs_gradients_that_vary():
    network = rectified([[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(CandidateError, match="cuts the batch into 2"):
        ZiCo().score(network, IMAGES[:1], LABELS[:1])
    with pytest.raises(CandidateError, match="varies"):
        ZiCo().score(network, IMAGES[:1].repeat(2, 1, 1, 1), LABELS[:1].repeat(2))
    with pytest.raises(ConfigError, match="at least 2"):
        ZiCo(parts=1)
