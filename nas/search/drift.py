"""After the search: time again what was timed while the anchor model ran slower than in the machine's calm minutes.

The anchor is timed beside every candidate, and the harness redoes a sample when the anchor is slower than the best that
its worker has seen. What slips through are samples that stayed disturbed, and those from before a calm minute was seen:
a processor that throttles from the start, a neighbour that leaves later. Only the whole search shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.evaluation import State
from nas.objective import Objective
from nas.search.front import Members, complete, eligible
from nas.search.readings import keep_readings
from nas.search.settle import Comparer
from nas.store import StudyStore

# Share by which the anchor may exceed its calm level; as timing.max_anchor_level by default.
DRIFT = 0.15
# A level needs company: of fewer readings none can be called calm.
FEWEST = 3
_CALM_PERCENTILE = 10
_ROUNDS = 10
_BATCH = 8


def retime_drifted(
    store: StudyStore, folder: Path, comparer: Comparer, objectives: Sequence[Objective], tries: int = 2
) -> list[str]:
    """Time the affected candidates again and keep the new readings in the store.

    The calm level is the 10th percentile of the anchor's medians over the whole search. A candidate is affected when
    its anchor exceeded that by more than ``DRIFT``, or when its sample is marked disturbed.

    Args:
        store: of the study.
        folder: of the study, to which the evaluations' folders are relative.
        comparer: times the quantized models.
        objectives: axes of the front; without ``latency_ms`` among them there is nothing to do.
        tries: how often what is still affected is timed.

    Returns:
        Sentences for the report; none where nothing drifted.
    """
    if "latency_ms" not in {objective.metric for objective in objectives}:
        return []
    calm_ms = calm_level(complete(store))
    if calm_ms is None:
        return []
    first = affected(eligible(store, objectives), calm_ms)
    notes = []
    if first:
        worst = max(_slower(evaluation.provenance["latency_ms"], calm_ms) for _, evaluation in first)
        left = first
        for _ in range(tries):
            left = _time_again(store, folder, comparer, left, calm_ms)
            if not left:
                break
        notes.append(
            f"the machine drifted: {_trials(first)} timed while it was busy or the anchor model ran slower than in "
            f"calm minutes, by up to {worst:.0%} (allowed {DRIFT:.0%}); timed again where the file was kept"
        )
        if left:
            notes.append(f"the machine is still busy or slow: {_trials(left)} not timed in a calm minute")
    refused = [
        (record.number, record.evaluation)
        for record in store.trials()
        if record.state == State.INFEASIBLE and record.evaluation is not None
    ]
    doubtful = affected([member for member in refused if "latency_ms" in member[1].constraints], calm_ms)
    if doubtful:
        notes.append(f"{_trials(doubtful)} refused for a latency that was read while the machine was slow or busy")
    return notes


def calm_level(members: Members) -> float | None:
    """Return the anchor's calm median in milliseconds, or None of fewer than ``FEWEST`` readings."""
    anchors = [anchor for _, evaluation in members if (anchor := _anchor_ms(evaluation.provenance.get("latency_ms")))]
    return float(np.percentile(anchors, _CALM_PERCENTILE)) if len(anchors) >= FEWEST else None


def affected(members: Members, calm_ms: float) -> Members:
    """Return the members whose latest reading is disturbed or drifted beyond ``DRIFT``."""
    found = []
    for number, evaluation in members:
        origin = evaluation.provenance.get("latency_ms")
        if _anchor_ms(origin) is None:
            continue
        assert origin is not None
        if origin.get("disturbed") or _slower(origin, calm_ms) > DRIFT:
            found.append((number, evaluation))
    return found


def _anchor_ms(origin: Mapping[str, Any] | None) -> float | None:
    """Return the anchor's median beside a reading, from the reading and its ratio; None where no anchor ran."""
    if origin is None or origin.get("provenance") != "measured" or not origin.get("anchor_ratio"):
        return None
    return float(origin["median"] / origin["anchor_ratio"])


def _slower(origin: Mapping[str, Any], calm_ms: float) -> float:
    return (_anchor_ms(origin) or calm_ms) / calm_ms - 1


def _time_again(store: StudyStore, folder: Path, comparer: Comparer, members: Members, calm_ms: float) -> Members:
    """Time the members whose files are there, and return those that are affected still."""
    timed = [member for member in members if (folder / member[1].folder / "model.onnx").is_file()]
    for start in range(0, len(timed), _BATCH):
        batch = timed[start : start + _BATCH]
        readings = comparer.compare([folder / evaluation.folder / "model.onnx" for _, evaluation in batch], _ROUNDS)
        taken = {str(number): reading.to_dict() for (number, _), reading in zip(batch, readings, strict=True)}
        keep_readings(store, "drift", len(batch), taken)
    wanted = {number for number, _ in members}
    return affected([member for member in complete(store) if member[0] in wanted], calm_ms)


def _trials(members: Members) -> str:
    numbers = sorted(number for number, _ in members)
    shown = ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
    return f"{'trial' if len(numbers) == 1 else 'trials'} {shown} {'was' if len(numbers) == 1 else 'were'}"
