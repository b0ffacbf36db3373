"""Energy counters replayed from a fake sysfs tree: wrap-around, no permission, frozen, zero, and a known integral."""

import builtins
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nas.device import EnergyOptions
from nas.errors import MeasurementError
from nas.measure.energy import choose, energy_per_run, energy_source
from nas.measure.energy.hwmon import FROZEN_S, Hwmon, find_rails, open_hwmon
from nas.measure.energy.zeus_cpu import ZeusCpu, open_zeus_cpu

RANGE_UJ = 262_143_328_850


@pytest.fixture
def rapl(tmp_path, monkeypatch):
    """A package with memory as the powercap driver shows them, read by zeus itself."""
    import zeus.device.cpu as zeus_cpu
    from zeus.device.cpu import rapl as zeus_rapl

    root = tmp_path / "intel-rapl"
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0/intel-rapl:0:0", "dram")):
        (root / folder).mkdir(parents=True)
        (root / folder / "name").write_text(f"{name}\n")
        (root / folder / "energy_uj").write_text("0\n")
        (root / folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    monkeypatch.setattr(zeus_rapl, "RAPL_DIR", str(root))
    zeus_rapl.rapl_is_available.cache_clear()
    monkeypatch.setattr(zeus_cpu, "_cpus", None)

    def put(package_uj, dram_uj=0):
        (root / "intel-rapl:0/energy_uj").write_text(f"{package_uj}\n")
        (root / "intel-rapl:0/intel-rapl:0:0/energy_uj").write_text(f"{dram_uj}\n")

    yield put
    zeus_rapl.rapl_is_available.cache_clear()


class Tracker:
    """In place of zeus's process that counts wrap-arounds: the test says when one was seen."""

    def __init__(self, *args):
        self.seen = 0

    def get_num_wraparounds(self):
        return self.seen


@pytest.fixture
def trackers(monkeypatch):
    from zeus.device.cpu import rapl as zeus_rapl

    made = []

    def make(*args):
        made.append(Tracker())
        return made[-1]

    monkeypatch.setattr(zeus_rapl, "RaplWraparoundTracker", make)
    return made


def test_rapl_adds_package_and_memory(rapl, trackers):
    rapl(5_000_000, 1_000_000)
    source = open_zeus_cpu()
    before = source.read_mj()
    rapl(7_500_000, 1_250_000)
    assert source.read_mj() - before == pytest.approx(2750.0)


def test_rapl_that_wrapped_waits_until_zeus_has_seen_it(rapl, trackers):
    rapl(RANGE_UJ - 1_000_000)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        trackers[0].seen = 1

    source = ZeusCpu(open_zeus_cpu()._cpus, pause)
    before = source.read_mj()
    rapl(2_000_000)
    assert source.read_mj() - before == pytest.approx(3000.0)
    assert len(pauses) == 1


def test_rapl_that_fell_and_did_not_wrap_is_refused(rapl, trackers):
    rapl(9_000_000)
    source = ZeusCpu(open_zeus_cpu()._cpus, lambda seconds: None)
    source.read_mj()
    rapl(1_000_000)
    with pytest.raises(MeasurementError, match="fell from 9000 to 1000 mJ"):
        source.read_mj()


@pytest.mark.parametrize("value", [0, 123_456_789])
def test_rapl_that_stands_still_is_refused(rapl, trackers, value):
    rapl(value)
    with pytest.raises(MeasurementError, match=r"stands still.*energy=modelled"):
        energy_source("zeus", pause=lambda seconds: None)


def test_rapl_without_permission_is_refused(rapl, trackers, monkeypatch):
    opened = builtins.open

    def denied(file, *args, **fields):
        if str(file).endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **fields)

    monkeypatch.setattr(builtins, "open", denied)
    with pytest.raises(MeasurementError, match=r"offers no counter \(.*Permission"):
        energy_source("zeus", pause=lambda seconds: None)


