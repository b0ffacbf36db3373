"""A roofline's constants from measured networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latency_models.calibration import Calibration, Work, calibrate


def _networks(seed: int) -> Work:
    rng = np.random.default_rng(seed)
    macs = np.array([0, 0, 1e5, 3e6, 5e6, 2e7])
    moved = np.array([1e5, 2e6, 5e5, 1e5, 4e5, 3e5])
    return Work(rng.integers(0, 10, (200, 6)).astype(float) + 1, macs, moved)


def test_constants_are_found_again() -> None:
    work = _networks(0)
    measured = work.latency_ms(8.0, 4.0, 20.0) * np.random.default_rng(1).normal(1, 0.02, 200)
    found = calibrate([(work, measured)], 0.7, believed=(8.0, 4.0, 20.0))
    assert found.fp32_gmacs == pytest.approx(8, rel=0.05)
    assert found.bandwidth_gbs == pytest.approx(4, rel=0.05)
    assert found.op_overhead_us == pytest.approx(20, rel=0.3)
    assert found.inside == pytest.approx(0.02, abs=0.01)
    assert found.outside == 0.7
    # Another belief moves bandwidth and overhead, which these networks hardly tell apart, more than it moves the times.
    pulled = calibrate([(work, measured)], 0.7, believed=(10.0, 10.0, 5.0))
    assert pulled.bandwidth_gbs > found.bandwidth_gbs
    assert pulled.inside < 0.1


def test_tables_weigh_alike_and_their_distance_shows() -> None:
    work = _networks(0)
    fast, slow = work.latency_ms(8.0, 4.0, 20.0), 4 * work.latency_ms(8.0, 4.0, 20.0)
    rare = Work(work.counts[:20], work.macs, work.bytes)
    found = calibrate([(work, fast), (rare, slow[:20])], 0.0)
    middle = np.median(found.latency_ms(work) / fast)
    assert 1.5 < middle < 2.7
    assert found.inside == pytest.approx(np.log(2), abs=0.1)


def test_stored(tmp_path: Path) -> None:
    made = Calibration(8.0, 4.0, 20.0, 0.1, 0.7)
    made.save(tmp_path / "roofline", {"device": "x"})
    assert Calibration.load(tmp_path / "roofline") == (made, {"device": "x"})
