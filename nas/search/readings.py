"""What is timed after a search, and what is not: readings counted, estimates renewed, files that cannot be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.agreement import Agreement, agreement, is_predicting
from nas.doubt import LATENCY
from nas.errors import CandidateError, ModelFileError
from nas.measurement import Estimate
from nas.search.foresight import Foresight, latency_of
from nas.search.front import Members, complete
from nas.store import StudyStore

READINGS = "readings"
SETTLED = "settled"
ESTIMATES = "estimates"
UNTIMEABLE = "untimeable"


def keep_readings(store: StudyStore, step: str, count: int, settled: Mapping[str, Any]) -> None:
    """Keep what a step after the search has read, and count it in the same transaction.

    Args:
        store: of the study.
        step: ``drift`` or ``settle``.
        count: models timed, each time of each model counted.
        settled: trial number, as text, to the latency as it stands now.
    """
    known = store.get(READINGS, {})
    counted = {**known, step: known.get(step, 0) + count}
    store.put_all({READINGS: counted, SETTLED: {**store.get(SETTLED, {}), **settled}})


def renew_estimates(store: StudyStore, foresight: Foresight) -> None:
    """Feed all readings of a study to the model and note what it says now of the candidates that nobody measured."""
    records = list(store.trials())
    foresight.learn(record.evaluation for record in records if record.evaluation is not None)
    members = complete(store)
    foresight.learn(evaluation for _, evaluation in members)
    estimates = {}
    for number, evaluation in foresight.renewed(members):
        latency = latency_of(evaluation)
        if isinstance(latency, Estimate):
            estimates[str(number)] = latency.to_dict()
    store.put(ESTIMATES, estimates)


def estimated(members: Members) -> Members:
    """Return the members whose latency nobody has measured."""
    return [member for member in members if isinstance(latency_of(member[1]), Estimate)]


def leave_out_untimeable(
    store: StudyStore, members: Members, time_alone: Callable[[Path], object], folder: Path
) -> list[str]:
    """Time the members that nobody has measured one by one and note those that fail, which no front takes any more.

    Args:
        store: of the study.
        members: whose timing in company failed.
        time_alone: times a model file.
        folder: of the study.

    Returns:
        A sentence per candidate that failed; empty where the fault lies elsewhere.
    """
    notes = []
    for number, evaluation in estimated(members):
        try:
            time_alone(folder / evaluation.folder / "model.onnx")
        except (CandidateError, ModelFileError) as error:
            store.put(UNTIMEABLE, {**store.get(UNTIMEABLE, {}), str(number): str(error)})
            notes.append(f"trial {number} cannot be timed ({error}), so it is on no front")
    return notes


def agreement_of(store: StudyStore) -> Agreement | None:
    """Return how predictions and measurements of a study agree, or None where it measured or predicted everything."""
    if not is_predicting(store.get("config", {})):
        return None
    states = dict(complete(store))
    rows = [
        (record.number, states.get(record.number, record.evaluation))
        for record in store.trials()
        if record.evaluation is not None and record.state != "duplicate"
    ]
    return agreement((number, evaluation) for number, evaluation in rows if evaluation is not None)


def measurements(store: StudyStore) -> dict[str, int]:
    """Return how many latencies a study has measured: candidates in the search, and readings of each step after it.

    ``search`` counts each candidate once, infeasible ones among them; ``drift`` and ``settle`` count every reading.
    """
    found = 0
    for record in store.trials():
        if record.evaluation is not None and record.state != "duplicate":
            found += record.evaluation.provenance.get(LATENCY, {}).get("provenance") == "measured"
    known = store.get(READINGS, {})
    return {"search": found, "drift": known.get("drift", 0), "settle": known.get("settle", 0)}
