"""Boosted regression trees of scikit-learn on the logarithm of the target; kept as plain arrays once fitted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from latency_models.ridge import folds

Array = NDArray[np.float64]

_ROUNDS = 250
_RATE = 0.07


class Trees:
    """Histogram gradient boosting; its deviation is a share of the mean, from the left-out rows."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: NDArray[np.int64]) -> Trees:
        """Learn; returns self."""
        rows = np.hstack(list(blocks.values()))
        self._kept = _different_columns(rows)
        rows, logs = rows[:, self._kept], np.log(target)
        outside = np.empty(len(target))
        for learn, leave in folds(groups, 4):
            outside[leave] = np.exp(_boosted(rows[learn], logs[learn]).predict(rows[leave]))
        self._outside = outside
        self._share = float(np.sqrt(np.mean(np.minimum(np.abs(outside / target - 1), 1.0) ** 2)))
        self._model = _boosted(rows, logs)
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        return self._outside, self._share * self._outside

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row."""
        mean = np.exp(self._model.predict(np.hstack(list(blocks.values()))[:, self._kept]))
        return mean, self._share * mean


def _boosted(rows: Array, logs: Array):  # type: ignore[no-untyped-def]
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=_ROUNDS, learning_rate=_RATE, min_samples_leaf=5, max_leaf_nodes=16, random_state=0
    )
    return model.fit(rows, logs)


def _different_columns(rows: Array) -> NDArray[np.int64]:
    """Return the columns without constant ones and without repetitions of another."""
    _, first = np.unique(rows, axis=1, return_index=True)
    return np.array([column for column in sorted(first) if np.ptp(rows[:, column]) > 0], dtype=np.int64)
