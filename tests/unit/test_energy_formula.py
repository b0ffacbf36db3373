"""Energy as arithmetic, traffic and time: what it learns, what it admits, and how it is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latency_models.energy import PRIOR_PICOJOULES, TERMS, EnergyFormula, work_of
from nas.architecture import Precision
from nas.errors import DataError
from nas.graph import Graph, Op


def conv(name: str, channels: int, size: int, dtype: Precision = Precision.FP32) -> Op:
    shape = (1, channels, size, size)
    weights = {"weight": (channels, channels, 3, 3), "bias": (channels,)}
    return Op(name, "conv", ("input",), (shape,), shape, dtype, weights)


def _made(rows: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return work, latency and energy of networks that cost 20 pJ per MAC, 30 pJ per cached byte, and 1.2 W."""
    rng = np.random.default_rng(seed)
    work = np.zeros((rows, len(TERMS)))
    work[:, 0] = rng.uniform(1e6, 2e8, rows)
    work[:, 3] = rng.uniform(1e6, 5e7, rows)
    latency = work[:, 0] / 8e6 + rng.uniform(1, 10, rows)
    energy = 20e-9 * work[:, 0] + 30e-9 * work[:, 3] + 1.2 * latency
    return work, latency, energy * rng.normal(1, noise, rows)


def test_measurements_replace_the_priors() -> None:
    model = EnergyFormula(3.0).fit(*_made(300, 0.02))
    assert model.coefficients["fp32_macs"] == pytest.approx(20, rel=0.1)
    assert model.coefficients["cache_bytes"] == pytest.approx(30, rel=0.1)
    assert model.coefficients["static_watts"] == pytest.approx(1.2, rel=0.1)
    assert model.kind == "predicted"
    work, latency, energy = _made(300, 0.02, seed=1)
    mean, std = model.predict(work, latency)
    assert np.abs(mean / energy - 1).mean() < 0.03
    assert 0.8 < (np.abs(mean - energy) <= 1.645 * std).mean() < 0.97
    assert "errs less than latency times constant watts" in model.verdict


def test_no_coefficient_is_negative() -> None:
    work, latency, _ = _made(50, 0.0)
    # The more arithmetic, the less energy: no non-negative price of a MAC explains that.
    model = EnergyFormula().fit(work, latency, 1000 - work[:, 0] / 1e6)
    assert min(model.coefficients.values()) >= 0


def test_few_rows_stay_near_the_priors() -> None:
    work, latency, _ = _made(50, 0.0, seed=3)
    spreads = [EnergyFormula().fit(*_made(rows, 0.02)).predict(work, latency)[1].mean() for rows in (0, 2, 300)]
    assert spreads[0] > spreads[1] > 2 * spreads[2]


def test_nothing_to_fit_on_is_modelled_and_wide() -> None:
    model = EnergyFormula(4.0)
    work, latency, _ = _made(5, 0.0)
    mean, std = model.predict(work, latency)
    assert model.kind == "modelled"
    assert (std > 0.5 * mean).all()
    np.testing.assert_allclose(mean, work @ PRIOR_PICOJOULES * 1e-9 + 4 * latency)
    assert "nothing was fitted" in model.verdict
    assert model.fit(np.empty((0, 5)), np.empty(0), np.empty(0)).kind == "modelled"
    assert (model.predict(work, latency, 0.5 * latency)[1] > std).all()


def test_a_formula_that_is_not_worth_it_says_so() -> None:
    work, latency, _ = _made(12, 0.0)
    model = EnergyFormula().fit(work, latency, 2.5 * latency)
    assert "is NOT better than latency times constant watts" in model.verdict


def test_stored_as_arrays_and_json(tmp_path: Path) -> None:
    model = EnergyFormula(2.0).fit(*_made(40, 0.05))
    model.save(tmp_path / "fit", {"device": "made here"})
    again, card = EnergyFormula.load(tmp_path / "fit")
    work, latency, _ = _made(10, 0.0, seed=2)
    np.testing.assert_array_equal(again.predict(work, latency), model.predict(work, latency))
    assert card == {"device": "made here"}
    assert again.verdict == model.verdict
    text = (tmp_path / "fit.npz").read_bytes()
    np.savez_compressed(tmp_path / "fit.npz", multiples=np.ones(6), covariance=np.eye(6), numbers=np.ones(4))
    with pytest.raises(DataError, match="fingerprints differ"):
        EnergyFormula.load(tmp_path / "fit")
    assert text


def test_levels_of_traffic() -> None:
    small, large = conv("small", 8, 8), conv("large", 64, 128, Precision.INT8)
    both = work_of(Graph((small, large), small.input_shapes[0]), 1024)
    assert both[0] == small.macs
    assert both[2] == large.macs
    assert both[3] == small.activation_bytes + small.weight_bytes + large.weight_bytes
    assert both[4] == large.activation_bytes
    everything = work_of(Graph((small, large), small.input_shapes[0]), 1)
    assert everything[3] == 0
