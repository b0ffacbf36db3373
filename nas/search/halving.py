"""Successive halving over a population with several objectives: who climbs to the next number of epochs, who stops.

Jamieson and Talwalkar 2016 keep the best share by one loss. Here a rung keeps whole fronts of non-dominated candidates
for as long as they fit, and fills up from the next front by crowding distance (Deb et al. 2002, NSGA-II), so that fast
and accurate candidates climb side by side. Without rungs every candidate is at the top at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.trial import Trial

from nas.architecture import Architecture
from nas.errors import ConfigError
from nas.evaluation import Evaluation
from nas.objective import Objective
from nas.pareto import crowding_distance, non_dominated


@dataclass(frozen=True)
class Halving:
    """How a population is thinned.

    Args:
        rungs: epochs after which it is, growing; empty trains every candidate to the end.
        population: candidates that are compared with each other.
        keep: share that climbs, at least one candidate.
    """

    rungs: tuple[int, ...] = ()
    population: int = 9
    keep: float = 1 / 3

    def __post_init__(self) -> None:
        if list(self.rungs) != sorted(set(self.rungs)) or any(epochs < 1 for epochs in self.rungs):
            raise ConfigError(
                f"halving.rungs is {list(self.rungs)}; expected growing numbers of epochs, such as [2, 6]"
            )
        if not 0 < self.keep < 1:
            raise ConfigError(f"halving.keep is {self.keep}; expected a share above 0 and below 1")

    @property
    def top(self) -> int:
        """The rung at which a candidate is trained to the end."""
        return len(self.rungs)


@dataclass
class Climber:
    """A candidate under way.

    Args:
        architecture: what is evaluated.
        trial: of Optuna.
        population: number of the group that it is compared with.
        rung: at which it is evaluated next, or waits.
        evaluation: of the last rung that it reached, or None.
        waiting: True when this rung's evaluation is there.
        started: monotonic seconds at its last submission.
        followers: trials that proposed the same architecture meanwhile.
    """

    architecture: Architecture
    trial: Trial
    population: int = 0
    rung: int = 0
    evaluation: Evaluation | None = None
    waiting: bool = False
    started: float = field(default_factory=time.monotonic)
    followers: list[Trial] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what a later run needs to go on, JSON-ready; followers are proposals that cost nothing."""
        return {
            "architecture": self.architecture.to_dict(),
            "params": dict(self.trial.params),
            "population": self.population,
            "rung": self.rung,
            "evaluation": self.evaluation.to_dict() if self.evaluation else None,
            "waiting": self.waiting,
        }


class Ladder:
    """The candidates under way, by population and rung.

    Args:
        settings: rungs, size of a population, share kept.
        objectives: by which candidates are compared.
    """

    def __init__(self, settings: Halving, objectives: Sequence[Objective]) -> None:
        self.settings = settings
        self._objectives = tuple(objectives)
        self._population, self._joined = 0, 0
        self._queue: list[Climber] = []
        self.climbers: list[Climber] = []

    def admit(self, architecture: Architecture, trial: Trial) -> Climber:
        """Take a new candidate into the population that is being filled."""
        size = self.settings.population if self.settings.rungs else 1
        if self._joined >= size:
            self._population, self._joined = self._population + 1, 0
        self._joined += 1
        climber = Climber(architecture, trial, self._population)
        self.climbers.append(climber)
        return climber

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, JSON-ready."""
        return {
            "population": self._population,
            "joined": self._joined,
            "climbers": [climber.to_dict() for climber in self.climbers],
        }

    def restore(self, kept: Mapping[str, Any], ask: Callable[[Mapping[str, Any]], tuple[Architecture, Trial]]) -> None:
        """Take up the candidates of an earlier run where they were.

        Args:
            kept: from :meth:`to_dict`.
            ask: answers of a candidate to its architecture and a fresh trial with these answers.
        """
        self._population, self._joined = kept["population"], kept["joined"]
        for fields in kept["climbers"]:
            evaluation = Evaluation.from_dict(fields["evaluation"]) if fields["evaluation"] else None
            climber = Climber(
                *ask(fields["params"]), fields["population"], fields["rung"], evaluation, fields["waiting"]
            )
            self.climbers.append(climber)
            if not climber.waiting:
                self._queue.append(climber)

    def next(self) -> Climber | None:
        """Return the next one that climbed and is to be evaluated, or None."""
        return self._queue.pop(0) if self._queue else None

    def landed(self, climber: Climber, evaluation: Evaluation) -> bool:
        """Note a complete evaluation; return True at the top, where the candidate leaves the ladder."""
        climber.evaluation, climber.waiting = evaluation, True
        if climber.rung >= self.settings.top:
            self.leave(climber)
            return True
        return False

    def leave(self, climber: Climber) -> None:
        """Forget one that failed, was refused, or is done."""
        self.climbers.remove(climber)

    def decide(self, last: bool) -> list[Climber]:
        """Thin every population of which all have landed, queue those that climb, and return those that stop.

        Args:
            last: no further candidate will join, so the population that is being filled is whole.
        """
        stopped: list[Climber] = []
        size = self.settings.population
        for population in sorted({climber.population for climber in self.climbers}):
            filling = population == self._population and self._joined < size
            members = [climber for climber in self.climbers if climber.population == population]
            if (filling and not last) or not all(climber.waiting for climber in members):
                continue
            if filling:
                self._joined = size
            climbing = self._best(members)
            for climber in members:
                if climber in climbing:
                    climber.rung, climber.waiting = climber.rung + 1, False
                    self._queue.append(climber)
                else:
                    self.leave(climber)
                    stopped.append(climber)
        return stopped

    def _best(self, members: Sequence[Climber]) -> list[Climber]:
        count = max(1, round(len(members) * self.settings.keep))
        rows = [
            [objective.loss(climber.evaluation.values) for objective in self._objectives]
            for climber in members
            if climber.evaluation is not None
        ]
        return [members[index] for index in ranked(rows)[:count]]


def ranked(losses: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the rows, first front first, within a front by crowding distance, widest first.

    Args:
        losses: shape (candidates, objectives), smaller is better, finite.
    """
    rows = np.asarray(losses, dtype=np.float64)
    left = np.arange(len(rows))
    order: list[int] = []
    while len(left):
        front = left[non_dominated(rows[left])]
        distance = crowding_distance(rows[front])
        order += [int(front[index]) for index in np.argsort(-distance, kind="stable")]
        left = np.setdiff1d(left, front)
    return order
