"""``nas fit`` in a tiny setting, then ``nas predict`` and a search's model from what it saved."""

import json
from pathlib import Path

import numpy as np
import pytest

from nas.cli import main
from nas.config.campaign import write_untrained
from nas.data import Task
from search_spaces.transformer import Transformer


def test_fit_then_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    fit = ["fit", "space=toy,convnet", "runtime=onnxruntime,native", "data.resolutions=[8]", "data.channels=[3]"]
    quick = ["networks=24", "minutes=10", "rounds=5", "batch=24", f"folder={models}", "name=tiny", "output=json"]
    assert main([*fit, *quick]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["models"]) == {"onnxruntime", "native"}
    assert report["spaces"] == ["convnet", "toy"]
    assert report["saved"] == str(models / "tiny")
    assert report["failures"]["count"] == 0
    for found in report["models"].values():
        assert found["n_train"] + found["n_test"] == 24
        assert set(found["baseline"]) == {"additive", "additive_profiles", "roofline"}

    space = Transformer(Task("image_classification", channels=3, classes=10), [8])
    architecture = space.sample(np.random.default_rng(0))
    file = tmp_path / "mine.onnx"
    write_untrained(space.lower(architecture), architecture.precision, file, np.random.default_rng(0))
    assert main(["predict", str(file), f"folder={models}", "runtime=native", "output=json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["model"] == str(models / "tiny")
    assert said["card"]["spaces"] == ["convnet", "toy"]
    assert any("softmax" in kind for kind in said["unknown"])  # no convnet has one
    assert any("never timed" in doubt for doubt in said["doubts"])
    low, high = said["interval_90_ms"]
    assert low < said["latency_ms"]["mean"] < high
    assert sum(part["latency_ms"] for part in said["parts"]) == pytest.approx(said["latency_ms"]["mean"])

    assert main(["predict", str(file), f"folder={tmp_path / 'none'}"]) == 0
    assert "nothing was fitted for device 'local'" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "my.onnx"), f"model={models / 'tiny'}"]) == 1
    assert "mine.onnx" in capsys.readouterr().err
    assert main(["predict", str(file), f"model={tmp_path}"]) == 2
    assert "no card.json" in capsys.readouterr().err
    assert main(["fit", "device=rpi5"]) == 2
    assert "out of reach" in capsys.readouterr().err


def test_a_search_takes_a_folder_for_its_cost_model(tmp_path: Path) -> None:
    from nas.config.compose import Request, resolve

    config = resolve(Request("search", ("cost=predicted", f"cost.model={tmp_path}")))
    assert config["cost"]["model"] == str(tmp_path)
