"""Replays of a search on a table: every sampler by the same loop, regret of the hypervolume by budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from nas.errors import DegenerateArchitectureError
from nas.search.ask_tell import AskTell
from nas.search.candidates import Problem
from nas.search.ehvi import EhviSampler
from nas.search.table import Table
from nas.suggest import RandomSuggester

_DUPLICATES_IN_A_ROW = 5
_ATTEMPTS = 1000
_START, _FRESH = 1000, 128


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its standard error, NaN for a single seed."""

    mean: float
    sem: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return that of ``values``."""
        spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), spread)


@dataclass
class Run:
    """One replayed search.

    Args:
        rows: of the table, in the order trained.
        spent: full trainings spent when each was done, short ones counted at their share.
    """

    rows: list[int] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)

    def within(self, budget: float) -> list[int]:
        """Return the rows trained within a budget."""
        return [row for row, spent in zip(self.rows, self.spent, strict=True) if spent <= budget + 1e-9]


def problem_of(table: Table) -> Problem:
    """Return what a sampler of our own may know of a table: its costs, its genes, and a short training's accuracy."""
    short = table.low_fidelity if table.columns.low_fidelity else None
    return Problem(table.suggest, table.describe, table.objectives, short, start=_START, fresh=_FRESH)


def replay(table: Table, sampler: BaseSampler, budget: float, seed: int, short_cost: float = 0.0) -> Run:
    """Search the table until the budget is spent.

    Args:
        table: answers at once.
        sampler: proposes.
        budget: in full trainings; what was trained before costs nothing.
        seed: draws an unseen architecture after five known ones in a row, as the driver does.
        short_cost: of a short training that the sampler asked for, as a share of a full one.
    """
    rng = np.random.default_rng([seed, 7])
    ask_tell, run, seen = AskTell(sampler, table.objectives, []), Run(), set[int]()
    duplicates = 0
    limit = min(budget, len(table))
    while (run.spent[-1] if run.spent else 0.0) + 1 <= limit + 1e-9 and len(seen) < len(table):
        trial = ask_tell.ask(_unseen(table, seen, rng) if duplicates >= _DUPLICATES_IN_A_ROW else None)
        try:
            architecture = table.suggest(trial)
        except DegenerateArchitectureError:
            ask_tell.tell(trial, TrialState.PRUNED, None, {"degenerate": 1.0}, {})
            continue
        description = table.describe(architecture)
        excess = {name: description.costs[name] - limit for name, limit in (table.columns.limits or {}).items()}
        if not description.admissible:
            ask_tell.tell(trial, TrialState.PRUNED, None, excess, {})
            continue
        ask_tell.tell(trial, TrialState.COMPLETE, table.outcome(architecture), excess, {})
        row = table.row(architecture)
        duplicates = duplicates + 1 if row in seen else 0
        if row not in seen:
            seen.add(row)
            run.rows.append(row)
            short = sampler.short_trainings if isinstance(sampler, EhviSampler) else 0
            run.spent.append(len(run.rows) + short_cost * short)
    return run


def _unseen(table: Table, seen: set[int], rng: np.random.Generator) -> dict[str, str | int | float] | None:
    for _ in range(_ATTEMPTS):
        suggester = RandomSuggester(rng)
        try:
            architecture = table.suggest(suggester)
        except DegenerateArchitectureError:
            continue
        if table.row(architecture) not in seen:
            return suggester.answers
    return None


def checkpoints(budget: int) -> list[int]:
    """Return 25, 50, 100, 200, ... up to the budget, and the budget."""
    marks = [mark for mark in (25 * 2**power for power in range(30)) if mark < budget]
    return [*marks, budget]


def summarize(runs: Sequence[Run], budget: int, measure: Callable[[Sequence[int]], float]) -> dict[int, Mean]:
    """Return a measure of what was trained, by budget.

    Args:
        runs: one per seed.
        budget: of each run.
        measure: rows of the table to a number.
    """
    return {mark: Mean.of([measure(run.within(mark)) for run in runs]) for mark in checkpoints(budget)}
