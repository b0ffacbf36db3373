"""Replays recorded searches under cost=auto: the same candidates in the same order, some of their latencies withheld.

A recorded search measured every candidate. The replay hands a latency out only when the rule of cost=auto asks for it,
during the search or, for the front, when it has ended; everything else is the code that a search runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.agreement import Agreement, agreement
from nas.config.parts import Parts
from nas.doubt import LATENCY, why_measure
from nas.evaluation import Evaluation
from nas.measurement import Measurement, number_from_dict
from nas.objective import Objective
from nas.search.foresight import Foresight, latency_of, with_estimate
from nas.search.front import Members, front_of, hypervolume_of, study_objectives
from nas.search.settle import near_front
from nas.store import StudyStore


@dataclass(frozen=True)
class Replay:
    """What a mode makes of recorded candidates.

    Args:
        hypervolume: of the measured front.
        in_search: latencies asked for during the search.
        after: further ones, until no latency on the front or near it was unmeasured.
        agreement: of predictions and readings.
    """

    hypervolume: float
    in_search: int
    after: int
    agreement: Agreement


def recorded(folder: Path) -> tuple[Parts, list[Evaluation], tuple[Objective, ...]]:
    """Return what a finished search recorded, in the order of its candidates, each with its first reading."""
    store = StudyStore(folder / "store.sqlite")
    parts = Parts(store.get("config"), folder)
    evaluations = [r.evaluation for r in store.trials() if r.evaluation is not None and r.state == "complete"]
    objectives = study_objectives(store)
    store.close()
    return parts, evaluations, objectives


def with_all(evaluations: Sequence[Evaluation], objectives: Sequence[Objective]) -> float:
    """Return the hypervolume where every candidate was measured."""
    return hypervolume_of(front_of(list(enumerate(evaluations)), objectives), objectives)


def with_doubtful(evaluations: Sequence[Evaluation], foresight: Foresight, objectives: Sequence[Objective]) -> Replay:
    """Return what comes of measuring where a latency could change the front, and of the front itself at the end."""
    members: Members = []
    for number, evaluation in enumerate(evaluations):
        guess = foresight.guess(evaluation.architecture, members)
        unread = with_estimate(_foretold(evaluation, guess.estimate.to_dict(), guess.estimate.mean), guess.estimate)
        bound = next((axis.bound for axis in objectives if axis.metric == LATENCY), None)
        seen = unread
        if why_measure(guess, unread.values, objectives, bound):
            seen = _read(unread, evaluation)
            foresight.learn([seen])
        members.append((number, seen))
    in_search = sum(isinstance(latency_of(evaluation), Measurement) for _, evaluation in members)
    while True:
        members = foresight.renewed(members)
        asked = [
            (n, e)
            for n, e in near_front(members, objectives, foresight.least_gain)
            if not isinstance(latency_of(e), Measurement)
        ]
        if not asked:
            break
        fresh = {number: _read(evaluation, evaluations[number], later=True) for number, evaluation in asked}
        foresight.learn(fresh.values())
        members = [(number, fresh.get(number, evaluation)) for number, evaluation in members]
    measured = [member for member in members if isinstance(latency_of(member[1]), Measurement)]
    volume = hypervolume_of(front_of(members, objectives), objectives)
    return Replay(volume, in_search, len(measured) - in_search, agreement(members))


def _foretold(evaluation: Evaluation, origin: dict[str, object], mean: float) -> Evaluation:
    return replace(
        evaluation,
        values={**evaluation.values, "predicted_latency_ms": mean},
        provenance={**evaluation.provenance, "predicted_latency_ms": origin},
    )


def _read(unread: Evaluation, full: Evaluation, later: bool = False) -> Evaluation:
    """Return a candidate with the latency that was recorded of it."""
    reading = number_from_dict(full.provenance[LATENCY])
    values = {**unread.values, LATENCY: reading.value}
    provenance = {**unread.provenance, LATENCY: reading.to_dict()}
    if later:
        provenance[f"search_{LATENCY}"] = unread.provenance[LATENCY]
    return replace(unread, values=values, provenance=provenance)
