"""Few-shot adaptation: what it may look at, and what a handful of measurements on a new device is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from latency_models.gaussian_process import GaussianProcess
from latency_models.transfer import FewShot
from nas.errors import ConfigError, MeasurementError


def _world(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return features of 300 architectures, and their costs on 7 devices that weigh three kinds of work differently."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, (300, 3)).astype(float)
    prices = rng.uniform(0.2, 3, (3, 7))
    costs = (1 + counts @ prices) * rng.normal(1, 0.02, (300, 7)) * rng.uniform(1, 100, 7)
    return {"counts": counts}, costs


def test_ten_measurements_rank_a_new_device() -> None:
    blocks, costs = _world()
    pool, test = np.arange(150), np.arange(150, 300)
    known, new = costs[:, :6], costs[:, 6]
    model = FewShot().fit_sources({k: v[pool] for k, v in blocks.items()}, known[pool])
    rows = model.choose(10)
    assert len(set(rows.tolist())) == 10
    mean, std = model.adapt(rows, new[pool][rows]).predict({k: v[test] for k, v in blocks.items()})
    alone = max(spearmanr(known[test, device], new[test])[0] for device in range(6))
    assert spearmanr(mean, new[test])[0] > max(alone, 0.97)
    assert np.abs(mean / new[test] - 1).mean() < 0.05
    assert 0.75 < (np.abs(mean - new[test]) < 1.645 * std).mean() <= 1


def test_a_device_that_surprises_gets_the_wider_interval() -> None:
    widths = []
    for noise in (0.01, 0.1):
        shares, covered = [], []
        for seed in range(4):
            blocks, costs = _world(10 + seed)
            pool, test = np.arange(150), np.arange(150, 300)
            new = costs[:, 6] * np.random.default_rng(seed).normal(1, noise, 300)
            model = FewShot().fit_sources({k: v[pool] for k, v in blocks.items()}, costs[pool, :6])
            rows = model.choose(10)
            mean, std = model.adapt(rows, new[pool][rows]).predict({k: v[test] for k, v in blocks.items()})
            shares.append(np.median(std / mean))
            covered.append((np.abs(mean - new[test]) < 1.645 * std).mean())
        widths.append(np.mean(shares))
        assert 0.75 < np.mean(covered) < 0.99
    assert widths[1] > 2 * widths[0]


def test_too_few_measurements_keep_the_interval_that_known_devices_needed() -> None:
    blocks, costs = _world(5)
    model = FewShot().fit_sources(blocks, costs[:, :6])
    rows = model.choose(2)
    mean, std = model.adapt(rows, costs[rows, 6]).predict(blocks)
    # Two measurements are met exactly by a scale and a slope, which is no sign that all others will be.
    assert (np.abs(mean - costs[:, 6]) < 1.645 * std).mean() > 0.7


def test_leaving_a_row_out_is_fitting_without_it_for_every_device() -> None:
    blocks, costs = _world(6)
    noise = np.ones(60)
    part, several = {"counts": blocks["counts"][:60]}, costs[:60, :3]
    process = GaussianProcess(iterations=5).fit(part, several, noise)
    mean, std = process.left_out(np.arange(60), noise)
    assert mean.shape == std.shape == several.shape
    alone = GaussianProcess(iterations=5).fit(part, several[:, 1], noise)
    alone.theta = process.theta
    alone._condition()
    np.testing.assert_allclose(mean[:, 1], alone.left_out(np.arange(60), noise)[0], rtol=1e-6)
    np.testing.assert_allclose(std[:, 1], alone.left_out(np.arange(60), noise)[1], rtol=1e-6)


def test_the_choice_sees_known_devices_only() -> None:
    blocks, costs = _world(1)
    first = FewShot().fit_sources(blocks, costs[:, :6]).choose(10)
    again = FewShot().fit_sources(blocks, costs[:, :6]).choose(10)
    np.testing.assert_array_equal(first, again)


def test_units_do_not_matter() -> None:
    blocks, costs = _world(2)
    means = []
    for factor in (1.0, 1e-3):
        model = FewShot().fit_sources(blocks, costs[:, :4])
        rows = model.choose(10)
        means.append(model.adapt(rows, costs[rows, 6] * factor).predict(blocks)[0] / factor)
    np.testing.assert_allclose(means[0], means[1], rtol=1e-6)


def test_one_known_device_is_enough_and_none_is_refused() -> None:
    blocks, costs = _world(3)
    model = FewShot().fit_sources(blocks, costs[:, :1])
    rows = model.choose(10)
    mean, std = model.adapt(rows, costs[rows, 6]).predict(blocks)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    with pytest.raises(ConfigError, match="at least one known device"):
        FewShot().fit_sources(blocks, costs[:, :0])


def test_a_saved_model_chooses_adapts_and_predicts_alike(tmp_path: Path) -> None:
    blocks, costs = _world(4)
    model = FewShot().fit_sources(blocks, costs[:, :4])
    model.save(tmp_path / "sources", {"space": "made here"})
    again, card = FewShot.load(tmp_path / "sources")
    assert card == {"space": "made here"}
    rows = model.choose(10)
    np.testing.assert_array_equal(again.choose(10), rows)
    with pytest.raises(MeasurementError, match="call adapt"):
        again.predict(blocks)
    expected = model.adapt(rows, costs[rows, 6]).predict(blocks)
    model.save(tmp_path / "adapted", {})
    for other in (again.adapt(rows, costs[rows, 6]), FewShot.load(tmp_path / "adapted")[0]):
        np.testing.assert_allclose(other.predict(blocks), expected, rtol=1e-9)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".npz", ".npz"]
