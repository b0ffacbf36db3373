"""The compiled extension: what it says of the processor, its exact dot products, and its upper bounds."""

from __future__ import annotations

import platform
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nas import _kernels

CPUINFO = Path("/proc/cpuinfo")
LENGTHS = (0, 1, 15, 16, 31, 32, 63, 64, 65, 127, 1000, 32_768, 32_769, 100_003)
# Which int8 kernel a level runs: its own, or the best of a lower level.
INT8_KERNEL = {"avx512": "avx2", "neoni8mm": "neondot"}


@pytest.fixture(autouse=True)
def _no_forced_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_FORCE_ISA", raising=False)


def _operands(length: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, length, dtype=np.uint8), rng.integers(-128, 128, length, dtype=np.int8)


@pytest.mark.skipif(not CPUINFO.is_file(), reason="needs /proc/cpuinfo to compare with")
def test_features_agree_with_the_operating_system() -> None:
    lines = (line.split(":", 1) for line in CPUINFO.read_text().splitlines() if ":" in line)
    flags = {flag for key, value in lines if key.strip() in {"flags", "Features"} for flag in value.split()}
    features = _kernels.cpu_features()
    assert features == {name: name in flags for name in features}
    assert features or platform.machine() not in {"x86_64", "aarch64"}


def test_portable_is_always_available() -> None:
    assert _kernels.available_isas()[0] == "portable"


@pytest.mark.parametrize("isa", _kernels.available_isas())
@pytest.mark.parametrize("length", LENGTHS)
def test_dot_product_is_exact_on_every_isa(isa: str, length: int) -> None:
    a, b = _operands(length, seed=length)
    expected = int(a.astype(np.int64) @ b.astype(np.int64))
    assert _kernels.dot_u8s8(a, b, isa) == (expected, INT8_KERNEL.get(isa, isa))
    assert _kernels.dot_u8s8(a, b, "portable") == (expected, "portable")


@pytest.mark.parametrize("isa", _kernels.available_isas())
@pytest.mark.parametrize("weight", [-128, 127])
def test_dot_product_does_not_saturate(isa: str, weight: int) -> None:
    length = 50_000  # 50,000 * 255 * 128 no longer fits in 31 bits
    a, b = np.full(length, 255, dtype=np.uint8), np.full(length, weight, dtype=np.int8)
    assert _kernels.dot_u8s8(a, b, isa)[0] == length * 255 * weight


def test_dot_product_reads_unaligned_operands() -> None:
    a, b = _operands(1003, seed=1)
    for isa in _kernels.available_isas():
        assert _kernels.dot_u8s8(a[3:], b[1:-2], isa)[0] == int(a[3:].astype(np.int64) @ b[1:-2].astype(np.int64))


def test_dot_product_refuses_what_it_cannot_read() -> None:
    a, b = _operands(64, seed=2)
    with pytest.raises(ValueError, match="a has 64 elements and b has 63; expected equal lengths"):
        _kernels.dot_u8s8(a, b[:-1])
    with pytest.raises(TypeError):
        _kernels.dot_u8s8(a[::2], b[:32])
    with pytest.raises(TypeError):
        _kernels.dot_u8s8(a.astype(np.int64), b)


@pytest.mark.parametrize("isa", _kernels.available_isas())
def test_forced_isa_decides_what_runs(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_FORCE_ISA", isa)
    a, b = _operands(256, seed=3)
    assert _kernels.dot_u8s8(a, b)[1] == INT8_KERNEL.get(isa, isa)


def test_forced_isa_decides_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_FORCE_ISA", "portable")
    peaks = _kernels.measure_peaks(0.001)
    assert (peaks["fp32_isa"], peaks["int8_isa"]) == ("portable", "portable")


def test_best_isa_is_the_default() -> None:
    best = _kernels.available_isas()[-1]
    a, b = _operands(256, seed=4)
    assert _kernels.dot_u8s8(a, b) == _kernels.dot_u8s8(a, b, best)


def test_unknown_isa_is_refused_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_FORCE_ISA", "avx3")
    offered = ", ".join(_kernels.available_isas())
    with pytest.raises(ValueError, match=f"unknown ISA 'avx3' given as NAS_FORCE_ISA; available here: {offered}"):
        _kernels.measure_peaks(0.001)
    a, b = _operands(8, seed=5)
    with pytest.raises(ValueError, match=f"unknown ISA 'sse9' given as isa; available here: {offered}"):
        _kernels.dot_u8s8(a, b, "sse9")


def test_isa_that_the_processor_lacks_is_refused() -> None:
    known = {"x86_64": {"avx2", "avx_vnni", "avx512vl_vnni", "avx512", "avx512_vnni"}, "aarch64": {"neon", "neondot"}}
    lacking = known.get(platform.machine(), set()) - set(_kernels.available_isas())
    if not lacking:
        pytest.skip("this processor has every ISA that the build knows")
    a, b = _operands(8, seed=6)
    for isa in lacking:
        with pytest.raises(ValueError, match=f"this processor lacks the ISA '{isa}'"):
            _kernels.dot_u8s8(a, b, isa)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 61.0, float("nan"), float("inf")])
def test_measuring_time_out_of_range_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="expected more than 0 and at most 60"):
        _kernels.measure_peaks(seconds)


def test_peaks_are_of_a_plausible_size() -> None:
    peaks = _kernels.measure_peaks(0.1)
    # Kernels that the compiler optimized away would pass a billion billion; a core does not pass these.
    assert 0.01 < peaks["fp32_gmacs"] < 1000
    assert 0.01 < peaks["int8_gmacs"] < 10_000
    assert 0.01 < peaks["bandwidth_gbs"] < 1000


def test_another_thread_runs_while_peaks_are_measured() -> None:
    entered, stop = threading.Event(), threading.Event()
    ticks: list[None] = []

    def tick() -> None:
        entered.set()
        while not stop.wait(0.001):
            ticks.append(None)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        assert entered.wait(10)
        before = len(ticks)
        _kernels.measure_peaks(0.2)
        during = len(ticks) - before
    finally:
        stop.set()
        thread.join()
    assert during > 1  # one tick may slip in at either edge of the call, more only inside it
