"""Measurements noted by one meter and played back by another."""

import json
from pathlib import Path

import pytest

from nas.device import Device, local_fingerprint
from nas.errors import MeasurementError
from nas.measure.devices import make_device
from nas.measure.meters import make_meter
from nas.measure.replay import Recorder, ReplayMeter
from nas.measure.settings import TimingSettings
from nas.measurement import Measurement
from nas.runtime.onnx_runtime import OnnxRuntime

HERE = Device("here", "any", 2, fingerprint=local_fingerprint())


def measurement(median, unit="ms"):
    return Measurement(median, median, 0.1, 9, 5, unit, HERE.fingerprint.id, "onnxruntime-1", 12.5, 2.0, 0.01)


class Fake:
    """Takes the size of a file for its latency."""

    has_energy = False

    def measure(self, model):
        size = float(model.stat().st_size)
        return {"latency_ms": measurement(size), "memory_kib": measurement(10 * size, "KiB")}

    def compare(self, models, rounds):
        return [self.measure(model)["latency_ms"] for model in models]


@pytest.fixture
def models(tmp_path):
    found = []
    for name, data in (("one", b"abc"), ("two", b"abcde")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(data)
        found.append(tmp_path / name / "model.onnx")
    return found


@pytest.fixture
def recording(models, tmp_path):
    file = tmp_path / "notes" / "recording.json"
    for model in models:  # each worker has a recorder of its own
        Recorder(Fake(), HERE, file).measure(model)
    return file


def replay(file):
    return make_device("again", transport="replay", recording=str(file))


def test_what_was_noted_is_played_back(models, recording):
    device = replay(recording)
    meter = make_meter(device, OnnxRuntime(), TimingSettings())
    assert device.fingerprint == HERE.fingerprint
    assert meter.measure(models[0]) == Fake().measure(models[0])
    assert meter.compare([models[1], models[0]], 3) == Fake().compare([models[1], models[0]], 3)
    assert not meter.has_energy


def test_bytes_are_found_under_any_name_and_architectures_with_any_bytes(models, recording, tmp_path):
    meter = ReplayMeter(replay(recording))
    (tmp_path / "copy.onnx").write_bytes(b"abc")
    assert meter.measure(tmp_path / "copy.onnx")["latency_ms"].median == 3
    models[1].write_bytes(b"trained anew")
    assert meter.measure(models[1])["latency_ms"].median == 5
    (tmp_path / "exported.onnx").write_bytes(b"trained anew")
    assert meter.measure(tmp_path / "exported.onnx")["latency_ms"].median == 5


def test_what_was_not_recorded_is_an_error_and_no_guess(recording, tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"xyz")
    with pytest.raises(MeasurementError, match=r"no measurement of .*other\.onnx .*device\.record=FILE"):
        ReplayMeter(replay(recording)).measure(tmp_path / "other.onnx")
    with pytest.raises(MeasurementError, match="expected a model file"):
        ReplayMeter(replay(recording)).measure(tmp_path / "missing.onnx")


def test_a_replay_is_not_mixed_with_the_device_itself(recording):
    assert replay(recording).key == f"replay:{HERE.key}"


def test_energy_is_there_only_if_every_model_has_it(models, recording):
    content = json.loads(recording.read_text())
    entries = list(content["models"].values())
    for entry in entries:
        assert not ReplayMeter(replay(recording)).has_energy
        entry["energy_mj"] = measurement(1.0, "mJ").to_dict()
        recording.write_text(json.dumps(content))
    assert ReplayMeter(replay(recording)).has_energy


def test_a_recording_of_another_device_is_not_continued(recording):
    other = Device("other", "any", 1, fingerprint=None)
    with pytest.raises(MeasurementError, match="another device than 'other'"):
        Recorder(Fake(), other, recording)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 1, "models": {}}', '{"version": 2, "fingerprint": null, "models": {}}']
)
def test_a_file_that_is_no_recording_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(MeasurementError, match=r"r\.json: (no recording|expected version)"):
        replay(tmp_path / "r.json")


def test_a_fingerprint_that_was_edited_is_refused(recording):
    content = json.loads(recording.read_text())
    content["fingerprint"]["cpu"] = "a faster one"
    recording.write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match="claims to be"):
        replay(recording)


def test_a_broken_entry_is_an_error(models, recording):
    content = json.loads(recording.read_text())
    content["models"] = {name: {"latency_ms": {"median": 1}} for name in content["models"]}
    recording.write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match="no measurement"):
        ReplayMeter(replay(recording)).measure(Path(models[0]))
