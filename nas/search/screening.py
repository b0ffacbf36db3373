"""Short trainings: they sort out what is bad, and tell the surrogate more; they never pick the winner alone.

The order of accuracies after a short training agrees with the final one overall and hardly among the best. So what a
candidate reached after a short training is one more feature of it, which the surrogate learns to trust as far as full
trainings bear it out; where nobody looked, a model of the short training's outcome stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nas.architecture import Architecture
from nas.search.candidates import Candidate
from nas.search.surrogate import Array, Columns, LossModel


class Screening:
    """Readings of short trainings, and what they say of candidates without one.

    Args:
        train: architecture to its accuracy after a short training.
        rng: for learning hyper-parameters.
    """

    def __init__(self, train: Callable[[Architecture], float], rng: np.random.Generator) -> None:
        self._train, self._rng = train, rng
        self._losses: dict[str, float] = {}
        self._model = LossModel()

    def __len__(self) -> int:
        return len(self._losses)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate.architecture.id in self._losses

    def read(self, candidate: Candidate) -> None:
        """Train a candidate for a short while, once."""
        key = candidate.architecture.id
        if key not in self._losses:
            self._losses[key] = -float(self._train(candidate.architecture))

    def worst_half(self, candidates: Sequence[Candidate]) -> set[str]:
        """Return the ids of the worse half, rounded down, of those among the candidates that were read."""
        known = [c.architecture.id for c in candidates if c.architecture.id in self._losses]
        order = sorted(known, key=lambda key: self._losses[key])
        return set(order[len(order) - len(order) // 2 :])

    def extend(
        self, candidates: Sequence[Candidate], rows: Array, groups: Sequence[Columns], learn: bool
    ) -> tuple[Array, tuple[Columns, ...]]:
        """Return the rows with one more column, the short training's outcome read or expected, a group of its own.

        Args:
            candidates: one per row.
            rows: features, shape (candidates, columns).
            groups: columns of each group.
            learn: whether to learn the hyper-parameters of the model that stands in.
        """
        losses = np.array([self._losses.get(candidate.architecture.id, np.nan) for candidate in candidates])
        read = np.isfinite(losses)
        if read.sum() < 2:
            return rows, tuple(groups)
        self._model.fit(rows[read], losses[read], groups, self._rng, learn)
        column = self._model.predict_scaled(rows)
        column[read] = self._model.scaled(losses[read])
        column = (column - column[read].mean()) / (column[read].std() + 1e-9)
        extended = np.column_stack([rows, column])
        return extended, (np.array([rows.shape[1]]), *groups)
