"""Boosted regression trees of scikit-learn on the logarithm of the target; plain arrays once fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_models.ridge import folds

Array = NDArray[np.float64]

_TREES = 150
_RATE = 0.1


@dataclass(frozen=True)
class Forest:
    """Trees side by side; a node whose left child is negative is a leaf.

    Args:
        start: prediction before the first tree.
        left: (trees, nodes), child taken where the feature is at most the threshold.
        right: (trees, nodes), the other child.
        feature: (trees, nodes).
        threshold: (trees, nodes).
        value: (trees, nodes), what a leaf adds.
    """

    start: float
    left: Array
    right: Array
    feature: Array
    threshold: Array
    value: Array

    def predict(self, rows: Array) -> Array:
        """Return the sum of the leaves that each row (rows, columns) reaches."""
        # scikit-learn compares in single precision.
        rows = rows.astype(np.float32).astype(np.float64)
        left, right, feature = (found.astype(int) for found in (self.left, self.right, self.feature))
        tree = np.arange(len(left))
        # All trees go down one level at a time: a single row is answered in a fraction of a millisecond.
        node = np.zeros((len(rows), len(left)), dtype=int)
        while (inner := left[tree, node] >= 0).any():
            seen = np.take_along_axis(rows, np.maximum(feature[tree, node], 0), axis=1)
            below = np.where(seen <= self.threshold[tree, node], left[tree, node], right[tree, node])
            node = np.where(inner, below, node)
        total: Array = self.start + self.value[tree, node].sum(axis=1)
        return total


class Trees:
    """Gradient boosting; its deviation is a share of the mean, from the left-out rows."""

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: NDArray[np.int64]) -> Trees:
        """Learn; returns self."""
        rows = np.hstack(list(blocks.values()))
        self._kept = _different_columns(rows)
        rows, logs = rows[:, self._kept], np.log(target)
        outside = np.empty(len(target))
        for learn, leave in folds(groups, 3):
            outside[leave] = np.exp(_boosted(rows[learn], logs[learn]).predict(rows[leave]))
        self._outside = outside
        self._share = float(np.sqrt(np.mean(np.minimum(np.abs(outside / target - 1), 1.0) ** 2)))
        self._forest = _boosted(rows, logs)
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        return self._outside, self._share * self._outside

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row."""
        mean = np.exp(self._forest.predict(np.hstack(list(blocks.values()))[:, self._kept]))
        return mean, self._share * mean

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays."""
        names = ("left", "right", "feature", "threshold", "value")
        trees = {name: getattr(self._forest, name) for name in names}
        return {**trees, "kept": self._kept.astype(np.float64), "numbers": np.array([self._forest.start, self._share])}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> Trees:
        """Return the model that ``to_arrays`` was called on."""
        model = Trees()
        start, model._share = (float(value) for value in arrays["numbers"])
        names = ("left", "right", "feature", "threshold", "value")
        model._forest = Forest(start, *(arrays[name] for name in names))
        model._kept = arrays["kept"].astype(np.int64)
        return model


def _boosted(rows: Array, logs: Array) -> Forest:
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=_TREES,
        learning_rate=_RATE,
        max_depth=4,
        min_samples_leaf=5,
        max_features=0.3,
        subsample=0.7,
        init="zero",
        random_state=0,
    )
    start = float(logs.mean())
    trees = [estimator.tree_ for estimator in model.fit(rows, logs - start).estimators_[:, 0]]
    return Forest(
        start,
        _padded([tree.children_left for tree in trees], -1),
        _padded([tree.children_right for tree in trees], -1),
        _padded([tree.feature for tree in trees], 0),
        _padded([tree.threshold for tree in trees], 0),
        _padded([_RATE * tree.value[:, 0, 0] for tree in trees], 0),
    )


def _padded(values: list[Array], filler: float) -> Array:
    found = np.full((len(values), max(map(len, values))), filler, dtype=np.float64)
    for row, value in enumerate(values):
        found[row, : len(value)] = value
    return found


def _different_columns(rows: Array) -> NDArray[np.int64]:
    """Return the columns without constant ones and without repetitions of another."""
    _, first = np.unique(rows, axis=1, return_index=True)
    return np.array([column for column in sorted(first) if np.ptp(rows[:, column]) > 0], dtype=np.int64)