class Board:
    """A hwmon tree whose sensor shows the power of a moment that the test moves."""

    def __init__(self, root, chip="ina219", power_mw=lambda seconds: 2500.0):
        self.root, self.now, self.power_mw = root, 100.0, power_mw
        self.folder = root / "hwmon3"
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text(f"{chip}\n")
        self.three = chip == "ina3221"
        channels = {"in1_label": "VDD_IN", "in1_input": 5000, "in2_label": "VDD_CPU", "in2_input": 5000}
        shunts = {"in4_input": 7, "curr2_input": 100, "curr4_input": 600}  # the last one is the chip's sum
        for name, value in {**channels, **shunts}.items() if self.three else ():
            (self.folder / name).write_text(f"{value}\n")
        self.show()

    def show(self):
        power = self.power_mw(self.now - 100.0)
        if self.three:
            (self.folder / "curr1_input").write_text(f"{round(power / 5)}\n")
        else:
            (self.folder / "power1_input").write_text(f"{round(power * 1000)}\n")

    def clock(self):
        return self.now

    def source(self, **fields):
        return Hwmon(open_hwmon(root=self.root, **fields)._rails, clock=self.clock)

    def pass_time(self, source, seconds, step=0.005):
        for _ in range(round(seconds / step)):
            self.now += step
            self.show()
            source.sample()


def ramp_and_wave(seconds):
    return 3000.0 + 400.0 * seconds + 1500.0 * np.sin(2 * np.pi * 3 * seconds)


def integral_mj(start, end):
    wave = 1500.0 / (2 * np.pi * 3) * (np.cos(2 * np.pi * 3 * start) - np.cos(2 * np.pi * 3 * end))
    return 3000.0 * (end - start) + 200.0 * (end**2 - start**2) + wave


@pytest.mark.parametrize("chip", ["ina219", "ina3221"])
def test_a_trace_with_a_known_integral(tmp_path, chip):
    board = Board(tmp_path, chip, ramp_and_wave)
    source = board.source()
    edges = []
    source.sample()
    for _ in range(4):
        edges.append((board.now - 100.0, source.read_mj()))
        board.pass_time(source, 0.37)
    for (start, before), (end, after) in pairwise(edges):
        assert after - before == pytest.approx(integral_mj(start, end), rel=0.01)


def test_the_thread_samples_between_two_readings(tmp_path):
    board = Board(tmp_path)
    source = board.source()
    seen = []
    original = source.sample

    def sample():
        board.now += 0.001
        seen.append(board.now)
        original()

    source.sample = sample
    with source.watching():
        start = source.read_mj()
        while len(seen) < 5:
            pass
        spent = source.read_mj() - start
    assert spent == pytest.approx(2500.0 * (seen[-1] - seen[0]))


def test_energy_per_run_of_a_sensor_is_power_times_time_over_runs(tmp_path):
    flicker = iter(range(10**9))
    board = Board(tmp_path, power_mw=lambda seconds: 2500.0 + next(flicker) % 2)
    source = Hwmon(find_rails(tmp_path), interval_s=60.0, clock=board.clock)

    def repeat(seconds):
        board.pass_time(source, seconds)
        return 10

    found = energy_per_run(source, repeat, latency_ms=50.0, window_s=0.5)
    assert found == [pytest.approx(125.0, rel=0.01)] * 7


def test_a_sensor_that_does_not_flicker_is_refused_at_the_start(tmp_path, monkeypatch):
    board = Board(tmp_path)
    waited = []

    def pause(seconds):
        waited.append(seconds)
        board.now += seconds

    monkeypatch.setattr(choose, "open_hwmon", lambda *args: Hwmon(find_rails(tmp_path), 60.0, board.clock))
    with pytest.raises(MeasurementError, match=r"still.*energy=modelled"):
        energy_source("hwmon", pause)
    assert sum(waited) == pytest.approx(FROZEN_S, rel=0.1)


def test_a_sensor_that_freezes_later_is_refused_then(tmp_path):
    board = Board(tmp_path, power_mw=lambda seconds: 2500.0 + min(seconds, 0.1))
    source = board.source()
    board.pass_time(source, 0.2)
    with pytest.raises(MeasurementError, match="not one digit moved"):
        board.pass_time(source, FROZEN_S + 0.2)


def test_a_sensor_that_reads_nothing_is_refused(tmp_path):
    source = Board(tmp_path, power_mw=lambda seconds: 0.0).source()
    with pytest.raises(MeasurementError, match="0 mW, which no running machine draws"):
        source.read_mj()


