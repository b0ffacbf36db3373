import math

import numpy as np
import pytest
import torch
from torch import nn

from nas.accuracy.combined import COMBINED
from nas.accuracy.gradient_scores import Dss, GradientNorm, JacobianCovariance, Snip
from nas.accuracy.zero_cost import PROXIES
from nas.config import schema
from nas.errors import CandidateError

LABELS = torch.tensor([0, 1])
IMAGES = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).reshape(2, 1, 1, 2)


def linear(weight):
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return nn.Sequential(nn.Flatten(), layer)


def gradient(weight):
    """Of the mean cross-entropy by the weight, worked out without autograd."""
    w, x = np.array(weight), IMAGES.reshape(2, 2).numpy()
    logits = x @ w.T
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (share - np.eye(2)).T @ x / 2


def test_snip_and_gradient_norm_are_what_the_equations_say():
    weight = [[0.5, -1.0], [2.0, 0.25]]
    expected = gradient(weight)
    assert Snip().score(linear(weight), IMAGES, LABELS) == pytest.approx(np.abs(expected * weight).sum(), rel=1e-5)
    assert GradientNorm().score(linear(weight), IMAGES, LABELS) == pytest.approx(np.linalg.norm(expected), rel=1e-5)


def test_jacobian_covariance_is_highest_where_pictures_pull_in_different_directions():
    class Gate(nn.Module):
        def __init__(self, mix):
            super().__init__()
            self.mix = nn.Parameter(torch.tensor(mix))

        def forward(self, images):
            flat = images.flatten(1)
            return (flat[:, :3] ** 2) @ self.mix

    images = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).reshape(3, 1, 1, 3)
    different = JacobianCovariance().score(Gate([[1.0], [1.0], [1.0]]), images, LABELS)
    alike = JacobianCovariance().score(nn.Sequential(nn.Flatten(), nn.Linear(3, 1)), images, LABELS)
    assert different > alike
    # Three equal rows: eigenvalues 3, 0 and 0.
    values = np.array([3.0, 0.0, 0.0]) + 1e-5
    assert alike == pytest.approx(-np.sum(np.log(values) + 1 / values), rel=1e-6)


def test_dss_weighs_attention_by_nuclear_norms_and_the_rest_by_saliency():
    class TinyAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(2, 2, bias=False)

        def forward(self, x):
            return self.project(x)

    plain = linear([[1.0, 2.0], [3.0, 4.0]])
    ones = torch.zeros(1, 1, 1, 2)
    assert Dss().score(plain, ones, LABELS) == pytest.approx(math.log(10.0))
    attention = nn.Sequential(nn.Flatten(), TinyAttention())
    with torch.no_grad():
        attention[1].project.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    # dL/dW is all ones, of nuclear norm 2; that of W is 7.
    assert Dss().score(attention, ones, LABELS) == pytest.approx(math.log(14.0))


@pytest.mark.parametrize("proxy", [Snip(), GradientNorm(), Dss()])
def test_a_network_without_gradients_is_degenerate(proxy):
    frozen = linear([[0.0, 0.0], [0.0, 0.0]])
    frozen[1].weight.requires_grad_(False)
    bias = nn.Parameter(torch.zeros(2))

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.bias = frozen, bias

        def forward(self, x):
            return self.frozen(x) + self.bias

    with pytest.raises(CandidateError, match="degenerate"):
        proxy.score(Shifted(), IMAGES, LABELS)


@pytest.mark.parametrize("proxy", [Snip(), GradientNorm(), Dss()])
def test_gradients_that_were_there_do_not_count(proxy):
    network = linear([[0.5, -1.0], [2.0, 0.25]])
    fresh = proxy.score(network, IMAGES, LABELS)
    network(IMAGES).sum().backward()
    assert proxy.score(network, IMAGES, LABELS) == fresh


def test_tokens_have_no_jacobian():
    with pytest.raises(CandidateError, match="tokens"):
        JacobianCovariance().score(nn.Embedding(4, 2), torch.zeros(2, 3, dtype=torch.long), LABELS)


def test_the_config_offers_every_proxy():
    assert set(schema.PROXIES) == {*PROXIES, COMBINED}
