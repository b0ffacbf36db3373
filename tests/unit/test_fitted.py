"""What ``nas fit`` saves is served, for its device and with doubts elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latency_models.fitted import FittedLatency
from latency_models.local_fit import LocalFitter
from nas.config.instantiate import instantiate
from nas.config.models import latency_model, newest_model, read_card
from nas.cost_protocols import ExplainingModel, LatencyModel, TimedNetwork
from nas.data import Task
from nas.device import Device, Peaks
from nas.errors import ConfigError, DataError, MeasurementError
from nas.measurement import Measurement
from nas.protocols import Runtime
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from search_spaces.convnet import ConvNet

SPACE = ConvNet(Task("image_classification", channels=3, classes=10), [8, 16])
DEVICE = Device("bench", "x86_64", 1, peaks=Peaks(10, 40, 10, 1, "made up"))
RUNTIME = OnnxRuntime()


def timed(count: int, factor: float = 1.0) -> list[TimedNetwork]:
    """Networks on a device that takes 10 us per op and 2 ns per MAC."""
    rng, found = np.random.default_rng(1), []
    for index in range(count):
        architecture = SPACE.sample(rng)
        graph = SPACE.lower(architecture)
        spent = factor * (1e-2 * len(graph.ops) + 2e-6 * graph.macs) * rng.normal(1, 0.01)
        reading = Measurement(spent, spent, 0.0, 10, 1, "ms", DEVICE.key, RUNTIME.version, 0.0)
        again = (reading,) * (2 if index < 4 else 1)
        found.append(TimedNetwork("convnet", "mixed", architecture.id, graph, {RUNTIME.name: again}))
    return found


def facts(**changed: Any) -> dict[str, Any]:
    settled = {
        "made": "2026-11-24T00:00:00+00:00",
        "device": DEVICE.name,
        "device_key": DEVICE.key,
        "runtimes": {RUNTIME.name: RUNTIME.version},
        "settings": {"seed": 0},
    }
    return {**settled, **changed}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "first"
    LocalFitter().fit(timed(80), DEVICE, target, facts())
    return target


def test_the_card_tells_scores_beside_the_roofline(folder: Path) -> None:
    card = read_card(folder)
    found = card["models"]["onnxruntime"]
    assert (found["n_train"], found["n_test"]) == (64, 16)
    assert set(found["baseline"]) == {"additive", "roofline"}
    assert found["scores"]["mape"] < found["baseline"]["roofline"]["mape"]
    assert found["scores"]["kendall"] > 0.9
    assert found["repeats"]["networks"] >= 2
    assert found["repeats"]["mape"] == 0
    assert not list(folder.glob("*.pkl"))


def test_a_folder_serves_as_a_latency_model(folder: Path) -> None:
    model = latency_model(str(folder), RUNTIME)
    assert isinstance(model, ExplainingModel)
    network = timed(3)[2]
    estimate = model.predict(network.graph, DEVICE)
    assert estimate.kind == "predicted"
    assert estimate.mean == pytest.approx(network.times["onnxruntime"][0].median, rel=0.2)
    assert not model.doubts(network.graph, DEVICE)
    again: LatencyModel = instantiate(
        {"_target_": "latency_models.fitted.FittedLatency", "folder": str(folder)}, runtime=RUNTIME
    )
    assert again.predict(network.graph, DEVICE) == estimate


def test_another_device_and_another_version_widen(folder: Path) -> None:
    graph = timed(1)[0].graph
    here = FittedLatency(str(folder), RUNTIME)
    other = Device("other", "aarch64", 4)
    assert here.predict(graph, other).std == pytest.approx(4 * here.predict(graph, DEVICE).std)
    assert any("not on 'other'" in doubt for doubt in here.doubts(graph, other))

    class Newer:
        name, version = "onnxruntime", "onnxruntime-99"

    newer: Any = Newer()
    newest = FittedLatency(str(folder), newer)
    assert newest.predict(graph, DEVICE).std == pytest.approx(1.5 * here.predict(graph, DEVICE).std)
    assert any("onnxruntime-99" in doubt for doubt in newest.doubts(graph, DEVICE))


def test_measurements_shift_it(folder: Path) -> None:
    model = FittedLatency(str(folder), RUNTIME)
    slower = [(one.graph, DEVICE, one.times["onnxruntime"][0]) for one in timed(20, factor=1.5)]
    before = model.predict(slower[0][0], DEVICE).mean
    model.fit([])
    assert model.predict(slower[0][0], DEVICE).mean == before
    model.fit(slower)
    assert 1.35 < model.predict(slower[0][0], DEVICE).mean / before < 1.6
    assert 1.35 < sum(part.latency_ms for part in model.parts(slower[0][0], DEVICE)) / before < 1.6
    bad = Measurement(-1.0, 0, 0, 1, 0, "ms", "", "", 0.0)
    with pytest.raises(MeasurementError, match="above 0"):
        model.fit([(slower[0][0], DEVICE, bad)])


def test_the_newest_of_the_device_is_found(folder: Path) -> None:
    LocalFitter().fit(timed(30), DEVICE, folder.parent / "second", facts(made="2026-11-25T00:00:00+00:00"))
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "card.json").write_text("{")
    native: Runtime = NativeRuntime()
    assert newest_model(folder.parent, DEVICE, RUNTIME) == folder.parent / "second"
    assert newest_model(folder.parent, DEVICE, native) is None
    assert newest_model(folder.parent, Device("other", "x86_64", 1), RUNTIME) is None


def test_bad_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no card\.json"):
        latency_model(str(tmp_path), RUNTIME)
    with pytest.raises(DataError, match="no model of runtime 'native'"):
        latency_model(str(folder), NativeRuntime())
    card = json.loads((folder / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "_target_": "os.system"}))
    with pytest.raises(ConfigError, match="refused"):
        latency_model(str(tmp_path), RUNTIME)
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="cannot be read"):
        latency_model(str(tmp_path), RUNTIME)
    with pytest.raises(MeasurementError, match="to learn from"):
        LocalFitter().fit(timed(6), DEVICE, tmp_path / "few", facts())
    with pytest.raises(ConfigError, match="between 0 and 1"):
        LocalFitter(test_share=1.0)
    assert not (tmp_path / "few").exists()
