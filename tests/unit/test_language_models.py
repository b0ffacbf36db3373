"""A language model's way from training to a folder that generates text without this framework."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from nas.accuracy.training import ShortTraining
from nas.architecture import Precision
from nas.config.compose import Request, resolve
from nas.config.parts import Parts
from nas.config.sources import check_sources
from nas.data.plain_text import PlainText
from nas.device import Device
from nas.errors import ConfigError, ExportError, ModelFileError
from nas.evaluate import Evaluator, fidelity_key
from nas.evaluation import State
from nas.export import Exporter
from nas.measure.local import LocalMeter
from nas.measure.settings import TimingSettings
from nas.objective import Objective
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.inputs import empty_inputs
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.variants import VARIANTS_KEY, timed_variants
from nas.screen import Screen
from nas.search.front import resolve_references
from nas.testing.synthetic import MacsLatency
from search_spaces.decoder import Decoder

torch.set_num_threads(1)
TEXT = "".join(f"alpha beta gamma {'one' if index % 2 else 'two'} delta.\n" for index in range(400))
AXES = (
    Objective("perplexity", "minimize"),
    Objective("token_ms", "minimize", "ms"),
    Objective("kv_cache_kib", "minimize", "KiB"),
)
QUICK = TimingSettings(
    min_blocks=3, max_blocks=3, block_runs=3, warmup_s=0.0, tries=1, realtime=False, memory_loads=1, timeout_s=60.0
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "own.txt"
    path.write_text(TEXT)
    return PlainText(str(path), contexts=(12, 16), vocabulary=290).load()


def make_space(task, **lists):
    small = {"widths": [24], "depths": [1], "heads": [2], "kv_heads": [1], "head_sizes": [8], "mlp_ratios": [2]}
    return Decoder(task, **{"contexts": [12], "prompt": 6, **small, **lists})


def sample(space, **choices):
    rng = np.random.default_rng(0)
    while True:
        drawn = space.sample(rng)
        if all(drawn.choices[name] == value for name, value in choices.items()):
            return drawn


def test_a_trained_language_model_ships_and_generates_alone(dataset, tmp_path):
    space = make_space(dataset.task)
    device = Device("fake", "x86_64", 1)
    screen = Screen(space, device, MacsLatency(), {}, AXES)
    trainer = ShortTraining(epochs=2, batch_size=8, learning_rate=0.01, label_smoothing=0.0)
    key = fidelity_key(dataset, trainer.key, 0, 16)
    meter = LocalMeter(device, OnnxRuntime(), QUICK)
    evaluator = Evaluator(screen, dataset, trainer, OnnxRuntime(), meter, None, key, tmp_path, ("snip", "synflow"), 16)
    architecture = sample(space, embedding="tied")
    evaluation = evaluator.evaluate(architecture)
    assert evaluation.state is State.COMPLETE
    # The text has one free word in each line of ten tokens or so; guessing reaches the vocabulary.
    assert 1.0 < evaluation.values["perplexity"] < 5.0
    assert evaluation.values["perplexity"] == pytest.approx(evaluation.values["perplexity_fp32"], rel=0.1)
    assert evaluation.values["kv_cache_kib"] == 2 * 1 * 8 * 12 * 4 / 1024
    assert {"ttft_ms", "token_ms", "proxy_snip", "proxy_synflow"} <= evaluation.values.keys()
    assert {"latency_ms", "accuracy"}.isdisjoint(evaluation.values)
    assert evaluation.provenance["token_ms"]["anchor_ratio"] > 0

    exporter = Exporter(dataset, OnnxRuntime(), None, evaluator.score, {}, {})
    encoding = dataset.preprocessing(12)
    folder = tmp_path / "export"
    card = exporter.export(evaluation, tmp_path / evaluation.folder, folder, encoding, {})
    assert card["perplexity"]["validation_quantized"] == evaluation.values["perplexity"]
    assert 1.0 < card["perplexity"]["test_quantized"] < 5.0
    assert card["data"]["tokens"] == {name: len(stream) for name, stream in dataset.splits.items()}
    wrong = replace(evaluation, values={**evaluation.values, "perplexity": evaluation.values["perplexity"] * 1.01})
    with pytest.raises(ExportError, match=r"has a perplexity of .* validation tokens"):
        exporter.verify(folder / "model.onnx", wrong, encoding)

    command = [sys.executable, "-I", folder / "run.py", "alpha beta", "30", "0"]
    told = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True).stdout
    # 30 tokens do not fit into the context of 12: the cache was filled anew on the way.
    assert told.startswith("alpha beta gamma")
    assert len(dataset.tokenizer.encode([told.rstrip("\n")])[0]) >= 25
    assert told.count("delta.") >= 2


class FakeMeter:
    def __init__(self, *ratios):
        self.ratios = list(ratios)

    def measure(self, model):
        from nas.measurement import Measurement

        ratios = dict(zip(("ttft_ms", "token_ms"), self.ratios.pop(0), strict=True))
        return {
            name: Measurement(1.0, 0.9, 0.01, 9, 5, "ms", "d", "r", 0.0, ratio, 0.001) for name, ratio in ratios.items()
        }


@pytest.mark.parametrize(
    ("ratios", "reason"),
    [
        ([(2.0, 1.0)], None),
        # Each must repeat once, not both in the same try.
        ([(2.0, 1.5), (3.0, 1.0)], None),
        ([(2.0, 1.5), (2.0, 1.5), (2.0, 1.5)], "the token_ms of .* moved by"),
    ],
)
def test_both_times_are_verified(dataset, tmp_path, ratios, reason):
    recorded = FakeMeter((2.0, 1.0)).measure(None)
    provenance = {name: reading.to_dict() for name, reading in recorded.items()}
    evaluation = type("E", (), {"values": {"perplexity": 3.0}, "provenance": provenance})()
    exporter = Exporter(dataset, OnnxRuntime(), FakeMeter(*ratios), lambda m, p, split: 3.0, {}, {})
    if reason is None:
        assert exporter.verify(tmp_path / "model.onnx", evaluation, None).tries == len(ratios)
    else:
        with pytest.raises(ExportError, match=reason):
            exporter.verify(tmp_path / "model.onnx", evaluation, None)


@pytest.mark.parametrize("embedding", ["tied", "own"])
def test_a_quantized_file_stores_a_tied_table_once_and_keeps_its_cache_right(dataset, embedding, tmp_path):
    space = make_space(dataset.task)
    architecture = sample(space, embedding=embedding)
    torch.manual_seed(0)
    module = space.build(architecture).eval()
    tokens = torch.randint(dataset.task.vocabulary, (8, 12)).numpy()
    full, small = tmp_path / "full.onnx", tmp_path / "small.onnx"
    export_example(module, full, tokens[:1])
    quantize_static(full, small, tokens, dict.fromkeys(architecture.precision, Precision.INT8), Precision.FP32)
    tables = [t for t in onnx.load(small).graph.initializer if sorted(t.dims) == sorted([dataset.task.vocabulary, 24])]
    assert [tensor.data_type for tensor in tables] == [onnx.TensorProto.INT8] * (1 if embedding == "tied" else 2)
    assert timed_variants(small) == timed_variants(full)
    session = OnnxRuntime().load(small)
    empty = empty_inputs(session.inputs, {"input"})
    whole, *_ = session.run({"input": tokens[:1], **empty})
    first, *grown = session.run({"input": tokens[:1, :7], **empty})
    rest, *_ = session.run({"input": tokens[:1, 7:], **dict(zip(empty, grown, strict=True))})
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), whole, atol=1e-4)
    exact = OnnxRuntime().load(full).run({"input": tokens[:1], **empty})[0]
    assert np.abs(whole - exact).max() < 0.1 * np.abs(exact).max()


def test_prompt_and_token_are_timed_at_their_own_sizes(dataset):
    space = make_space(dataset.task)
    signature = space.build(sample(space)).onnx_signature()
    assert json.loads(signature.metadata[VARIANTS_KEY]) == {
        "ttft_ms": {"tokens": 6, "past": 0},
        "token_ms": {"tokens": 1, "past": 11},
    }


@pytest.mark.parametrize("said", ["[]", "{", '{"token_ms": {"past": "1"}}', '{"size": {}}', "{}"])
def test_odd_metadata_are_refused(dataset, tmp_path, said):
    space = make_space(dataset.task)
    path = tmp_path / "model.onnx"
    export_example(space.build(sample(space)), path, np.zeros((1, 4), np.int64))
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {VARIANTS_KEY: said})
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match="expected an object of metrics"):
        timed_variants(path)


def test_references_and_bounds_need_no_training(dataset):
    space = make_space(dataset.task, contexts=[12, 16])
    limited = Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {"kv_cache_kib": 0.8}, AXES)
    references = {axis.metric: axis.reference for axis in resolve_references(AXES, limited)}
    assert references["perplexity"] == dataset.task.vocabulary
    assert references["token_ms"] > 0
    assert references["kv_cache_kib"] >= 0.75
    violated = {context: set(limited.violations(limited.costs(sample(space, context=context)))) for context in (12, 16)}
    assert violated == {12: set(), 16: {"kv_cache_kib"}}


def test_a_predicted_token_reads_the_whole_cache_but_one_row(dataset):
    space = make_space(dataset.task, contexts=[16])
    architecture = space.sample(np.random.default_rng(0))
    prompt, step = space.lower(architecture), space.lower_step(architecture)
    width, hidden, vocabulary, heads, size = 24, 48, dataset.task.vocabulary, 2, 8
    rows = width * (heads + 2) * size + heads * size * width + 2 * width * hidden + width * vocabulary
    assert step.macs == rows + 2 * heads * size * 16  # scores and mixture over all 16 places
    assert prompt.macs == 6 * rows + 2 * heads * size * 6 * 6
    screen = Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {}, AXES)
    times = screen.timings(architecture, prompt)
    assert set(times) == {"ttft_ms", "token_ms"}
    assert times["token_ms"].value < times["ttft_ms"].value


def test_what_a_language_model_lacks_is_refused_before_anything_is_spent(dataset, tmp_path):
    (tmp_path / "own.txt").write_text(TEXT)
    words = (
        "data=plain_text",
        f"data.path={tmp_path}/own.txt",
        "data.contexts=[32]",
        "data.vocabulary=290",
        "space=decoder",
    )

    def parts(*more):
        return Parts(resolve(Request("search", (*words, *more))), tmp_path)

    with pytest.raises(ConfigError, match="nothing gives objective accuracy in this search; have kv_cache_kib"):
        check_sources(parts())
    check_sources(parts("objective=perplexity_token_first_cache", "limits.token_ms=3"))
    check_sources(parts("objective=perplexity_token_first_cache", "cost=predicted"))
    with pytest.raises(ConfigError, match=r"limits\.memory_kib cannot be held"):
        check_sources(parts("objective=perplexity_token", "cost=predicted", "limits.memory_kib=3"))


def test_spaces_of_other_tasks_are_refused(dataset):
    with pytest.raises(ConfigError, match=r"space.prompt=40; expected 1 to 12"):
        make_space(dataset.task, prompt=40)
    with pytest.raises(ConfigError, match="serves language_model"):
        make_space(replace(dataset.task, kind="text_classification"))


def test_a_training_that_stopped_goes_on_to_the_same_perplexity(dataset, tmp_path):
    space, recipe = make_space(dataset.task), ShortTraining(epochs=2, batch_size=8, label_smoothing=0.0)
    encoding, results = dataset.preprocessing(12), []
    for stops in ((None,), (1, None)):
        for until in stops:
            torch.manual_seed(0)
            module = space.build(sample(space, embedding="tied"))
            file = tmp_path / f"{len(stops)}.safetensors"
            result = recipe.train(
                module, dataset, encoding, 0, until=until, checkpoint=file if len(stops) > 1 else None
            )
        results.append(result)
    whole, resumed = results
    assert whole.perplexity_fp32 == resumed.perplexity_fp32
    assert [record.perplexity for record in whole.history] == [record.perplexity for record in resumed.history]
    assert whole.history[whole.best_epoch - 1].perplexity == min(record.perplexity for record in whole.history)
