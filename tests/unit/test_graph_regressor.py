"""The regressor that validation chooses: its choice, its interval, and what it is on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latency_models.conformal import widening
from latency_models.graph import CANDIDATES, GraphRegressor, once_per_group, towards_tolerance, validation_error
from latency_models.stored import load, save
from latency_models.trees import _boosted
from nas.errors import ConfigError, DataError


def _sums(rows: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return counts and a cost that is a sum over them with 2 % noise."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (rows, 4)).astype(float)
    return {"counts": counts}, (1 + counts @ [0.5, 1, 2, 4]) * rng.normal(1, 0.02, rows)


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_each_candidate_is_the_same_after_disk(name: str, tmp_path: Path) -> None:
    blocks, target = _sums(80)
    model = GraphRegressor((name,)).fit(blocks, target, np.arange(80))
    assert model.chosen.name == name
    model.save(tmp_path / "model", {"space": "toy"})
    again, card = GraphRegressor.load(tmp_path / "model")
    assert card == {"space": "toy"}
    fresh, _ = _sums(20, 1)
    np.testing.assert_allclose(again.predict(fresh), model.predict(fresh), rtol=1e-9)


def test_loading_needs_neither_scikit_learn_nor_torch(tmp_path: Path) -> None:
    blocks, target = _sums(60)
    for name in ("trees", "network"):
        GraphRegressor((name,)).fit(blocks, target, np.arange(60)).save(tmp_path / name, {})
    code = (
        "import sys, pathlib; import numpy as np; from latency_models.graph import GraphRegressor; "
        f"folder = pathlib.Path({str(tmp_path)!r}); "
        "row = {'counts': np.ones((1, 4))}; "
        "[GraphRegressor.load(folder / name)[0].predict(row) for name in ('trees', 'network')]; "
        "sys.exit(any(name in sys.modules for name in ('sklearn', 'torch', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "m", "graph", {"a": np.ones(3)}, {})
    with pytest.raises(DataError, match="expected 'transfer'"):
        load(tmp_path / "m", "transfer")
    np.savez(tmp_path / "m.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="fingerprints differ"):
        load(tmp_path / "m", "graph")
    np.savez(tmp_path / "m.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "m", "graph")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "none", "graph")


def test_the_network_learns_what_the_ridge_cannot_and_never_speaks_of_rows_that_it_saw() -> None:
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 5, (400, 3)).astype(float)
    target = (1 + counts @ [0.5, 1, 2]) * np.where(counts[:, 0] * counts[:, 1] > 4, 1.3, 1.0)
    learn, test = np.arange(300), np.arange(300, 400)
    errors = {}
    for name in ("ridge", "network"):
        model = GraphRegressor((name,)).fit({"counts": counts[learn]}, target[learn], learn)
        errors[name] = np.abs(model._model.predict({"counts": counts[test]})[0] / target[test] - 1).mean()
        outside, _ = model._model.left_out()
        # A prediction without a row errs as one of a new row does.
        assert np.abs(outside / target[learn] - 1).mean() == pytest.approx(errors[name], rel=0.5)
    assert errors["network"] < 0.7 * errors["ridge"]


def test_an_unknown_candidate_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown candidate 'forest'"):
        GraphRegressor(("forest",))


def test_trees_as_arrays_are_those_of_the_library() -> None:
    from sklearn.ensemble import GradientBoostingRegressor

    blocks, target = _sums(100)
    rows, logs = blocks["counts"], np.log(target)
    library = GradientBoostingRegressor(
        n_estimators=150, learning_rate=0.1, max_depth=4, min_samples_leaf=5, max_features=0.3, subsample=0.7,
        init="zero", random_state=0,
    )  # fmt: skip
    expected = library.fit(rows, logs - logs.mean()).predict(rows) + logs.mean()
    np.testing.assert_allclose(_boosted(rows, logs).predict(rows), expected, rtol=1e-9)


def test_the_interval_covers_what_it_says() -> None:
    blocks, target = _sums(600)
    learn, test = np.arange(300), np.arange(300, 600)
    model = GraphRegressor(("process",)).fit({"counts": blocks["counts"][learn]}, target[learn], learn)
    mean, std = model.predict({"counts": blocks["counts"][test]})
    assert 0.83 <= (np.abs(mean - target[test]) <= 1.645 * std).mean() <= 0.96


def test_the_interval_does_not_know_which_rows_will_take_longer() -> None:
    blocks, target = _sums(2000)
    rng = np.random.default_rng(2)
    # Every sixth measurement is a third larger, and no feature says which.
    target = target * np.where(rng.random(2000) < 1 / 6, 1.33, 1.0) * rng.normal(1, 0.05, 2000)
    learn, test = np.arange(600), np.arange(600, 2000)
    model = GraphRegressor(("process",)).fit({"counts": blocks["counts"][learn]}, target[learn], learn)
    mean, std = model.predict({"counts": blocks["counts"][test]})
    assert 0.86 <= (np.abs(mean - target[test]) <= 1.645 * std).mean() <= 0.94


def test_a_tail_on_one_side_moves_the_prediction_and_noise_on_both_does_not() -> None:
    rng = np.random.default_rng(3)
    mean, weights = rng.uniform(1, 5, 4000), np.ones(4000)
    even = mean * rng.normal(1, 0.04, 4000)
    assert towards_tolerance(even, mean, weights) == pytest.approx(1, abs=0.005)
    assert towards_tolerance(even, 0.97 * mean, weights) == pytest.approx(1 / 0.97, abs=0.01)
    # A tenth of the measurements takes 11 to 13 % longer: just beyond 10 %.
    tail = mean * rng.normal(1, 0.015, 4000) * np.where(rng.random(4000) < 0.1, rng.uniform(1.11, 1.13, 4000), 1)
    shift = towards_tolerance(tail, mean, weights)
    before, after = (np.abs(factor * mean / tail - 1) for factor in (1.0, shift))
    assert (after <= 0.1).mean() > (before <= 0.1).mean() + 0.01
    assert after.mean() <= 1.05 * before.mean()


def test_a_disturbed_machine_bends_nothing() -> None:
    blocks, target = _sums(300)
    honest = target.copy()
    target[:12] *= 3
    mean, _ = GraphRegressor(("process",)).fit(blocks, target, np.arange(300)).predict(blocks)
    assert np.abs(mean / honest - 1)[12:].mean() < 0.03


def test_widening_is_the_quantile_that_holds_nine_in_ten() -> None:
    residuals = np.arange(1.0, 100.0)
    factor = widening(residuals, np.ones(99))
    assert (residuals <= factor * 1.6448536269514722).mean() == pytest.approx(0.9, abs=0.011)
    doubled = widening(np.repeat(residuals, 2), np.ones(198), weights=np.full(198, 0.5))
    assert doubled == pytest.approx(factor, rel=0.02)


def test_validation_counts_each_group_once() -> None:
    weights = once_per_group(np.array([1, 1, 1, 1, 2]))
    assert weights.tolist() == [0.25, 0.25, 0.25, 0.25, 1.0]
    target = np.array([1.0, 1, 1, 1, 2])
    bad_group = validation_error(target, np.array([1.1, 1.1, 1.1, 1.1, 2]), weights)
    bad_single = validation_error(target, np.array([1.0, 1, 1, 1, 2.2]), weights)
    assert bad_group == pytest.approx(bad_single)
