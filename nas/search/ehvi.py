"""The sampler of our own: models what is dear, knows what is cheap, and asks where the front would grow most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.pareto import non_dominated
from nas.search.candidates import Candidate, Encoder, Pool, Problem
from nas.search.forecast import Forecast

Array = NDArray[np.float64]

_LEARN_EVERY = 5
_LEARN_ALWAYS_BELOW = 20
_PARENTS = 24


@dataclass
class _History:
    """What the trials say: evaluated candidates with their losses, and those that are not to be proposed again."""

    evaluated: list[Candidate]
    losses: Array
    feasible: NDArray[np.bool_]
    pending: list[Candidate]
    spent: set[str]


class EhviSampler(BaseSampler):
    """Proposes the candidate with the largest expected hypervolume improvement.

    The first objective that is not known exactly is the one that is integrated over; costs that are known enter as they
    are, others with their predicted spread. What other workers have under way counts as if it came out as predicted.

    Args:
        problem: what is known besides the trials.
        seed: of all random numbers.
        startup: candidates that only spread over the known costs.
        most: evaluated candidates that the models are conditioned on, nearest to the front first.
    """

    def __init__(self, problem: Problem, seed: int = 0, startup: int = 8, most: int = 400) -> None:
        if startup < 2:
            raise ValueError(f"startup is {startup}; expected 2 or more, since a model needs a difference")
        self._problem, self._startup = problem, startup
        self._rng = np.random.default_rng([seed, 0x5A])
        self._random = RandomSampler(seed=seed)
        self._pool = Pool(problem, self._rng)
        self._encoder = Encoder()
        self._proposals: dict[int, Candidate | None] = {}
        self._known: dict[int, Candidate | None] = {}
        self._forecast = Forecast(problem.objectives, most, seed)
        self._asked = 0
        self.short_trainings = 0

    def reseed_rng(self) -> None:
        """Draw a new state, so that copies in several processes differ."""
        self._rng = np.random.default_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: every answer comes from the whole candidate that the trial stands for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing, as there is no relative search space."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the proposed candidate's answer, or a random one to a question that it does not answer."""
        if trial.number not in self._proposals:
            self._proposals[trial.number] = self.propose(study, trial.number)
        candidate = self._proposals[trial.number]
        if candidate is not None and param_name in candidate.answers:
            answer = candidate.answers[param_name]
            if _fits(param_distribution, answer):
                return answer
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def propose(self, study: Study, number: int) -> Candidate | None:
        """Return the candidate for a trial, or None when no unseen one is known.

        Args:
            study: the trials so far.
            number: of the trial that asks, which is left out of account.
        """
        self._asked += 1
        if not self._pool.members:
            self._pool.draw(self._problem.start)
        history = self._read(study, number)
        self._enlarge(history)
        spent = history.spent
        open_ = [c for name, c in self._pool.members.items() if name not in spent and c.description.admissible]
        if not open_:
            return None
        taken = [*history.evaluated, *history.pending]
        everyone = [*taken, *open_]
        rows, groups = self._encoder.encode(everyone)
        if len(history.evaluated) < self._startup:
            return open_[_farthest(rows[:, groups[2]], len(taken), self._rng)]
        learn = len(history.evaluated) < _LEARN_ALWAYS_BELOW or self._asked % _LEARN_EVERY == 0
        scores = self._forecast.improvements(
            history.losses,
            history.feasible,
            len(history.pending),
            rows,
            groups,
            self._exact(everyone),
            learn,
        )
        worth = {candidate.architecture.id: score for candidate, score in zip(open_, scores.tolist(), strict=True)}
        self._pool.trim(worth, spent)
        return open_[int(np.argmax(scores))]

    def _enlarge(self, history: _History) -> None:
        """Add random candidates and neighbours of the front, half and half."""
        fresh = self._problem.fresh
        self._pool.draw(fresh - fresh // 2)
        if len(history.evaluated):
            front = self._front(history.losses, history.feasible)
            order = self._rng.permutation(np.flatnonzero(front))[:_PARENTS]
            self._pool.edit([history.evaluated[index] for index in order], fresh // 2)

    def _exact(self, candidates: Sequence[Candidate]) -> dict[int, Array]:
        """Return the losses of the objectives that are known exactly, by the objective's index."""
        found = {}
        for index, objective in enumerate(self._problem.objectives):
            values = [candidate.description.exact.get(objective.metric, math.nan) for candidate in candidates]
            if all(math.isfinite(value) for value in values):
                found[index] = objective.sign * np.array(values)
        return found

    @staticmethod
    def _front(losses: Array, feasible: NDArray[np.bool_]) -> NDArray[np.bool_]:
        mask = np.zeros(len(losses), np.bool_)
        chosen = np.flatnonzero(feasible)
        if len(chosen):
            mask[chosen] = non_dominated(losses[chosen])
        return mask

    def _read(self, study: Study, number: int) -> _History:
        objectives = self._problem.objectives
        evaluated: dict[str, tuple[Candidate, list[float], bool]] = {}
        pending: dict[str, Candidate] = {}
        spent: set[str] = set()
        for trial in study.get_trials(deepcopy=False):
            if trial.number == number:
                continue
            candidate = self._candidate(trial)
            if candidate is None:
                continue
            key = candidate.architecture.id
            spent.add(key)
            if trial.state == TrialState.COMPLETE and key not in evaluated:
                losses = [objective.sign * value for objective, value in zip(objectives, trial.values, strict=True)]
                feasible = all(violation <= 0 for violation in trial.constraints.values())
                if all(math.isfinite(loss) for loss in losses):
                    evaluated[key] = (candidate, losses, feasible)
            elif trial.state in (TrialState.RUNNING, TrialState.WAITING):
                pending[key] = candidate
        return _History(
            evaluated=[candidate for candidate, _, _ in evaluated.values()],
            losses=np.array([losses for _, losses, _ in evaluated.values()]).reshape(len(evaluated), len(objectives)),
            feasible=np.array([feasible for _, _, feasible in evaluated.values()], np.bool_),
            pending=[candidate for key, candidate in pending.items() if key not in evaluated],
            spent=spent,
        )

    def _candidate(self, trial: FrozenTrial) -> Candidate | None:
        """Return the candidate that a trial stands for; a running trial that we did not propose may be incomplete."""
        if trial.number in self._known:
            return self._known[trial.number]
        if trial.state == TrialState.RUNNING and trial.number in self._proposals:
            return self._proposals[trial.number]
        if not trial.params:
            return None
        candidate = self._pool.of(trial.params)
        if trial.state.is_finished():
            self._known[trial.number] = candidate
            self._proposals.pop(trial.number, None)
        return candidate


def _fits(distribution: BaseDistribution, answer: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return answer in distribution.choices
    return bool(distribution._contains(distribution.to_internal_repr(answer)))


def _farthest(costs: Array, taken: int, rng: np.random.Generator) -> int:
    """Return which open candidate lies farthest, by the ranks of its costs, from all that were taken.

    Args:
        costs: shape (taken and open candidates, costs).
        taken: how many lead the rows.
        rng: picks the very first.
    """
    open_ = len(costs) - taken
    if not taken or not costs.shape[1]:
        return int(rng.integers(open_))
    ranks = np.argsort(np.argsort(costs, axis=0, kind="stable"), axis=0, kind="stable") / len(costs)
    away = ((ranks[taken:, None, :] - ranks[None, :taken, :]) ** 2).sum(axis=2).min(axis=1)
    return int(np.argmax(away))
