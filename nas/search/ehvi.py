"""The sampler of our own: models what is dear, knows what is cheap, and asks where the front would grow most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from nas.search.screening import Screening
from nas.search.surrogate import Array, Columns

_LEARN_EVERY = 5
_LEARN_ALWAYS_BELOW = 20
_PARENTS = 24


@dataclass(frozen=True)
class _Told:
    """A trial's candidate, and its losses where it was evaluated."""

    candidate: Candidate
    losses: list[float] | None = None
    feasible: bool = True


@dataclass(frozen=True)
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
        screened: the best candidates of each proposal that get a short training, where the problem offers one.
        screened_first: candidates that get one before the first proposal; the worse half is not proposed then.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int = 0,
        startup: int = 8,
        most: int = 400,
        screened: int = 4,
        screened_first: int = 24,
    ) -> None:
        if startup < 2:
            raise ValueError(f"startup is {startup}; expected 2 or more, since a model needs a difference")
        self._problem, self._startup = problem, startup
        self._rng = np.random.default_rng([seed, 0x5A])
        self._random = RandomSampler(seed=seed)
        self._pool = Pool(problem, self._rng)
        self._encoder = Encoder()
        self._proposals: dict[int, Candidate | None] = {}
        self._finished: dict[int, _Told | None] = {}
        self._forecast = Forecast(problem.objectives, most, seed)
        self._asked = 0
        self._screened, self._screened_first = screened, screened_first
        self._screening = Screening(problem.short, self._rng) if problem.short is not None else None

    @property
    def short_trainings(self) -> int:
        """How many short trainings were asked for."""
        return len(self._screening) if self._screening is not None else 0

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
            return self._spread(open_, rows[:, groups[2]], len(taken))
        learn = len(history.evaluated) < _LEARN_ALWAYS_BELOW or self._asked % _LEARN_EVERY == 0
        exact = self._exact(everyone)
        scores = self._scores(history, everyone, rows, groups, exact, learn)
        if self._screening is not None:
            for index in np.argsort(-scores, kind="stable")[: self._screened]:
                self._screening.read(open_[index])
            scores = self._scores(history, everyone, rows, groups, exact, False)
        worth = {candidate.architecture.id: score for candidate, score in zip(open_, scores.tolist(), strict=True)}
        self._pool.trim(worth, spent)
        return open_[int(np.argmax(scores))]

    def _spread(self, open_: Sequence[Candidate], costs: Array, taken: int) -> Candidate:
        """Return a candidate far from all that were taken; where short trainings are to be had, none of the bad ones.

        Args:
            open_: to choose from.
            costs: of the taken and the open, shape (all, costs).
            taken: how many lead the rows of ``costs``.
        """
        ranks = np.argsort(np.argsort(costs, axis=0, kind="stable"), axis=0, kind="stable") / len(costs)
        near, far = ranks[:taken], ranks[taken:]
        if self._screening is None:
            return open_[_farthest(far, near, self._rng)]
        read = [index for index, candidate in enumerate(open_) if candidate in self._screening]
        while len(self._screening) < self._screened_first and len(read) < len(open_):
            index = _farthest(far, np.vstack([near, far[read]]), self._rng)
            self._screening.read(open_[index])
            read.append(index)
        worst = self._screening.worst_half([open_[index] for index in read])
        good = [index for index in read if open_[index].architecture.id not in worst]
        return open_[good[_farthest(far[good], near, self._rng)]] if good else open_[_farthest(far, near, self._rng)]

    def _scores(
        self,
        history: _History,
        everyone: Sequence[Candidate],
        rows: Array,
        groups: Sequence[Columns],
        exact: Mapping[int, Array],
        learn: bool,
    ) -> Array:
        if self._screening is not None:
            rows, groups = self._screening.extend(everyone, rows, groups, learn)
        return self._forecast.improvements(
            history.losses, history.feasible, len(history.pending), rows, groups, exact, learn
        )

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
        evaluated: dict[str, _Told] = {}
        pending: dict[str, Candidate] = {}
        spent: set[str] = set()
        for trial in study.get_trials(deepcopy=False):
            told = self._told(trial) if trial.number != number else None
            if told is None:
                continue
            key = told.candidate.architecture.id
            spent.add(key)
            if told.losses is not None:
                evaluated.setdefault(key, told)
            elif not trial.state.is_finished():
                pending[key] = told.candidate
        width = len(self._problem.objectives)
        return _History(
            evaluated=[told.candidate for told in evaluated.values()],
            losses=np.array([told.losses for told in evaluated.values()]).reshape(len(evaluated), width),
            feasible=np.array([told.feasible for told in evaluated.values()], np.bool_),
            pending=[candidate for key, candidate in pending.items() if key not in evaluated],
            spent=spent,
        )

    def _told(self, trial: FrozenTrial) -> _Told | None:
        """Return what a trial says; None for a running one that we did not propose and that is not complete yet."""
        if trial.number in self._finished:
            return self._finished[trial.number]
        if not trial.state.is_finished():
            candidate = self._proposals.get(trial.number) or (self._pool.of(trial.params) if trial.params else None)
            return _Told(candidate) if candidate is not None else None
        candidate = self._pool.of(trial.params) if trial.params else None
        told = _Told(candidate) if candidate is not None else None
        if candidate is not None and trial.state == TrialState.COMPLETE:
            losses = [axis.sign * value for axis, value in zip(self._problem.objectives, trial.values, strict=True)]
            if all(math.isfinite(loss) for loss in losses):
                told = _Told(candidate, losses, all(violation <= 0 for violation in trial.constraints.values()))
        self._finished[trial.number] = told
        self._proposals.pop(trial.number, None)
        return told


def _fits(distribution: BaseDistribution, answer: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return answer in distribution.choices
    return bool(distribution._contains(distribution.to_internal_repr(answer)))


def _farthest(open_: Array, taken: Array, rng: np.random.Generator) -> int:
    """Return which open point lies farthest from all that were taken, a random one if none was.

    Args:
        open_: shape (open, costs).
        taken: shape (taken, costs).
        rng: picks the very first.
    """
    if not len(taken) or not open_.shape[1]:
        return int(rng.integers(len(open_)))
    return int(np.argmax(((open_[:, None, :] - taken[None, :, :]) ** 2).sum(axis=2).min(axis=1)))
