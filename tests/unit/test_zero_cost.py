import math

import numpy as np
import pytest
import torch
from torch import nn

from nas.accuracy.pattern_scores import Naswot
from nas.accuracy.zero_cost import Macs, Params, Synflow, ZeroCost, make_proxy, score_all, score_timed
from nas.data import Task
from nas.errors import CandidateError, ConfigError
from search_spaces.convnet import ConvNet
from search_spaces.transformer import Transformer

LABELS = torch.zeros(4, dtype=torch.long)


def test_synflow_of_a_linear_chain_is_what_the_equation_says():
    chain = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    first, second = torch.tensor([[1.0, -2.0], [3.0, 4.0]]), torch.tensor([[-5.0, 6.0]])
    with torch.no_grad():
        chain[1].weight.copy_(first)
        chain[2].weight.copy_(second)
    # R = |5| (1 + 2) + 6 (3 + 4) = 57; every layer's sum of w dR/dw is R again, and there are two layers.
    assert Synflow().score(chain, torch.zeros(1, 1, 1, 2), LABELS) == pytest.approx(math.log(2 * 57))


def test_synflow_passes_norms_through():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(8, 8, bias=False), nn.Linear(8, 2, bias=False))
    normed = nn.Sequential(plain[0], plain[1], nn.LayerNorm(8), plain[2])
    images = torch.randn(4, 2, 2, 2)
    assert Synflow().score(normed, images, LABELS) == pytest.approx(Synflow().score(plain, images, LABELS))


def test_synflow_refuses_a_network_through_which_nothing_flows():
    dead = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    nn.init.zeros_(dead[1].weight)
    with pytest.raises(CandidateError, match="degenerate"):
        Synflow().score(dead, torch.randn(4, 2, 2, 2), LABELS)


def _one_layer(activation):
    layer = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    return nn.Sequential(nn.Flatten(), layer, activation)


IMAGES = torch.tensor([[1.0, 1.0], [1.0, -2.0], [-1.0, -1.0], [-2.0, 1.0]]).reshape(4, 1, 1, 2)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.ReLU(inplace=True)])
def test_naswot_is_the_log_determinant_of_agreements(activation):
    codes = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
    agreements = codes @ codes.T + (1 - codes) @ (1 - codes).T
    expected = np.linalg.slogdet(agreements + np.eye(4))[1]
    assert Naswot().score(_one_layer(activation), IMAGES, LABELS) == pytest.approx(expected)


def test_naswot_sees_activations_that_are_functions():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = _one_layer(nn.Identity())

        def forward(self, images):
            return torch.nn.functional.gelu(self.inner(images))

    assert Naswot().score(Functional(), IMAGES, LABELS) == Naswot().score(_one_layer(nn.GELU()), IMAGES, LABELS)


def test_naswot_reads_tokens_folded_into_the_batch():
    class Folded(nn.Module):
        def forward(self, images):
            return torch.relu(images.reshape(-1, 1)).reshape(len(images), -1)

    whole = nn.Sequential(nn.Flatten(), nn.ReLU())
    assert Naswot().score(Folded(), IMAGES, LABELS) == Naswot().score(whole, IMAGES, LABELS)


def test_naswot_stays_finite_for_equal_pictures():
    assert math.isfinite(Naswot().score(_one_layer(nn.ReLU()), IMAGES[:1].repeat(4, 1, 1, 1), LABELS))


def test_naswot_refuses_a_network_without_activation():
    with pytest.raises(CandidateError, match="no activation"):
        Naswot().score(_one_layer(nn.Sigmoid()), IMAGES, LABELS)


def test_naswot_refuses_values_that_are_not_finite():
    network = _one_layer(nn.ReLU())
    nn.init.constant_(network[1].weight, math.nan)
    with pytest.raises(CandidateError, match="nan"):
        Naswot().score(network, IMAGES, LABELS)


@pytest.mark.parametrize("space_class", [ConvNet, Transformer])
def test_macs_agree_with_the_lowered_graph(space_class):
    space = space_class(Task("image_classification", channels=3, classes=10), resolutions=[16])
    rng = np.random.default_rng(5)
    for _ in range(4):
        architecture = space.sample(rng)
        module, graph = space.build(architecture), space.lower(architecture)
        images = torch.zeros(2, 3, *space.input_size(architecture))
        assert Macs().score(module, images, LABELS) == graph.macs
        assert score_all(module, images, LABELS, ["macs", "params"], graph) == {
            "macs": graph.macs,
            "params": graph.parameters,
        }


@pytest.mark.parametrize("space_class", [ConvNet, Transformer])
def test_every_proxy_scores_networks_of_the_spaces(space_class):
    space = space_class(Task("image_classification", channels=1, classes=10), resolutions=[8])
    rng = np.random.default_rng(1)
    for _ in range(3):
        architecture = space.sample(rng)
        images = torch.randn(8, 1, *space.input_size(architecture))
        names = ["synflow", "naswot", "params", "macs"]
        scored = score_timed(space.build(architecture), images, LABELS, names)
        assert list(scored) == names
        assert all(math.isfinite(score.value) and score.seconds >= 0 for score in scored.values())


def test_params_counts_every_value():
    assert Params().score(nn.Linear(3, 4), torch.zeros(1), LABELS) == 16.0


def test_an_unknown_proxy_is_named_with_the_right_spelling():
    with pytest.raises(ConfigError, match="Did you mean 'synflow'"):
        make_proxy("sinflow")
    with pytest.raises(ConfigError, match="Did you mean 'naswot'"):
        ZeroCost("naswott")


def test_the_key_tells_proxies_apart():
    assert ZeroCost("params").key == ZeroCost("params").key != ZeroCost("macs").key


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU])
def test_naswot_sees_every_activation_of_the_spaces(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), activation(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
    score = Naswot().score(network, torch.randn(8, 3, 8, 8), torch.zeros(8, dtype=torch.long))
    assert math.isfinite(score)
