"""A text classifier's way from training over 8-bit embeddings to a folder that runs without this framework."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from nas.accuracy.training import ShortTraining
from nas.accuracy.zero_cost import score_all
from nas.architecture import Precision
from nas.data import Task
from nas.data.labelled_text import LabelledText
from nas.device import Device
from nas.errors import ConfigError
from nas.evaluate import Evaluator, fidelity_key
from nas.export import Exporter
from nas.objective import Objective
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.screen import Screen
from nas.testing.synthetic import MacsLatency
from search_spaces.convnet import ConvNet
from search_spaces.transformer import Transformer

torch.set_num_threads(1)
FOODS, TOOLS = ("apple", "bread", "cheese", "soup"), ("hammer", "drill", "saw", "wrench")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "own.tsv"
    rows = [
        f"{label}\t{start} {word} {end}"
        for label, words in (("food", FOODS), ("tool", TOOLS))
        for word in words
        for start in ("i want the", "give me a", "where is the", "buy one", "one more")
        for end in ("please", "now", "today", "again", "quickly")
    ]
    path.write_text("\n".join(rows))
    return LabelledText(str(path), lengths=(8,), vocabulary=320).load()


@pytest.fixture(scope="module")
def space(dataset):
    return Transformer(
        dataset.task, lengths=[8], widths=[16], depths=[1], heads=[2], kv_heads=[1], head_sizes=[8], mlp_ratios=[1]
    )


def test_a_space_of_pictures_refuses_texts(dataset):
    with pytest.raises(ConfigError, match="serves image_classification; the data pose 'text_classification'"):
        ConvNet(dataset.task, resolutions=[8])
    with pytest.raises(ConfigError, match="lengths"):
        Transformer(dataset.task)


def test_a_trained_text_classifier_ships_and_runs_alone(dataset, space, tmp_path):
    axes = (Objective("accuracy", "maximize"), Objective("size_kib", "minimize", "KiB"))
    screen = Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {}, axes)
    trainer = ShortTraining(epochs=6, learning_rate=0.01)
    evaluator = Evaluator(
        screen,
        dataset,
        trainer,
        OnnxRuntime(),
        None,
        None,
        fidelity_key(dataset, trainer.key, 0, 16),
        tmp_path,
        ("synflow",),
    )
    architecture = space.sample(np.random.default_rng(1))
    evaluation = evaluator.evaluate(architecture)
    assert evaluation.values["accuracy"] > 0.9
    assert np.isfinite(evaluation.values["proxy_synflow"])
    exporter = Exporter(dataset, OnnxRuntime(), None, evaluator.score, {}, {})
    encoding = dataset.preprocessing(*space.input_size(architecture))
    card = exporter.export(evaluation, tmp_path / evaluation.folder, tmp_path / "export", encoding, {})
    assert card["accuracy"]["test_quantized"] > 0.9
    assert card["data"]["texts"] == {"train": 120, "validation": 40, "test": 40}
    assert (tmp_path / "export" / "tokenizer.json").read_text() == dataset.tokenizer.json
    words = ["where is the Cheese today", "buy one drill quickly, and then a very long rest that is cut off"]
    command = [sys.executable, "-I", tmp_path / "export" / "run.py", *words]
    told = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True).stdout.splitlines()
    session = OnnxRuntime().load(tmp_path / "export" / "model.onnx")
    (logits,) = session.run({"input": encoding.encode(encoding.prepare(dataset.tokenizer.encode(words)))})
    assert [line.split()[-2] for line in told] == [dataset.classes[index] for index in logits.argmax(axis=1)]
    assert [line.split()[-2] for line in told] == ["food", "tool"]


@pytest.mark.parametrize(
    # Rows of very different sizes: one scale for the whole table would lose the small ones. Activations have one scale.
    ("blocks", "tolerance"),
    [(("stem",), 0.02), (("stem", "layer0_attention", "layer0_mlp", "head"), 0.3)],
)
def test_the_embedding_is_stored_in_bytes_and_only_rows_become_floats(space, blocks, tolerance, tmp_path):
    torch.manual_seed(0)
    architecture = space.sample(np.random.default_rng(0))
    module = space.build(architecture).eval()
    with torch.no_grad():
        module.stem.embed.weight.mul_(torch.logspace(0, 2, space.task.vocabulary)[:, None])
    tokens = torch.randint(space.task.vocabulary, (32, 8)).numpy()
    full, small = tmp_path / "full.onnx", tmp_path / "small.onnx"
    export_example(module, full, tokens[:1])
    precision = dict.fromkeys(architecture.precision, Precision.FP32) | dict.fromkeys(blocks, Precision.INT8)
    quantize_static(full, small, tokens, precision, Precision.FP32)
    model = onnx.load(small)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    (rows, scales) = (node for node in model.graph.node if node.op_type == "Gather")
    assert stored[rows.input[0]].data_type == onnx.TensorProto.INT8
    assert tuple(stored[scales.input[0]].dims) == (space.task.vocabulary,)
    assert not [t for t in stored.values() if list(t.dims) == [space.task.vocabulary, 16] and t.data_type == 1]
    exact, near = (OnnxRuntime().load(path).run({"input": tokens})[0] for path in (full, small))
    assert np.abs(near - exact).max() < tolerance * np.abs(exact).max()
    again, _ = (OnnxRuntime().load(path).run({"input": tokens[:1]})[0] for path in (small, full))
    np.testing.assert_allclose(again, near[:1], atol=1e-5)


def test_zero_cost_scores_take_tokens(dataset, space):
    torch.manual_seed(0)
    encoding = dataset.preprocessing(8)
    tokens, labels = (torch.from_numpy(array) for array in dataset.some("train", encoding, 16))
    scores = score_all(
        space.build(space.sample(np.random.default_rng(0))), tokens, labels, ["synflow", "naswot", "macs"]
    )
    assert all(np.isfinite(score) for score in scores.values())


def test_metrics_and_units_of_a_task():
    assert SimpleNamespace(
        **{kind: Task(kind, 0, 5, 5).metric for kind in ("text_classification", "language_model")}
    ) == (SimpleNamespace(text_classification="accuracy", language_model="perplexity"))
