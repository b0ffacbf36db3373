"""Which networks ``nas fit`` draws for which tasks, and what it times of a language model."""

import numpy as np
import pytest

from nas.config.campaign import Campaign, block_shares, write_language_model
from nas.config.compose import Request, resolve
from nas.config.fit import spaces_of
from nas.data import Task
from nas.errors import ConfigError
from nas.measurement import Measurement
from nas.runtime.native import NativeRuntime
from nas.runtime.variants import timed_variants
from search_spaces.decoder import Decoder

TINY = {"widths": [32], "depths": [2], "heads": [2], "kv_heads": [1, 2], "head_sizes": [16], "mlp_ratios": [1, 2]}


def spaces(*words):
    return [(space.name, space.task.kind) for space in spaces_of([resolve(Request("fit", words))])]


def test_a_space_is_timed_at_the_tasks_that_it_serves():
    assert spaces("space=convnet") == [("convnet", "image_classification")] * 2
    assert spaces("space=decoder") == [("decoder", "language_model")]
    assert spaces("space=transformer", "data.tasks=[text_classification]") == [("transformer", "text_classification")]
    with pytest.raises(ConfigError, match="'convnet' serves image_classification; the data pose 'text_classification'"):
        spaces("space=convnet", "data.tasks=[text_classification]")
    with pytest.raises(ConfigError, match=r"unknown value of data.tasks 'texts'"):
        spaces("space=convnet", "data.tasks=[texts]")


@pytest.fixture(scope="module")
def space():
    return Decoder(Task("language_model", 0, 50, 50), [12], prompt=4, **TINY)


def test_a_language_model_is_timed_at_one_more_token(space, tmp_path):
    rng = np.random.default_rng(0)
    architecture = space.sample(rng)
    write_language_model(space, architecture, tmp_path / "m.onnx", rng)
    assert timed_variants(tmp_path / "m.onnx") == {"token_ms": {"tokens": 1, "past": 11}}
    NativeRuntime().load(tmp_path / "m.onnx")


class Meter:
    has_energy = False

    def measure(self, model):
        raise NotImplementedError

    def compare(self, models, rounds):
        assert all(model.is_file() for model in models)
        return [Measurement(1.0, 1.0, 0.0, 8, 1, "ms", "d", "r", 0.0) for _ in models]


def test_its_graph_is_that_of_one_more_token(space):
    campaign = Campaign([space], {"native": Meter()}, batch=3)
    timed = campaign.run(60.0, most=3)
    assert campaign.failures == []
    assert {network.precision for network in timed} <= {"fp32", "int8", "mixed"}
    for network in timed:
        assert network.graph.input_shape == (1, 1)
        assert any(op.kind == "concat" for op in network.graph.ops)  # of the cache


def test_every_third_network_is_profiled_by_blocks(tmp_path):
    (texts,) = spaces_of([resolve(Request("fit", ("space=transformer", "data.tasks=[text_classification]")))])
    asked = []

    def profile(file):
        asked.append(file.is_file())
        return block_shares(NativeRuntime().profile(file, 3))

    timed = Campaign([texts], {"native": Meter()}, batch=4, profilers={"native": profile}).run(60.0, most=4)
    assert asked == [True, True]
    assert [bool(network.profiles) for network in timed] == [True, False, False, True]
    shares = timed[0].profiles["native"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert {op.block for op in timed[0].graph.ops} >= set(shares) - {""}
    assert len(set(shares) - {""}) > 2


def test_texts_are_written_as_files_that_load(tmp_path):
    (texts,) = spaces_of([resolve(Request("fit", ("space=transformer", "data.tasks=[text_classification]")))])
    timed = Campaign([texts], {"native": Meter()}, batch=2).run(60.0, most=2)
    assert all(network.graph.input_shape[0] == 1 and len(network.graph.input_shape) == 2 for network in timed)
