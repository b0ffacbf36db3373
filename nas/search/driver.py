"""The driver: asks, screens, submits, acknowledges, until the budget or the hours are spent.

Each finished trial goes to the store first, in one transaction; Optuna's database, MLflow and the display are told
afterwards and rebuilt from the store. So a kill at any moment loses only what was being evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from nas.architecture import Architecture, Choice
from nas.errors import CandidateError, DegenerateArchitectureError, NasError
from nas.evaluation import Evaluation, EvaluationKey, State
from nas.objective import Objective
from nas.protocols import Executor, Outcome
from nas.screen import Screen
from nas.search.ask_tell import AskTell, OptunaMirror
from nas.search.foresight import Outlook
from nas.search.front import Members, complete, front_of, hypervolume_of
from nas.search.halving import Climber, Halving, Ladder
from nas.search.status import Observer, SearchLimits, SearchStatus
from nas.search.told import counts, objective_values, told_constraints, told_state
from nas.search.worst import Threshold
from nas.store import StudyStore, TrialRecord
from nas.suggest import RandomSuggester, ReplayingSuggester

_UNSEEN_ATTEMPTS = 1000
_BROKEN_IN_A_ROW = 2


class Driver:
    """Runs one study to its end.

    Args:
        study: name, for displays.
        screen: cheap constraints; its space makes the architectures.
        objectives: axes with resolved references.
        make_sampler: seed to sampler.
        key_of: architecture and rung to the key of the store.
        store: record of the study; trials in it are continued.
        executor: evaluates candidates.
        limits: when to end.
        seed: of the sampler.
        mirror: Optuna storage to keep in step, or None.
        observers: displays and trackers.
        halving: how populations are thinned; None trains every candidate to the end.
        threshold: zero-cost scores below which a candidate is not trained, or None.
        outlook: predicts latencies so that not all have to be measured, or None.
        first: answers to the space's questions that make the first candidates, before the sampler is asked.
    """

    def __init__(
        self,
        study: str,
        screen: Screen,
        objectives: tuple[Objective, ...],
        make_sampler: Callable[[int], BaseSampler],
        key_of: Callable[[Architecture, int], EvaluationKey],
        store: StudyStore,
        executor: Executor,
        limits: SearchLimits,
        seed: int = 0,
        mirror: OptunaMirror | None = None,
        observers: tuple[Observer, ...] = (),
        halving: Halving | None = None,
        threshold: Threshold | None = None,
        outlook: Outlook | None = None,
        first: Sequence[Mapping[str, Choice]] = (),
    ) -> None:
        self._study, self._screen, self._objectives = study, screen, objectives
        self._key_of, self._store, self._executor, self._limits = key_of, store, executor, limits
        self._mirror, self._observers = mirror, observers
        self._records = list(store.trials())
        # A resumed study must not repeat the random numbers of its first run.
        self._ask_tell = AskTell(make_sampler(seed + len(self._records)), objectives, self._records)
        self._rng = np.random.default_rng([seed, len(self._records)])
        self._running: dict[int, Climber] = {}
        self._ladder = Ladder(halving or Halving(), objectives)
        self._threshold = threshold or Threshold({})
        self._over = False
        self._outlook = outlook
        self._first = list(first)
        self._members: Members = complete(store)
        self._evaluated = sum(counts(record.evaluation) for record in self._records if record.state != "duplicate")
        self._earlier_s = float(store.get("elapsed_s", 0.0))
        self._start = time.monotonic()
        self._recent: Members = []
        self._broken = 0
        for record in self._records:
            if record.state != "duplicate" and record.evaluation is not None:
                self._threshold.note(record.evaluation.values)
        self._learn(record.evaluation for record in self._records if record.evaluation is not None)
        self._learn(evaluation for _, evaluation in self._members)
        self._take_up()

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
        while not ended or self._running or self._ladder.climbers:
            while len(self._running) < self._executor.capacity and not self._over:
                climber = self._ladder.next()
                if climber is not None:
                    self._submit(climber)
                    continue
                ended = ended or self._limit_reached() or self._submit_next()
                if ended:
                    break
            for outcome in self._executor.wait(1.0):
                self._finish(outcome)
            self._thin(bool(ended))
            self._show()
        return ended

    def _limit_reached(self) -> str:
        if self._evaluated + len(self._ladder.climbers) >= self._limits.budget:
            return f"the budget of {self._limits.budget} candidates is spent"
        return f"the limit of {self._limits.hours:g} hours is reached" if self._out_of_time() else ""

    def _out_of_time(self) -> bool:
        return self._limits.hours is not None and self.elapsed_s >= self._limits.hours * 3600

    def _take_up(self) -> None:
        """Go on with the candidates that an earlier run left between two rungs."""
        kept = self._store.get("ladder")
        if kept is None:
            return
        # A kill may have come between the acknowledgement of a candidate and the note that it left.
        under_way = [
            climber
            for climber in kept["climbers"]
            if self._find(Architecture.from_dict(climber["architecture"])) is None
        ]
        self._ladder.restore({**kept, "climbers": under_way}, self._ask_again)
        self._learn(climber.evaluation for climber in self._ladder.climbers if climber.evaluation is not None)

    def _learn(self, evaluations: Iterable[Evaluation]) -> None:
        """Feed what was measured back to the models; one reading of an architecture replaces an earlier one."""
        if self._outlook is not None:
            self._outlook.learn(evaluations)

    def _ask_again(self, answers: Mapping[str, Choice]) -> tuple[Architecture, Trial]:
        trial = self._ask_tell.ask(answers)
        return self._screen.space.suggest(trial), trial

    def _keep_ladder(self) -> None:
        if self._ladder.settings.rungs:
            self._store.put("ladder", self._ladder.to_dict())

    def _submit(self, climber: Climber) -> None:
        payload: dict[str, object] = {"architecture": climber.architecture.to_dict()}
        if self._ladder.settings.rungs:
            payload["rung"] = climber.rung
        if climber.evaluation is not None:
            payload["known"] = climber.evaluation.to_dict()
        least = self._threshold.least() if climber.rung == 0 else {}
        if least:
            payload["least"] = least
        if self._outlook is not None:
            guesses = self._outlook.guesses(climber.architecture, self._members)
            payload["guesses"] = {device: guess.to_dict() for device, guess in guesses.items()}
        climber.started = time.monotonic()
        self._running[self._executor.submit(payload)] = climber

    def _thin(self, last: bool) -> None:
        """Stop the candidates that do not climb; when the hours are spent, all that are not at the top."""
        stopped = self._ladder.decide(last)
        self._over = self._over or (last and self._out_of_time())
        if self._over and not self._running:
            stopped += self._ladder.climbers
            self._ladder.climbers = []
        for climber in stopped:
            self._stop(climber)
        if stopped:
            self._keep_ladder()

    def _stop(self, climber: Climber) -> None:
        epochs = self._ladder.settings.rungs[climber.rung] if climber.waiting else 0
        reached = climber.evaluation
        if reached is None:
            self._ask_tell.tell(climber.trial, TrialState.FAIL, None, {}, {"state": "interrupted"})
            return
        reason = f"stopped after {epochs} epochs: others of its population were better"
        if self._over:
            reason = "stopped below the full training: the hours were spent"
        self._record(climber, replace(reached, state=State.PRUNED, reason=reason, folder=""))

    def _submit_next(self) -> str:
        """Propose until a candidate is worth evaluating; return why there is none, or an empty string."""
        duplicates = refusals = 0
        while refusals < self._limits.refusals_in_a_row:
            choices = self._next_first()
            if choices is None and duplicates >= self._limits.duplicates_in_a_row:
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
            self._submit(self._ladder.admit(architecture, trial))
            self._keep_ladder()
            return ""
        return f"{refusals} proposals in a row were refused before training; loosen the bounds or the limits"

    def _next_first(self) -> Mapping[str, Choice] | None:
        """Return the next of the first candidates that no run of this study has recorded; None after the last."""
        while self._first:
            choices = self._first.pop(0)
            suggester = ReplayingSuggester(choices, self._rng)
            if self._find(self._screen.space.suggest(suggester)) is None:
                return choices
        return None

    def _find(self, architecture: Architecture) -> tuple[int, Evaluation] | None:
        """Return what the store knows of an architecture at any fidelity of this search, the highest first."""
        for rung in range(self._ladder.settings.top, -1, -1):
            known = self._store.find(self._key_of(architecture, rung))
            if known is not None:
                return known
        return None

    def _unseen_choices(self) -> dict[str, Choice] | None:
        under_way = {climber.architecture.id for climber in self._ladder.climbers}
        for _ in range(_UNSEEN_ATTEMPTS):
            suggester = RandomSuggester(self._rng)
            try:
                architecture = self._screen.space.suggest(suggester)
            except DegenerateArchitectureError:
                continue
            if architecture.id not in under_way and self._find(architecture) is None:
                return suggester.answers
        return None

    def _answer_duplicate(self, trial: Trial, architecture: Architecture) -> bool:
        for climber in self._ladder.climbers:
            if climber.architecture.id == architecture.id:
                climber.followers.append(trial)
                return True
        known = self._find(architecture)
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
            key=self._key_of(architecture, self._ladder.settings.top),
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
        climber = self._running.pop(outcome.job)
        if outcome.kind == "infrastructure":
            self._give_back(climber, outcome.reason)
            return
        self._broken = 0
        evaluation = self._read(climber.architecture, outcome)
        if evaluation is None:
            evaluation = Evaluation(
                architecture=climber.architecture,
                key=self._key_of(climber.architecture, climber.rung),
                state=State.FAILED,
                reason=str(CandidateError(outcome.kind or "crash", outcome.reason or "its result was malformed")),
                seconds={"failed": time.monotonic() - climber.started},
                created=time.time(),
            )
        if climber.rung == 0:
            self._threshold.note(evaluation.values)
        self._learn([evaluation])
        if evaluation.state is not State.COMPLETE:
            self._ladder.leave(climber)
        elif not self._ladder.landed(climber, evaluation):
            self._keep_ladder()
            return
        self._record(climber, evaluation)
        self._keep_ladder()

    def _record(self, climber: Climber, evaluation: Evaluation) -> None:
        self._evaluated += counts(evaluation)
        state, constraints, reason = evaluation.state, evaluation.constraints, evaluation.reason
        number = self._acknowledge(climber.trial, state, evaluation, constraints, reason)
        if state is State.COMPLETE:
            self._members.append((number, evaluation))
        self._recent.append((number, evaluation))
        for follower in climber.followers:
            self._acknowledge(follower, state, evaluation, constraints, reason, number)

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

    def _give_back(self, climber: Climber, reason: str) -> None:
        """Forget a candidate that the machine failed, not it; end the search when that happens again at once.

        Nothing is recorded, so that the candidate is no failure and can be proposed again.
        """
        self._ladder.leave(climber)
        for trial in (climber.trial, *climber.followers):
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
        values = objective_values(evaluation, self._objectives)
        attributes: dict[str, object] = {"state": str(state)}
        if reason:
            attributes["reason"] = reason[:1000]
        if evaluation is not None:
            attributes["architecture"] = evaluation.architecture.id
        if duplicate_of is not None:
            attributes["duplicate_of"] = duplicate_of
        held = told_constraints(evaluation, constraints, self._screen, self._objectives)
        frozen = self._ask_tell.tell(trial, told_state(state, values), values, held, attributes)
        recorded = "duplicate" if duplicate_of is not None else str(state)
        facts = {"elapsed_s": self.elapsed_s}
        number = self._store.add_trial(recorded, evaluation, frozen, duplicate_of, facts)
        if self._mirror is not None:
            self._records.append(TrialRecord(number, recorded, evaluation, duplicate_of, frozen))
            self._mirror.sync(self._records)
        return number

    def _show(self) -> None:
        now = time.monotonic()
        front = front_of(self._members, self._objectives)
        status = SearchStatus(
            study=self._study,
            budget=self._limits.budget,
            evaluated=self._evaluated,
            running={climber.architecture.id: now - climber.started for climber in self._running.values()},
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
