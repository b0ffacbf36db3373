"""What is read from the kernel, and devices made from it."""

import json
import os
import threading

import pytest

from nas.device import local_fingerprint
from nas.errors import ConfigError, MeasurementError
from nas.measure import host
from nas.measure.devices import make_device
from nas.measure.peaks import cache_folder, local_peaks

PEAKS = {
    "fp32_gmacs": 10.0,
    "int8_gmacs": 40.0,
    "bandwidth_gbs": 5.0,
    "op_overhead_us": 1.0,
    "source": "test",
}


def test_stolen_time_is_that_of_the_pinned_processor(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 1 1 1 1 1 1 999 0 0\ncpu0 1 1 1 1 1 1 1 50 0 0\ncpu1 1 1 1 1 1 1 1 700 0 0\nintr 5\n")
    tick = os.sysconf("SC_CLK_TCK")
    assert host.stolen_s([0], stat) == 50 / tick
    assert host.stolen_s([0, 1], stat) == 700 / tick
    assert host.stolen_s([7], stat) is None
    assert host.stolen_s([0], tmp_path / "missing") is None


def test_pinning_takes_the_last_processor_or_the_wanted_one():
    before = os.sched_getaffinity(0)
    try:
        assert host.pin([], threads=1) == (max(before),)
        os.sched_setaffinity(0, before)
        assert host.pin([min(before)], threads=1) == (min(before),)
        os.sched_setaffinity(0, before)
        assert host.pin([], threads=2) == tuple(sorted(before))
    finally:
        os.sched_setaffinity(0, before)


def test_real_time_ends_with_the_burst():
    bursts = host.RealtimeBursts(wanted=True)
    with bursts.burst():
        inside = os.sched_getscheduler(0)
    assert (inside == os.SCHED_FIFO) == bursts.permitted
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    with pytest.raises(KeyError), bursts.burst():
        raise KeyError
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert not host.RealtimeBursts(wanted=False).permitted


@pytest.mark.parametrize(("threads", "raised"), [(1, False), (2, True)])
def test_real_time_holds_for_the_threads_of_a_runtime(threads, raised):
    bursts = host.RealtimeBursts(wanted=True, threads=threads)
    started, ended = threading.Event(), threading.Event()
    worker = threading.Thread(target=lambda: (started.set(), ended.wait()))
    worker.start()
    started.wait()
    with bursts.burst():
        inside = os.sched_getscheduler(worker.native_id)
    after = os.sched_getscheduler(worker.native_id)
    ended.set()
    worker.join()
    assert (inside == os.SCHED_FIFO) == (raised and bursts.permitted)
    assert after == os.SCHED_OTHER


def test_peak_memory_sees_what_was_given_back():
    meter = host.PeakMemory()
    meter.start()
    ballast = bytearray(32 << 20)
    del ballast
    # The kernel counts resident pages per processor and in batches: some hundred KiB may be missing.
    assert 31 * 1024 <= meter.peak_kib() < 40 * 1024
    meter.start()
    assert meter.peak_kib() < 8 * 1024


def test_a_local_device_is_read_from_this_machine():
    device = make_device("local")
    assert device.isa == os.uname().machine
    assert device.cores == os.cpu_count()
    assert device.fingerprint == local_fingerprint()
    assert device.peaks is None
    assert device.energy_source is None


def test_a_device_out_of_reach_is_what_its_sheet_says():
    device = make_device("pi", isa="aarch64", cores=4, transport="none", peaks=PEAKS)
    assert device.fingerprint is None
    assert device.peaks.int8_gmacs == 40.0
    assert device.key == "name:pi/t1"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"transport": "ssl"}, "unknown transport 'ssl'; have emulated, local, none, replay, ssh"),
        ({"transport": "none"}, "expected isa, cores and peaks"),
        ({"transport": "none", "isa": "aarch64", "cores": 4, "peaks": "auto"}, "data sheet"),
        ({"threads": 0}, "threads=0; expected 1 to"),
        ({"threads": 9999}, "expected 1 to"),
        ({"affinity": [9999]}, "this process may use"),
        ({"threads": 2, "cores": 2, "affinity": [0]}, "2 threads on 1 pinned"),
        ({"peaks": "fast"}, "peaks=fast"),
        ({"peaks": {"fp32": 1}}, "expected fp32_gmacs, int8_gmacs"),
        ({"peaks": {**PEAKS, "bandwidth_gbs": 0}}, "bandwidth_gbs=0; expected more than 0"),
    ],
)
def test_settings_that_contradict_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        make_device("local", **settings)


def test_peaks_are_measured_once_and_kept(tmp_path, monkeypatch):
    cache = tmp_path / "below" / "peaks.json"
    first = local_peaks(cache)
    assert first.source.startswith("measured")
    assert first.int8_gmacs > 0
    assert first.bandwidth_gbs > 0
    assert 0 < first.op_overhead_us < 100
    monkeypatch.setattr("nas.measure.peaks.measure_local_peaks", lambda: pytest.fail("measured again"))
    assert local_peaks(cache) == first
    assert [path.name for path in cache.parent.iterdir()] == ["peaks.json"]


def test_peaks_without_the_extension_come_from_the_runtime(monkeypatch):
    import sys

    from nas.measure import peaks

    monkeypatch.setitem(sys.modules, "nas._kernels", None)
    monkeypatch.setattr(peaks, "BURST_SECONDS", 0.02)
    monkeypatch.setattr(peaks, "MATMUL_SIZE", 128)
    monkeypatch.setattr(peaks, "COPY_BYTES", 1 << 20)
    found = peaks.measure_local_peaks()
    assert "not built" in found.source
    assert found.fp32_gmacs > 0
    assert found.int8_gmacs > 0


@pytest.mark.parametrize("text", ["", "{}", '{"fingerprint": "x"}', '{"fingerprint": "x", "peaks": {"a": 1}}'])
def test_a_broken_cache_says_so(tmp_path, text):
    (tmp_path / "peaks.json").write_text(text)
    with pytest.raises(MeasurementError, match=r"no readable peaks .* Remove it"):
        local_peaks(tmp_path / "peaks.json")


def test_peaks_of_another_machine_are_refused(tmp_path):
    (tmp_path / "peaks.json").write_text(json.dumps({"fingerprint": "0123456789ab", "peaks": PEAKS}))
    with pytest.raises(MeasurementError, match="0123456789ab"):
        local_peaks(tmp_path / "peaks.json")


def test_the_cache_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hwnas"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().name == "hwnas"
    assert cache_folder().is_absolute()