def test_what_the_thread_saw_is_raised_by_the_next_reading(tmp_path):
    source = Hwmon(open_hwmon(root=tmp_path)._rails if Board(tmp_path) else [], interval_s=0.001)
    with source.watching():
        source.read_mj()
        (tmp_path / "hwmon3/power1_input").write_text("broken\n")
        while source._error is None:
            pass
        (tmp_path / "hwmon3/power1_input").write_text("2500000\n")
        with pytest.raises(MeasurementError, match=r"power1_input cannot be read"):
            source.read_mj()


def test_a_sensor_without_permission_is_refused(tmp_path, monkeypatch):
    source = Board(tmp_path).source()
    read = Path.read_text

    def denied(path, *args, **fields):
        if path.name == "power1_input":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **fields)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(MeasurementError, match=r"power1_input cannot be read \(PermissionError"):
        source.read_mj()


def test_rails_of_a_jetson_are_not_added_twice(tmp_path):
    Board(tmp_path, "ina3221")
    assert [rail.label for rail in find_rails(tmp_path)] == ["VDD_IN", "VDD_CPU"]
    assert [rail.label for rail in open_hwmon(root=tmp_path)._rails] == ["VDD_IN"]
    assert [rail.label for rail in open_hwmon(["VDD_CPU"], root=tmp_path)._rails] == ["VDD_CPU"]
    with pytest.raises(MeasurementError, match="no rail 'VDD_GPU'; have VDD_IN, VDD_CPU"):
        open_hwmon(["VDD_GPU"], root=tmp_path)
    (tmp_path / "hwmon3/in1_label").unlink()
    with pytest.raises(MeasurementError, match="several rails"):
        open_hwmon(root=tmp_path)


def test_other_sensors_are_no_power_meters(tmp_path):
    Board(tmp_path, "coretemp")
    with pytest.raises(MeasurementError, match="none of ina219"):
        open_hwmon(root=tmp_path)


def command(tmp_path, code):
    (tmp_path / "meter.py").write_text(code)
    options = EnergyOptions(command=(sys.executable, str(tmp_path / "meter.py")))
    return energy_source("command", lambda seconds: None, options)


def test_a_command_that_counts_joules_is_a_source(tmp_path):
    counter = tmp_path / "count"
    counter.write_text("0")
    source = command(
        tmp_path,
        f"from pathlib import Path\np = Path({str(counter)!r})\nn = float(p.read_text()) + 0.25\np.write_text(str(n))\n"
        "print('total', n)\n",
    )
    before = source.read_mj()
    assert source.read_mj() - before == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('no meter on the bus')", "status 1: no meter on the bus"),
        ("print('12 J')", "no number of joules"),
        ("print('nan')", "printed nan"),
        ("pass", "no number of joules"),
    ],
)
def test_a_command_that_gives_no_number_is_refused(tmp_path, code, says):
    with pytest.raises(MeasurementError, match=says):
        command(tmp_path, code)


def test_a_command_that_stands_still_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(choose._PROBES, "command", 2)
    with pytest.raises(MeasurementError, match="stands still"):
        command(tmp_path, "print(17.5)")


def test_a_command_has_to_be_named_and_has_to_exist():
    with pytest.raises(MeasurementError, match=r"device\.energy_command"):
        energy_source("command")
    with pytest.raises(MeasurementError, match="did not run"):
        energy_source("command", options=EnergyOptions(command=("no-such-meter",)))


class Gpus:
    def __init__(self, supports=True):
        self.supports, self.total = supports, 0

    def __len__(self):
        return 2

    def supports_get_total_energy_consumption(self, index):
        return self.supports or index == 0

    def get_total_energy_consumption(self, index):
        self.total += 10 + index
        return self.total


def test_gpus_add_up_and_a_mute_one_is_refused(monkeypatch):
    import zeus.device

    monkeypatch.setattr(zeus.device, "get_gpus", Gpus)
    assert energy_source("zeus_gpu", lambda seconds: None).name == "zeus_gpu"
    monkeypatch.setattr(zeus.device, "get_gpus", lambda: Gpus(supports=False))
    with pytest.raises(MeasurementError, match="GPU 1 does not count"):
        energy_source("zeus_gpu", lambda seconds: None)


def test_a_window_in_which_a_counter_falls_is_no_energy():
    source = SimpleNamespace(name="fake", read_mj=iter([5.0, 6.0, 9.0, 7.0, *range(100)]).__next__)
    with pytest.raises(MeasurementError, match="fell while the model ran"):
        energy_per_run(source, lambda seconds: 1, 1.0, 0.5)
