"""An energy counter exists only if it was seen to count."""

from types import SimpleNamespace

import pytest

from nas.device import Device
from nas.errors import ConfigError, MeasurementError
from nas.measure import energy
from nas.measure.energy import ZeusCpu, energy_source
from nas.measure.local import LocalMeter
from nas.measure.settings import TimingSettings
from nas.runtime.onnx_runtime import OnnxRuntime


class Cpus:
    """Like zeus: two packages, one of which counts its memory too."""

    def __init__(self, step_mj):
        self.cpus = ["package0", "package1"]
        self.step, self.total = step_mj, 0.0

    def get_total_energy_consumption(self, index):
        self.total += self.step
        return SimpleNamespace(cpu_mj=self.total, dram_mj=1.0 if index == 0 else None)


def offer(monkeypatch, cpus):
    import zeus.device

    def get_cpus():
        if isinstance(cpus, Exception):
            raise cpus
        return cpus

    monkeypatch.setattr(zeus.device, "get_cpus", get_cpus)


def test_packages_and_memory_add_up():
    assert ZeusCpu(Cpus(10.0)).read_mj() == 10 + 20 + 1


def test_a_counter_that_moves_is_a_source(monkeypatch):
    offer(monkeypatch, Cpus(10.0))
    for name in ("zeus", "measured"):
        source = energy_source(name, pause=lambda seconds: None)
        assert source.name == "zeus"
        assert source.read_mj() > 0


@pytest.mark.parametrize(
    ("cpus", "says"),
    [
        (Cpus(0.0), "stands still"),
        (SimpleNamespace(cpus=[]), "found no processor"),
        (RuntimeError("RAPL not there"), "RAPL not there"),
        (SimpleNamespace(cpus=["package0"]), "cannot be read"),
    ],
)
def test_no_counter_is_an_error_with_a_way_out(monkeypatch, cpus, says):
    offer(monkeypatch, cpus)
    with pytest.raises(MeasurementError, match=f"{says}.*energy=modelled"):
        energy_source("zeus", pause=lambda seconds: None)
    assert energy.available_source("zeus") is None


def test_a_misspelt_source_is_corrected():
    with pytest.raises(ConfigError, match="Did you mean 'zeus'"):
        energy_source("zues")


def test_a_meter_stops_at_the_start_without_its_source(monkeypatch):
    offer(monkeypatch, RuntimeError("no RAPL"))
    device = Device("here", "any", 1)
    for wanted in ({"energy": "measured"}, {"energy": "zeus"}):
        with pytest.raises(MeasurementError, match="energy=modelled"):
            LocalMeter(device, OnnxRuntime(), TimingSettings(), **wanted)


class Counter:
    name = "fake"

    def __init__(self, readings):
        self.readings = iter(readings)

    def read_mj(self):
        return next(self.readings)


def take(readings):
    """Energy of a child that makes 10 runs per window."""
    meter = LocalMeter(Device("here", "any", 1), OnnxRuntime(), TimingSettings())
    meter._energy = Counter(readings)
    child = SimpleNamespace(request=lambda *args, **fields: {"runs": 10, "elapsed_s": 0.5})
    return meter._take_energy(child, SimpleNamespace(median=1.0), "device")


def test_energy_is_the_median_over_windows_per_run():
    spent = [20, 21, 22, 23, 24, 25, 400]
    readings = [value for mj in spent for value in (1000, 1000 + mj)]
    found = take(readings)
    assert found.unit == "mJ"
    assert found.median == pytest.approx(2.3)
    assert found.count == 7
    assert found.spread > 0


def test_a_counter_that_stops_is_no_zero():
    with pytest.raises(MeasurementError, match="stood still"):
        take([5.0] * 14)
