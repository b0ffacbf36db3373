"""All spaces of the package pass the suite that the package ships."""

from dataclasses import replace
from typing import ClassVar

import optuna
import pytest

from nas.architecture import Architecture
from nas.data import Task
from nas.testing import SpaceSuite
from search_spaces.convnet import ConvNet
from search_spaces.decoder import Decoder
from search_spaces.hybrid import Hybrid
from search_spaces.nasbench201 import NasBench201
from search_spaces.reference import Reference
from search_spaces.toy import Toy
from search_spaces.transformer import Transformer

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.filterwarnings("ignore:Argument ``:optuna.exceptions.ExperimentalWarning")
class _Spaces(SpaceSuite):
    bad: ClassVar = {}

    @pytest.fixture(autouse=True)
    def _study(self):
        self.study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, group=True))

    def make_trial(self):
        return self.study.ask()

    def make_degenerate(self) -> Architecture:
        _, architecture = next(self.drawn())
        return replace(architecture, choices={**architecture.choices, **self.bad})


class TestConvNet(_Spaces):
    space_class = ConvNet
    arguments: ClassVar = {
        **{"resolutions": [8, 16], "strides": ["1122", "1212", "2222"]},
        "precisions": ["fp32", "int8", "int4"],
    }
    bad: ClassVar = {"resolution": 8, "strides": "2222"}
    small: ClassVar = {
        "resolutions": [16],
        "stem_widths": [8],
        "strides": ["12"],
        "widths": [[8, 16]],
        "depths": [1, 2],
        "squeeze_ratios": [0.0],
        "activations": ["relu"],
        "head_widths": [0, 32],
    }


class TestConvNetTwoSmallStages(TestConvNet):
    """One channel in, and the size formula over two stages."""

    task = Task("image_classification", channels=1, classes=7)
    seed = 7
    small: ClassVar = {
        "resolutions": [8, 16],
        "stem_widths": [8],
        "strides": ["122"],
        "widths": [[8], [8, 16]],
        "depths": [1, 2],
        "blocks": ["mbconv", "residual"],
        "kernels": [3],
        "dense_kernels": [3, 5],
        "expansions": [2],
        "activations": ["relu"],
        "head_widths": [0],
        "precisions": ["int8"],
    }


class TestDecoder(_Spaces):
    space_class = Decoder
    task = Task("language_model", channels=0, classes=70, vocabulary=70)
    arguments: ClassVar = {
        **{"contexts": [10, 12], "prompt": 8, "depths": [1, 2, 3], "widths": [32, 48]},
        "precisions": ["fp32", "int8", "int4"],
    }
    bad: ClassVar = {"kv_heads": 4, "heads": 2}
    architectures = 4
    small: ClassVar = {
        "contexts": [10, 12],
        "prompt": 8,
        "widths": [32],
        "depths": [1, 2],
        "heads": [2],
        "kv_heads": [1],
        "head_sizes": [16],
        "mlp_ratios": [1],
        "activations": ["relu"],
        "norms": ["rmsnorm"],
    }


class TestTransformerOnTokens(_Spaces):
    space_class = Transformer
    task = Task("text_classification", channels=0, classes=10, vocabulary=90)
    arguments: ClassVar = {"lengths": [6, 11], "kv_heads": [1, 2, 4], "precisions": ["int8", "int4"]}
    bad: ClassVar = {"kv_heads": 4, "heads": 2}
    small: ClassVar = {
        "lengths": [6, 11],
        "widths": [32],
        "depths": [1, 2],
        "heads": [2],
        "kv_heads": [1],
        "head_sizes": [8],
        "mlp_ratios": [1],
        "activations": ["relu"],
        "norms": ["layernorm"],
        "poolings": ["mean"],
    }


class TestTransformer(_Spaces):
    space_class = Transformer
    arguments: ClassVar = {"resolutions": [16, 24], "kv_heads": [1, 2, 4]}
    bad: ClassVar = {"kv_heads": 4, "heads": 2}
    architectures = 5
    small: ClassVar = {
        "resolutions": [8],
        "patches": [4, 8],
        "widths": [32],
        "depths": [1, 2],
        "heads": [2],
        "kv_heads": [1],
        "head_sizes": [8],
        "mlp_ratios": [1, 2],
        "activations": ["relu"],
        "norms": ["rmsnorm", "layernorm"],
        "poolings": ["mean"],
    }


class TestTransformerOneChannel(TestTransformer):
    task = Task("image_classification", channels=1, classes=3)
    arguments: ClassVar = {"resolutions": [8], "precisions": ["int8"]}
    bad: ClassVar = {"patch": 8}
    seed = 3
    architectures = 2
    small = None


class TestToy(_Spaces):
    space_class = Toy
    arguments: ClassVar = {"resolutions": [8, 12]}
    small: ClassVar = arguments

    def make_degenerate(self):
        degenerate = [architecture for architecture in self.space().every() if self._is_degenerate(architecture)]
        return degenerate[0]

    def _is_degenerate(self, architecture):
        choices = architecture.choices
        return choices["stride"] == 4 and choices["depth"] == 2 and choices["resolution"] == 8


class TestReference(_Spaces):
    space_class = Reference
    arguments: ClassVar = {"resolutions": [1, 8, 16], "widths": [0.25, 0.5]}
    small: ClassVar = arguments
    architectures = 2

    def make_degenerate(self):
        return next(one for one in self.space().every() if one.choices["resolution"] == 1)


class TestNasBench201(_Spaces):
    space_class = NasBench201
    arguments: ClassVar = {"resolutions": [8, 12], "channels": 4, "cells": 2}
    bad: ClassVar = dict.fromkeys(("node3_from0", "node3_from1", "node3_from2"), "none")
    small: ClassVar = {"resolutions": [8], "operations": ["none", "skip_connect", "nor_conv_3x3"]}
    architectures = 5


class TestNasBench201PerStage(TestNasBench201):
    arguments: ClassVar = {"resolutions": [8], "channels": 4, "cells": 1, "precision_per": "stage"}
    small: ClassVar = {"resolutions": [8, 16], "operations": ["none", "skip_connect"], "precision_per": "stage"}
    architectures = 2
    seed = 3


class TestHybrid(_Spaces):
    space_class = Hybrid
    arguments: ClassVar = {"resolutions": [8, 16], "precisions": ["fp32", "int8", "int4"]}
    bad: ClassVar = {"resolution": 8, "strides": "222"}
    architectures = 4
    small: ClassVar = {
        "resolutions": [16],
        "stem_widths": [8],
        "strides": ["12"],
        "widths": [[8]],
        "depths": [1, 2],
        "blocks": ["fused"],
        "dense_kernels": [3],
        "fused_expansions": [1],
        "squeeze_ratios": [0.0],
        "patches": [1, 2],
        "token_widths": [16],
        "layers": [1, 2],
        "heads": [2],
        "kv_heads": [1],
        "head_sizes": [8],
        "mlp_ratios": [1],
        "activations": ["relu"],
        "norms": ["layernorm"],
        "poolings": ["mean"],
    }
