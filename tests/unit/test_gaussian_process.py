"""The Gaussian process: its gradient, its left-out predictions, and that it finds what is there."""

from __future__ import annotations

import numpy as np
from scipy.optimize import check_grad

from latency_models.gaussian_process import GaussianProcess, _negative_evidence


def _data(rows: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    blocks = {"a": rng.integers(0, 3, (rows, 4)).astype(float), "b": rng.normal(size=(rows, 2))}
    return blocks, 3 + blocks["a"] @ [1.0, 2, 0, 0.5] + np.sin(2 * blocks["b"][:, 0])


def test_gradient_is_that_of_the_evidence() -> None:
    blocks, target = _data(20)
    products = [block @ block.T / 4 for block in blocks.values()]
    distances = [np.diag(p)[:, None] + np.diag(p)[None] - 2 * p for p in products]
    noise = np.linspace(0.5, 2, 20)
    centred = np.c_[(target - target.mean()) / target.std(), np.sin(target)]
    theta = np.array([-1.0, -2, -1.5, -0.5, -1, -3, -2])

    def loss(x: np.ndarray) -> float:
        return _negative_evidence(x, products, distances, centred, noise)[0]

    def slope(x: np.ndarray) -> np.ndarray:
        return _negative_evidence(x, products, distances, centred, noise)[1]

    assert check_grad(loss, slope, theta) < 1e-4


def test_left_out_is_what_a_fit_without_the_group_predicts() -> None:
    blocks, target = _data(40)
    groups = np.arange(40) // 2
    process = GaussianProcess(iterations=20).fit(blocks, target, np.ones(40))
    mean, std = process.left_out(groups, np.ones(40))
    kept = groups != 7
    covariance = process._covariance(process.theta, process._rows, process._rows)
    noisy = covariance + np.diag(process._noise_of(process.theta, np.ones(40)))
    cross = covariance[~kept][:, kept]
    solved = np.linalg.solve(noisy[np.ix_(kept, kept)], np.c_[process._target[kept], cross.T])
    np.testing.assert_allclose(mean[~kept], cross @ solved[:, 0] * process._spread + process._mean, rtol=1e-6)
    variance = np.diag(noisy[np.ix_(~kept, ~kept)] - cross @ solved[:, 1:])
    np.testing.assert_allclose(std[~kept], np.sqrt(variance) * process._spread, rtol=1e-6)


def test_learns_a_sum_and_a_curve() -> None:
    blocks, target = _data(300)
    learn, test = np.arange(200), np.arange(200, 300)
    process = GaussianProcess().fit({k: v[learn] for k, v in blocks.items()}, target[learn], np.ones(200))
    mean, std = process.predict({k: v[test] for k, v in blocks.items()})
    linear = np.c_[np.ones(300), np.hstack(list(blocks.values()))]
    straight = linear[test] @ np.linalg.lstsq(linear[learn], target[learn], rcond=None)[0]
    assert np.abs(mean - target[test]).mean() < 0.2 * np.abs(straight - target[test]).mean()
    assert (std > 0).all()
