import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from nas import _kernels
from nas.architecture import Architecture
from nas.data import ImageDataset, Preprocessing, Split
from nas.errors import ExportError
from nas.evaluation import Evaluation, EvaluationKey, State
from nas.export import Exporter
from nas.measurement import Measurement
from nas.runtime.native import NativeRuntime, NativeSession
from nas.runtime.onnx_runtime import OnnxRuntime

PREPROCESSING = Preprocessing(4, 6, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7))


def reading(ratio, spread=0.001, disturbed=False):
    return Measurement(1.0, 0.9, 0.01, 200, 5, "ms", "d", "r", 0.0, ratio, spread, disturbed)


class FakeMeter:
    """Answers with these ratios; a negative one stands for a disturbed reading."""

    def __init__(self, *ratios):
        self.ratios = list(ratios)

    def measure(self, model):
        ratio = self.ratios.pop(0)
        return {"latency_ms": reading(abs(ratio), disturbed=ratio < 0)}


def linear_model(path):
    """Flatten and multiply: logits depend on every input value, so that a pre-processing slip shows."""
    weight = np.random.default_rng(0).normal(size=(72, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 4, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def candidate(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    linear_model(models / "model.onnx")
    linear_model(models / "model_fp32.onnx")
    (models / "weights.safetensors").write_bytes(b"weights")
    architecture = Architecture("toy", {"width": 4})
    evaluation = Evaluation(
        architecture,
        EvaluationKey(architecture.id, "f", "d", "r"),
        State.COMPLETE,
        {"accuracy": 0.9, "accuracy_fp32": 0.91, "latency_ms": 1.0, "size_kib": 1.0},
        {"latency_ms": reading(2.0).to_dict()},
    )
    return models, evaluation


def exporter(meter, scores=(0.9,)):
    images = [np.zeros((4, 6, 3), np.uint8)] * 2
    split = Split(images, np.zeros(2, np.int64))
    splits = {"train": split, "validation": split, "test": split}
    dataset = ImageDataset("toy", "CC0", ("cat", "dog", "eel"), (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), splits)
    answers = {"validation": scores[0], "test": 0.8}
    return Exporter(dataset, OnnxRuntime(), meter, lambda m, p, split: answers[split], {"python": "3"}, {"name": "d"})


def test_the_folder_holds_what_a_user_needs_and_says_how_each_number_was_made(candidate, tmp_path):
    models, evaluation = candidate
    target = tmp_path / "export"
    exporter(FakeMeter(2.05)).export(evaluation, models, target, PREPROCESSING, {"rule": "knee"}, ["a note"])
    assert sorted(path.name for path in target.iterdir()) == [
        "labels.txt",
        "model.onnx",
        "model_card.json",
        "model_fp32.onnx",
        "preprocessing.json",
        "run.py",
        "weights.safetensors",
    ]
    card = json.loads((target / "model_card.json").read_text())
    assert card["accuracy"] == {
        "validation_quantized": 0.9,
        "validation_fp32": 0.91,
        "test_quantized": 0.8,
        "test_fp32": 0.8,
    }
    assert card["data"]["licence"] == "CC0"
    assert card["verified"]["ratio_change"] == pytest.approx(0.025)
    assert card["provenance"]["latency_ms"]["provenance"] == "measured"
    assert card["notes"] == ["a note"]
    assert not list(tmp_path.glob(".*draft"))


def test_the_native_program_ships_beside_the_model_and_gives_its_bytes(candidate, tmp_path):
    models, evaluation = candidate
    shipping = replace(exporter(FakeMeter(2.0)), native=True)
    card = shipping.export(evaluation, models, tmp_path / "export", PREPROCESSING, {})
    program, told = (tmp_path / "export" / "model.nasq").read_bytes(), card["native_program"]
    assert (told["file"], told["bytes"]) == ("model.nasq", len(program))
    assert told["sha256"] == hashlib.sha256(program).hexdigest()
    assert told["runtime"] == NativeRuntime().version
    assert told["inputs"] == [{"shape": [1, 3, 4, 6], "type": "float"}]
    assert card["files_kib"]["model.nasq"] == len(program) / 1024
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 6), dtype=np.float32)
    expected = NativeRuntime().load(tmp_path / "export" / "model.onnx").run({"input": x})[0]
    assert _kernels.Program(program).run([x])[0].tobytes() == expected.tobytes()


def test_a_program_that_cannot_ship_fails_the_export_by_name(candidate, tmp_path, monkeypatch):
    models, evaluation = candidate
    shipping = replace(exporter(FakeMeter(2.0)), native=True)
    sound = NativeSession.run
    monkeypatch.setattr(NativeSession, "run", lambda session, inputs: [y + 1 for y in sound(session, inputs)])
    with pytest.raises(
        ExportError, match=r"model.nasq cannot ship .*other bytes than model.onnx .*export.native=false"
    ):
        shipping.export(evaluation, models, tmp_path / "export", PREPROCESSING, {})
    monkeypatch.undo()
    model = onnx.load(models / "model.onnx")
    model.graph.node[0].op_type = "Atan"
    onnx.save(model, models / "model.onnx")
    with pytest.raises(ExportError, match=r"Atan is not known.*export.native=false ships without it"):
        shipping.export(evaluation, models, tmp_path / "export", PREPROCESSING, {})
    assert not (tmp_path / "export").exists()


def test_run_py_sees_exactly_what_the_search_scored(candidate, tmp_path):
    models, evaluation = candidate
    target = tmp_path / "export"
    exporter(FakeMeter(2.0)).export(evaluation, models, target, PREPROCESSING, {})
    picture = np.random.default_rng(1).integers(0, 256, (11, 9, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    shown = subprocess.run(
        [sys.executable, "-I", target / "run.py", tmp_path / "picture.png"], capture_output=True, text=True, check=True
    ).stdout.split()
    x = PREPROCESSING.normalize(PREPROCESSING.resize([picture]))
    logits = OnnxRuntime().load(target / "model.onnx").run({"input": x})[0][0]
    share = np.exp(logits - logits.max()).max() / np.exp(logits - logits.max()).sum()
    assert shown[1:] == [("cat", "dog", "eel")[int(logits.argmax())], f"{share:.3f}"]
    assert len((target / "run.py").read_text().splitlines()) == 10


def test_another_accuracy_than_recorded_is_an_error_and_leaves_no_folder(candidate, tmp_path):
    models, evaluation = candidate
    with pytest.raises(ExportError, match=r"scores 0.8980 .* recorded 0.9000"):
        exporter(FakeMeter(2.0), scores=(0.898,)).export(evaluation, models, tmp_path / "export", PREPROCESSING, {})
    assert not (tmp_path / "export").exists()
    exporter(FakeMeter(2.0), scores=(0.8995,)).export(evaluation, models, tmp_path / "export", PREPROCESSING, {})


def test_a_latency_ratio_that_moved_fails_only_after_three_tries(candidate, tmp_path):
    models, evaluation = candidate
    with pytest.raises(ExportError, match=r"\+10.0%, \+20.0%, -10.0% in 3 tries; 5.0% is allowed"):
        exporter(FakeMeter(2.2, 2.4, 1.8)).export(evaluation, models, tmp_path / "e", PREPROCESSING, {})
    card = exporter(FakeMeter(2.2, 2.4, 2.04)).export(evaluation, models, tmp_path / "e", PREPROCESSING, {})
    assert card["verified"]["tries"] == 3


def test_a_disturbed_reading_is_no_try_but_patience_ends(candidate, tmp_path):
    models, evaluation = candidate
    meter = FakeMeter(2.2, 2.4, -3.0, -3.0, 2.04)
    card = exporter(meter).export(evaluation, models, tmp_path / "e", PREPROCESSING, {})
    assert card["verified"]["tries"] == 5
    with pytest.raises(ExportError, match=r"all of 8 readings were disturbed"):
        exporter(FakeMeter(*[-3.0] * 8)).export(evaluation, models, tmp_path / "f", PREPROCESSING, {})


def test_three_times_a_wide_recorded_spread_is_allowed(candidate, tmp_path):
    models, evaluation = candidate
    noisy = replace(evaluation, provenance={"latency_ms": reading(2.0, spread=0.1).to_dict()})
    card = exporter(FakeMeter(2.25)).export(noisy, models, tmp_path / "e", PREPROCESSING, {})
    assert card["verified"]["tolerance"] == pytest.approx(0.15)


def test_predicted_costs_are_not_verified_by_timing(candidate, tmp_path):
    models, evaluation = candidate
    card = exporter(None).export(evaluation, models, tmp_path / "e", PREPROCESSING, {})
    assert card["verified"]["latency"] is None


def test_pruned_models_are_named(candidate, tmp_path):
    models, evaluation = candidate
    (models / "model_fp32.onnx").unlink()
    with pytest.raises(ExportError, match=r"model_fp32.onnx is missing"):
        exporter(FakeMeter()).export(evaluation, models, tmp_path / "e", PREPROCESSING, {})


def test_a_folder_that_is_no_export_is_never_replaced(candidate, tmp_path):
    models, evaluation = candidate
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"thesis exists and is no exported model"):
        exporter(FakeMeter(2.0)).export(evaluation, models, precious, PREPROCESSING, {})
    assert (precious / "chapter1.tex").is_file()
    exporter(FakeMeter(2.0)).export(evaluation, models, tmp_path / "e", PREPROCESSING, {"trial": 1})
    exporter(FakeMeter(2.0)).export(evaluation, models, tmp_path / "e", PREPROCESSING, {"trial": 2})
    assert json.loads((tmp_path / "e" / "model_card.json").read_text())["trial"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "models", "thesis"]
