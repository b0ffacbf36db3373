"""Answers of two sessions beside each other, and of the native runtime beside ONNX Runtime on trained networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nas.accuracy.answers import answer_each, compare_answers, continue_each
from nas.accuracy.training import ShortTraining
from nas.architecture import Precision
from nas.data import Task
from nas.data.digits import Digits
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from search_spaces.decoder import Decoder
from search_spaces.transformer import Transformer

torch.set_num_threads(1)
# Of the logits' range. The experiment native_top1 measures 1,000 inputs of larger networks; one of 100 may differ.
LARGEST_GAP = {"fp32": 1e-4, "int8": 0.05, "int4": 0.05}


def test_gaps_and_margins_are_shares_of_the_range():
    reference = np.array([[0.0, 1.0, 5.0], [4.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    ours = np.array([[0.5, 1.0, 4.0], [1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    found = compare_answers(ours, reference)
    assert found.same.tolist() == [True, False, True]
    assert (found.answers, found.equal) == (3, 2)
    assert found.gaps.tolist() == [0.2, 0.75, 0.0]
    assert found.margins.tolist() == [0.8, 0.5, 0.0]
    assert found.gap(100) == 0.75
    assert found.gap(50) == 0.2


@pytest.mark.parametrize(
    ("ours", "reference", "reason"),
    [
        (np.zeros((2, 3)), np.zeros((3, 3)), "twice the same"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "one answer"),
        (np.zeros((2, 1)), np.zeros((2, 1)), "two classes"),
        (np.full((1, 2), np.nan), np.zeros((1, 2)), "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(ours, reference, reason):
    with pytest.raises(ValueError, match=reason):
        compare_answers(ours, reference)


class Recorder:
    """A language model that answers with the sum of all it has read, and notes what it was given."""

    def __init__(self):
        self.inputs = {"input": ((1, "tokens"), "int64"), "past": ((1, "past"), "float32")}
        self.calls = []

    def run(self, given):
        self.calls.append((given["input"].tolist(), given["past"].shape[1]))
        cache = np.concatenate([given["past"], given["input"].astype(np.float32)], axis=1)
        sums = np.cumsum(cache, axis=1)[:, -given["input"].shape[1] :]
        return [np.stack([sums, -sums], axis=-1), cache]


def test_texts_are_continued_with_their_own_tokens_and_cache():
    session = Recorder()
    said = continue_each(session, np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), prompt=2)
    assert session.calls == [([[1, 2]], 0), ([[3]], 2), ([[4]], 3), ([[5, 6]], 0), ([[7]], 2), ([[8]], 3)]
    assert said[:, 0].tolist() == [3, 6, 10, 11, 18, 26]
    with pytest.raises(ValueError, match="expected 1 to 4"):
        continue_each(session, np.array([[1, 2, 3, 4]]), prompt=5)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A transformer trained for five epochs on digits in three precisions, 100 test pictures, and their labels."""
    folder = tmp_path_factory.mktemp("answers")
    dataset = Digits(resolutions=[8]).load()
    lists = {"patches": [2], "widths": [32], "depths": [2], "heads": [2], "kv_heads": [1], "head_sizes": [16]}
    rest = {"mlp_ratios": [2], "activations": ["gelu"], "norms": ["layernorm"], "poolings": ["mean"]}
    space = Transformer(dataset.task, [8], **lists, **rest, precisions=["int8"])
    architecture = space.sample(np.random.default_rng(0))
    encoding = dataset.preprocessing(8, 8)
    torch.manual_seed(0)
    module = space.build(architecture)
    ShortTraining(epochs=5, warmup_epochs=0.5).train(module, dataset, encoding, seed=0)
    export_example(module, folder / "fp32.onnx", encoding.example())
    calibration, _ = dataset.some("train", encoding, 64)
    for kind in (Precision.INT8, Precision.INT4):
        precision = dict.fromkeys(architecture.precision, kind)
        quantize_static(folder / "fp32.onnx", folder / f"{kind}.onnx", calibration, precision, Precision.FP32)
    return folder, *dataset.some("test", encoding, 100)


@pytest.mark.parametrize("kind", ["fp32", "int8", "int4"])
def test_a_trained_transformer_says_natively_what_it_says_in_onnx_runtime(digits, kind):
    folder, samples, labels = digits
    native, reference = (
        answer_each(one.load(folder / f"{kind}.onnx"), samples) for one in (NativeRuntime(), OnnxRuntime())
    )
    # Trained enough that answers are answers.
    assert (reference.argmax(axis=1) == labels).mean() > 0.5
    found = compare_answers(native, reference)
    assert found.answers == 100
    assert found.equal >= 99
    assert found.gap(100) <= LARGEST_GAP[kind]
    # Where the best is ahead of the second by twice the gap, the answer cannot differ.
    assert found.same[found.margins > 2 * found.gaps].all()


def test_a_decoder_continues_texts_as_in_onnx_runtime(tmp_path):
    task = Task("language_model", channels=0, classes=60, vocabulary=60)
    lists = {"widths": [32], "depths": [2], "heads": [2], "kv_heads": [1], "head_sizes": [16], "mlp_ratios": [2]}
    rest = {"activations": ["gelu"], "norms": ["rmsnorm"], "embeddings": ["own"], "precisions": ["int8"]}
    space = Decoder(task, contexts=[16], prompt=4, **lists, **rest)
    architecture = space.sample(np.random.default_rng(0))
    torch.manual_seed(0)
    windows = np.random.default_rng(1).integers(0, 60, (8, 16))
    export_example(space.build(architecture), tmp_path / "fp32.onnx", windows[:1])
    precision = dict.fromkeys(architecture.precision, Precision.INT8)
    quantize_static(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", windows, precision, Precision.FP32)
    native, reference = (
        continue_each(one.load(tmp_path / "int8.onnx"), windows, 5) for one in (NativeRuntime(), OnnxRuntime())
    )
    found = compare_answers(native, reference)
    assert found.answers == 8 * 12
    assert found.gap(100) <= LARGEST_GAP["int8"]
    assert found.same[found.margins > 2 * found.gaps].all()
