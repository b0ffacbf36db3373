"""When a search ends, and what a display is told of it while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nas.search.front import Members


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
