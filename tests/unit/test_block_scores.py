import math

import numpy as np
import pytest
import torch
from torch import nn

from nas.accuracy.block_features import blocks_of, caught
from nas.accuracy.block_scores import Expressivity, Progressivity, Trainability
from nas.accuracy.combined import rank_product
from nas.data import Task
from nas.errors import CandidateError
from search_spaces.nasbench201 import NasBench201

IMAGES, LABELS = torch.zeros(16, 3, 8, 8), torch.zeros(16, dtype=torch.long)


class Scale(nn.Module):
    def __init__(self, factors):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors).reshape(1, -1, 1, 1))

    def forward(self, x):
        return x * self.factors


def network(*blocks):
    return nn.Sequential(*blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def test_the_cells_of_a_stage_are_blocks_of_their_own():
    space = NasBench201(Task("image_classification", 3, 10), (8,), cells=2, channels=4)
    module = space.build(space.sample(np.random.default_rng(0)))
    kinds = [type(block).__name__ for block in blocks_of(module)]
    assert kinds.count("CellModule") == 6
    assert kinds.count("ReductionBlock") == 2


def test_expressivity_of_independent_channels_is_the_entropy_of_their_variances():
    # Noise of variance 1 in each channel, scaled: the spectrum is that of the factors squared.
    module = network(Scale([1.0, 2.0, 3.0]))
    images = torch.zeros(64, 3, 32, 32)
    share = np.array([1.0, 4.0, 9.0]) / 14
    expected = -(share * np.log(share)).sum()
    assert Expressivity(64).score(module, images, LABELS) == pytest.approx(expected, rel=0.01)


def test_progressivity_is_the_smallest_growth():
    module = network(Scale([1.0, 1.0, 1.0]), Scale([1.0, 1.0, 0.0]), Scale([1.0, 1.0, 1.0]))
    images = torch.zeros(64, 3, 32, 32)
    assert Progressivity(64).score(module, images, LABELS) == pytest.approx(math.log(2) - math.log(3), rel=0.01)
    with pytest.raises(CandidateError, match="two blocks"):
        Progressivity().score(network(Scale([1.0, 1.0, 1.0])), images, LABELS)


def test_trainability_is_highest_where_a_block_keeps_the_size_of_gradients():
    def score(factor):
        return Trainability().score(network(Scale([0.5] * 3), Scale([factor] * 3)), IMAGES, LABELS)

    assert score(2.0) == pytest.approx(2 - 2 - 0.5, abs=0.05)
    assert score(0.5) == pytest.approx(2 - 0.5 - 2, abs=0.1)
    assert score(1.01) > score(1.5) > score(4.0)


def test_a_network_of_identities_is_degenerate():
    module = network(nn.Sequential(nn.Identity(), Scale([1.0, 1.0, 1.0])), nn.Sequential(nn.Identity(), nn.ReLU6()))
    module[1] = nn.Identity()
    with pytest.raises(CandidateError, match="no block changes"):
        Trainability().score(module, IMAGES, LABELS)


def test_a_block_that_strides_is_compared_position_by_position():
    module = network(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1))
    assert Trainability().score(module, IMAGES, LABELS) < 0


def test_hooks_are_gone_after_a_pass():
    module = network(Scale([1.0, 1.0, 1.0]))
    with caught(module) as features:
        module(IMAGES)
    assert len(features) == 2
    assert not any(layer._forward_hooks for layer in module.modules())


def test_the_rank_product_prefers_what_is_nowhere_bad():
    scores = {"a": [1.0, 2.0, 3.0, 4.0], "b": [4.0, 3.0, 2.0, 1.0]}
    combined = rank_product(scores, ("a", "b"))
    assert combined[1] == combined[2] > combined[0] == combined[3]
    assert combined[1] == pytest.approx(math.log(2 / 4) + math.log(3 / 4))


def test_a_missing_score_ranks_last_and_equal_ones_share_their_rank():
    assert rank_product({"a": [np.nan, 5.0, 5.0]}, ("a",)).tolist() == pytest.approx(
        [math.log(1 / 3), math.log(2.5 / 3), math.log(2.5 / 3)]
    )
