"""The driver: asks, screens, submits, acknowledges, until the budget or the hours are spent.

Each finished trial goes to the store first, in one transaction; Optuna's database, MLflow and the display are told
afterwards and rebuilt from the store. So a kill at any moment loses only what was being evaluated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from nas.architecture import Architecture, Choice
from nas.errors import CandidateError, DegenerateArchitectureError, NasError
from nas.evaluate import Screen
from nas.evaluation import Evaluation, EvaluationKey, State
from nas.objective import Objective
from nas.protocols import Executor, Outcome
from nas.search.ask_tell import AskTell, OptunaMirror
from nas.search.front import Members, front_of, hypervolume_of, with_settled
from nas.store import StudyStore, TrialRecord
from nas.suggest import RandomSuggester

_UNSEEN_ATTEMPTS = 1000
_BROKEN_IN_A_ROW = 2


@dataclass(frozen=True)
class SearchLimits:
    """When a search ends.

    Args:
        budget: candidates to evaluate: complete, failed, or infeasible only after a model was built. What the screen
            refuses and what the store answers costs nothing and is not counted.
        hours: wall clock over all runs of the study, or None.
        duplicates_in_a_row: proposals answered from the store before an unseen architecture is drawn at random.
        refusals_in_a_row: proposals refused by the screen before the search gives up.
    """

    budget: int
    hours: float | None = None
    duplicates_in_a_row: int = 5
    refusals_in_a_row: int = 1000


@dataclass(frozen=True)
class SearchStatus:
    """What a display shows of a running search.

    Args:
        study: name.
        budget: candidates to evaluate in all.
        evaluated: candidates that count so far.
        running: architectures under evaluation, id to seconds since the start.
        counts: trial state to number.
        elapsed_s: wall clock over all runs of the study.
        hours: limit on it, or None.
        front: current members.
        hypervolume: of the front, a share of the reference box, or NaN.
        recent: trials that ended since the last status, as (number, evaluation).
    """

    study: str
    budget: int
    evaluated: int
    running: Mapping[str, float]
    counts: Mapping[str, int]
    elapsed_s: float
    hours: float | None
    front: Members
    hypervolume: float
    recent: Members


class Observer(Protocol):
    """Is told after every finished trial and about once a second."""

    def __call__(self, status: SearchStatus, /) -> None:
        """Show the status; must return quickly."""
        ...


@dataclass
class _Running:
    architecture: Architecture
    trial: Trial
    started: float
    followers: list[Trial] = field(default_factory=list)


class Driver:
    """Runs one study to its end.

    Args:
        study: name, for displays.
        screen: cheap constraints; its space makes the architectures.
        objectives: axes with resolved references.
        make_sampler: seed to sampler.
        key_of: architecture to the key of the store.
        store: record of the study; trials in it are continued.
        executor: evaluates candidates.
        limits: when to end.
        seed: of the sampler.
        mirror: Optuna storage to keep in step, or None.
        observers: displays and trackers.
    """

    def __init__(
        self,
        study: str,
        screen: Screen,
        objectives: tuple[Objective, ...],
        make_sampler: Callable[[int], BaseSampler],
        key_of: Callable[[Architecture], EvaluationKey],
        store: StudyStore,
        executor: Executor,
        limits: SearchLimits,
        seed: int = 0,
        mirror: OptunaMirror | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self._study, self._screen, self._objectives = study, screen, objectives
        self._key_of, self._store, self._executor, self._limits = key_of, store, executor, limits
        self._mirror, self._observers = mirror, observers
        self._records = list(store.trials())
        # A resumed study must not repeat the random numbers of its first run.
        self._ask_tell = AskTell(make_sampler(seed + len(self._records)), objectives, self._records)
        self._rng = np.random.default_rng([seed, len(self._records)])
        self._running: dict[int, _Running] = {}
        settled = store.get("settled", {})
        self._members: Members = [
            (record.number, with_settled(record.evaluation, settled.get(str(record.number))))
            for record in self._records
            if record.evaluation is not None and record.state == State.COMPLETE
        ]
        self._evaluated = sum(_counts(record.evaluation) for record in self._records if record.state != "duplicate")
        self._earlier_s = float(store.get("elapsed_s", 0.0))
        self._start = time.monotonic()
        self._recent: Members = []
        self._broken = 0

    @property
    def elapsed_s(self) -> float:
        """Wall clock over all runs of the study."""
        return self._earlier_s + time.monotonic() - self._start

    def run(self) -> str:
        """Search until a limit is reached and return why it ended, a sentence."""
        if self._mirror is not None:
            self._mirror.sync(self._records)
        ended = ""
        self._show()
        while not ended or self._running:
            while not ended and len(self._running) < self._executor.capacity:
                ended = self._limit_reached() or self._submit_next()
            for outcome in self._executor.wait(1.0):
                self._finish(outcome)
            self._show()
        return ended

    def _limit_reached(self) -> str:
        if self._evaluated + len(self._running) >= self._limits.budget:
            return f"the budget of {self._limits.budget} candidates is spent"
        if self._limits.hours is not None and self.elapsed_s >= self._limits.hours * 3600:
            return f"the limit of {self._limits.hours:g} hours is reached"
        return ""

    def _submit_next(self) -> str:
        """Propose until a candidate is worth evaluating; return why there is none, or an empty string."""
        duplicates = refusals = 0
        while refusals < self._limits.refusals_in_a_row:
            choices = None
            if duplicates >= self._limits.duplicates_in_a_row:
                choices = self._unseen_choices()
                if choices is None:
                    return "every architecture that could be drawn has been evaluated"
            trial = self._ask_tell.ask(choices)
            try:
                architecture = self._screen.space.suggest(trial)
            except DegenerateArchitectureError as error:
                self._acknowledge(trial, State.INFEASIBLE, None, {"degenerate": 1.0}, str(error))
                refusals += 1
                continue
            if self._answer_duplicate(trial, architecture):
                duplicates += 1
                continue
            if self._refuse(trial, architecture):
                refusals += 1
                continue
            job = self._executor.submit({"architecture": architecture.to_dict()})
            self._running[job] = _Running(architecture, trial, time.monotonic())
            return ""
        return f"{refusals} proposals in a row were refused before training; loosen the bounds or the limits"

    def _unseen_choices(self) -> dict[str, Choice] | None:
        under_way = {running.architecture.id for running in self._running.values()}
        for _ in range(_UNSEEN_ATTEMPTS):
            suggester = RandomSuggester(self._rng)
            try:
                architecture = self._screen.space.suggest(suggester)
            except DegenerateArchitectureError:
                continue
            if architecture.id not in under_way and self._store.find(self._key_of(architecture)) is None:
                return suggester.answers
        return None

    def _answer_duplicate(self, trial: Trial, architecture: Architecture) -> bool:
        for running in self._running.values():
            if running.architecture.id == architecture.id:
                running.followers.append(trial)
                return True
        known = self._store.find(self._key_of(architecture))
        if known is None:
            return False
        number, evaluation = known
        self._acknowledge(trial, evaluation.state, evaluation, evaluation.constraints, evaluation.reason, number)
        return True

    def _refuse(self, trial: Trial, architecture: Architecture) -> bool:
        costs = self._screen.costs(architecture)
        violations = self._screen.violations(costs)
        if not violations:
            return False
        reason = f"refused before anything was built: {self._screen.explain(violations)}"
        evaluation = Evaluation(
            architecture=architecture,
            key=self._key_of(architecture),
            state=State.INFEASIBLE,
            values={name: cost.value for name, cost in costs.items()},
            provenance={name: cost.to_dict() for name, cost in costs.items()},
            constraints=violations,
            reason=reason,
            created=time.time(),
        )
        self._acknowledge(trial, State.INFEASIBLE, evaluation, violations, reason)
        return True

    def _finish(self, outcome: Outcome) -> None:
        running = self._running.pop(outcome.job)
        if outcome.kind == "infrastructure":
            self._give_back(running, outcome.reason)
            return
        self._broken = 0
        evaluation = self._read(running.architecture, outcome)
        if evaluation is None:
            evaluation = Evaluation(
                architecture=running.architecture,
                key=self._key_of(running.architecture),
                state=State.FAILED,
                reason=str(CandidateError(outcome.kind or "crash", outcome.reason or "its result was malformed")),
                seconds={"failed": time.monotonic() - running.started},
                created=time.time(),
            )
        self._evaluated += _counts(evaluation)
        number = self._acknowledge(
            running.trial, evaluation.state, evaluation, evaluation.constraints, evaluation.reason
        )
        if evaluation.state is State.COMPLETE:
            self._members.append((number, evaluation))
        self._recent.append((number, evaluation))
        for follower in running.followers:
            self._acknowledge(follower, evaluation.state, evaluation, evaluation.constraints, evaluation.reason, number)

    @staticmethod
    def _read(architecture: Architecture, outcome: Outcome) -> Evaluation | None:
        """Return the evaluation, or None where the worker sent none that belongs to this candidate."""
        if outcome.result is None:
            return None
        try:
            evaluation = Evaluation.from_dict(outcome.result)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return evaluation if evaluation.architecture.id == architecture.id else None

    def _give_back(self, running: _Running, reason: str) -> None:
        """Forget a candidate that the machine failed, not it; end the search when that happens again at once.

        Nothing is recorded, so that the candidate is no failure and can be proposed again.
        """
        for trial in (running.trial, *running.followers):
            self._ask_tell.tell(trial, TrialState.FAIL, None, {}, {"state": "interrupted"})
        self._broken += 1
        if self._broken >= _BROKEN_IN_A_ROW:
            raise NasError(
                f"{reason}. Nothing that was evaluated is lost; the same command goes on when this is mended"
            )

    def _acknowledge(
        self,
        trial: Trial,
        state: State,
        evaluation: Evaluation | None,
        constraints: Mapping[str, float],
        reason: str,
        duplicate_of: int | None = None,
    ) -> int:
        values = self._objective_values(evaluation)
        attributes: dict[str, object] = {"state": str(state)}
        if reason:
            attributes["reason"] = reason[:1000]
        if evaluation is not None:
            attributes["architecture"] = evaluation.architecture.id
        if duplicate_of is not None:
            attributes["duplicate_of"] = duplicate_of
        told = self._told_state(state, values)
        frozen = self._ask_tell.tell(trial, told, values, self._constraints(evaluation, constraints), attributes)
        recorded = "duplicate" if duplicate_of is not None else str(state)
        facts = {"elapsed_s": self.elapsed_s}
        number = self._store.add_trial(recorded, evaluation, frozen, duplicate_of, facts)
        if self._mirror is not None:
            self._records.append(TrialRecord(number, recorded, evaluation, duplicate_of, frozen))
            self._mirror.sync(self._records)
        return number

    def _objective_values(self, evaluation: Evaluation | None) -> list[float] | None:
        if evaluation is None:
            return None
        values = [evaluation.values.get(objective.metric, math.nan) for objective in self._objectives]
        return values if all(math.isfinite(value) for value in values) else None

    @staticmethod
    def _told_state(state: State, values: list[float] | None) -> TrialState:
        if state is State.FAILED:
            return TrialState.FAIL
        return TrialState.COMPLETE if values is not None else TrialState.PRUNED

    def _constraints(self, evaluation: Evaluation | None, violated: Mapping[str, float]) -> dict[str, float]:
        """Return a violation for every bound whose metric is known, so that samplers see how near a miss was."""
        known = evaluation.values if evaluation else {}
        slack = {name: known[name] - bound for name, bound in self._screen.bounds.items() if name in known}
        for objective in self._objectives:
            if objective.bound is not None and objective.direction == "maximize" and objective.metric in known:
                slack[objective.metric] = objective.violation(known[objective.metric])
        return {**slack, **violated}

    def _show(self) -> None:
        now = time.monotonic()
        front = front_of(self._members, self._objectives)
        status = SearchStatus(
            study=self._study,
            budget=self._limits.budget,
            evaluated=self._evaluated,
            running={running.architecture.id: now - running.started for running in self._running.values()},
            counts=self._store.counts(),
            elapsed_s=self.elapsed_s,
            hours=self._limits.hours,
            front=front,
            hypervolume=hypervolume_of(front, self._objectives),
            recent=self._recent,
        )
        self._recent = []
        for observer in self._observers:
            observer(status)


def _counts(evaluation: Evaluation | None) -> bool:
    """Say whether an evaluation was spent on a candidate: the screen's refusals took no seconds."""
    return evaluation is not None and bool(evaluation.seconds)
