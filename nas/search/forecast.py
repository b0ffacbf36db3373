"""What a surrogate expects of candidates: how much each would add to the front's hypervolume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.objective import Objective
from nas.pareto import non_dominated
from nas.search.improvement import cost_points, hypervolume_improvement
from nas.search.surrogate import Array, Columns, CostModel, LossModel

_SMALLEST_STD = 1e-12


class Forecast:
    """Models the objectives that are not known, and weighs candidates by expected hypervolume improvement.

    Args:
        objectives: axes; a reference or a bound limits the volume that counts, else the worst loss seen does.
        most: points that a model is conditioned on, nearest to the front first.
        seed: for learning hyper-parameters and for the points of the box of costs.
    """

    def __init__(self, objectives: Sequence[Objective], most: int, seed: int) -> None:
        self._objectives, self._most, self._seed = tuple(objectives), most, seed
        self._rng = np.random.default_rng([seed, 1])
        self._models: dict[int, LossModel | CostModel] = {}

    def improvements(
        self,
        losses: Array,
        feasible: NDArray[np.bool_],
        pending: int,
        rows: Array,
        groups: Sequence[Columns],
        exact: Mapping[int, Array],
        learn: bool,
    ) -> Array:
        """Return one score per open candidate; what would add nothing at all is ranked below 0, the nearest first.

        Args:
            losses: of the evaluated, shape (evaluated, objectives).
            feasible: of the evaluated, shape (evaluated,).
            pending: how many candidates are under way; they count as if they came out as predicted.
            rows: features of the evaluated, the pending and the open, in this order, shape (all, columns).
            groups: columns of each group of features, the known costs last.
            exact: losses of all rows, by the index of an objective that is known exactly.
            learn: whether to learn hyper-parameters anew.
        """
        done = len(losses)
        means, stds = self._predict(losses, feasible, rows, groups, exact, learn)
        if pending:
            believed = np.vstack([losses, means[:pending]])
            means, stds = self._predict(believed, np.ones(len(believed), np.bool_), rows, groups, exact, False)
            losses, feasible = believed, np.append(feasible, np.ones(pending, np.bool_))
        axis = self._uncertain(exact)
        order = [axis, *(index for index in range(len(self._objectives)) if index != axis)]
        means, stds, losses = (
            means[-(len(rows) - done - pending) :, order],
            stds[-(len(rows) - done - pending) :, order],
            losses[:, order],
        )
        reference = self._reference(losses, order)
        front = losses[feasible & (losses <= reference).all(axis=1)]
        if len(front):
            front = front[non_dominated(front)]
        low = np.minimum(np.vstack([means, losses]).min(axis=0), reference)[1:]
        points = cost_points(low, reference[1:], self._seed)
        std = np.maximum(stds[:, 0], _SMALLEST_STD)
        scores = hypervolume_improvement(
            means[:, 0], std, means[:, 1:], stds[:, 1:], front, float(reference[0]), points
        )
        scale = np.abs(reference) + _SMALLEST_STD
        beyond = np.maximum((means - reference) / scale, 0).sum(axis=1) + 1e-6 * (means / scale).sum(axis=1)
        nothing = scores <= 0
        scores[nothing] = -1.0 - (beyond[nothing] - beyond.min())
        return scores

    def _uncertain(self, exact: Mapping[int, Array]) -> int:
        """Return the index of the objective to integrate over: a maximised one that is modelled, else any such."""
        modelled = [index for index in range(len(self._objectives)) if index not in exact]
        maximised = [index for index in modelled if self._objectives[index].direction == "maximize"]
        return (maximised or modelled or [0])[0]

    def _reference(self, losses: Array, order: Sequence[int]) -> Array:
        """Return the worst losses that count, in the order of the axes of ``losses``."""
        found = []
        for column, index in enumerate(order):
            objective = self._objectives[index]
            limits = [objective.sign * value for value in (objective.reference, objective.bound) if value is not None]
            found.append(min(limits, default=float(losses[:, column].max())))
        return np.array(found)

    def _predict(
        self,
        losses: Array,
        feasible: NDArray[np.bool_],
        rows: Array,
        groups: Sequence[Columns],
        exact: Mapping[int, Array],
        learn: bool,
    ) -> tuple[Array, Array]:
        """Return means and standard deviations for the rows after those with losses, shape (others, objectives)."""
        others = rows[len(losses) :]
        means, stds = np.empty((len(others), len(self._objectives))), np.zeros((len(others), len(self._objectives)))
        chosen = self._nearest(losses, feasible)
        for index, objective in enumerate(self._objectives):
            if index in exact:
                means[:, index] = exact[index][len(losses) :]
                continue
            targets = losses[chosen, index]
            cost_like = objective.direction == "minimize" and bool((losses[:, index] > 0).all())
            kind = CostModel if cost_like else LossModel
            model = self._models.get(index)
            if not isinstance(model, kind):
                model = self._models[index] = kind()
            model.fit(rows[chosen], targets, groups, self._rng, learn)
            means[:, index], stds[:, index] = model.predict(others)
        return means, stds

    def _nearest(self, losses: Array, feasible: NDArray[np.bool_]) -> Columns:
        """Return the indices of at most ``most`` points: those that need the least change to join the front."""
        if len(losses) <= self._most:
            return np.arange(len(losses))
        span = np.ptp(losses, axis=0) + _SMALLEST_STD
        front = losses[feasible] if feasible.any() else losses
        front = front[non_dominated(front)]
        # Moved by this much in every objective at once, a point is no longer dominated by a member of the front.
        gap = ((losses[:, None, :] - front[None, :, :]) / span).min(axis=2).max(axis=1)
        return np.sort(np.argsort(gap, kind="stable")[: self._most])
