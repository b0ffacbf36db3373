"""After the search: re-measure the front, all members interleaved, until who dominates whom is settled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nas.evaluation import Evaluation
from nas.measurement import Measurement
from nas.objective import Objective
from nas.search.front import Members, eligible, front_of
from nas.store import StudyStore

# Two medians are told apart when they lie further apart than this many of their blocks' spreads, added in quadrature.
_SPREADS = 2.0
_NEAR = 0.05


class Comparer(Protocol):
    """Times several models in one process, interleaved."""

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Return one measurement per model, in order."""
        ...


def settle_front(
    store: StudyStore, folder: Path, comparer: Comparer, objectives: Sequence[Objective], attempts: int = 3
) -> list[str]:
    """Re-measure the latency of the front's members and keep the new readings in the store.

    Reading one candidate per minute on a shared machine lets drift decide close calls; here all members share each
    minute. Each attempt doubles the rounds for as long as a dominance hangs on a difference within the noise. A member
    that falls off the front may leave room for a candidate that it had hidden, so candidates that enter, and those that
    one unlucky reading may have kept off, are measured likewise.

    Args:
        store: of the study.
        folder: of the study, to which the evaluations' folders are relative.
        comparer: times the quantized models.
        objectives: axes of the front; without ``latency_ms`` among them there is nothing to settle.
        attempts: measuring rounds before what is left is called within noise.

    Returns:
        One sentence per pair whose order is within noise; empty when all is settled.
    """
    if "latency_ms" not in {objective.metric for objective in objectives}:
        return []
    rounds, disturbed = 10, 0
    notes: list[str] = []
    for _ in range(attempts):
        members = eligible(store, objectives)
        front = near_front(members, objectives)
        timed = [member for member in front if (folder / member[1].folder / "model.onnx").is_file()]
        if not timed:
            break
        models = [folder / evaluation.folder / "model.onnx" for _, evaluation in timed]
        settled = store.get("settled", {})
        readings = comparer.compare(models, rounds)
        for (number, _), measurement in zip(timed, readings, strict=True):
            settled[str(number)] = measurement.to_dict()
        store.put("settled", settled)
        members = eligible(store, objectives)
        known = [member for member in members if str(member[0]) in settled]
        disturbed = sum(reading.disturbed for reading in readings)
        notes = within_noise(front_of(known, objectives), known, objectives)
        unmeasured = [number for number, _ in front_of(members, objectives) if str(number) not in settled]
        if not notes and not unmeasured and not disturbed:
            break
        rounds *= 2
    if disturbed:
        notes.append(f"the machine was busy while the front was timed again: {disturbed} readings are marked disturbed")
    front = front_of(eligible(store, objectives), objectives)
    missing = sorted({number for number, _ in front} - {int(number) for number in store.get("settled", {})})
    notes += [f"trial {number} on the front was not timed again; its latency is the search's" for number in missing]
    store.put("within_noise", notes)
    return notes


def near_front(members: Members, objectives: Sequence[Objective]) -> Members:
    """Return the front and the candidates that a latency smaller by 5 % would put on it: one reading is not enough."""
    front = front_of(members, objectives)
    on_front = {number for number, _ in front}
    near = []
    for number, evaluation in members:
        if number in on_front:
            continue
        lucky = {**evaluation.values, "latency_ms": evaluation.values["latency_ms"] * (1 - _NEAR)}
        mine = [objective.loss(lucky) for objective in objectives]
        if not any(
            all(objective.loss(member.values) <= loss for objective, loss in zip(objectives, mine, strict=True))
            for _, member in front
        ):
            near.append((number, evaluation))
    return [*front, *near]


def within_noise(front: Members, members: Members, objectives: Sequence[Objective]) -> list[str]:
    """Return a sentence for each pair in which dominance hangs on a latency difference within the noise.

    A pair is a member of the front with any other timed candidate; it hangs on latency when one of the two is no worse
    than the other in every other objective.
    """
    notes = []
    others = [objective for objective in objectives if objective.metric != "latency_ms"]
    leading = {number for number, _ in front}
    for index, (number, evaluation) in enumerate(members):
        for rival_number, rival in members[index + 1 :]:
            if number not in leading and rival_number not in leading:
                continue
            here = [objective.loss(evaluation.values) for objective in others]
            there = [objective.loss(rival.values) for objective in others]
            ordered = all(a <= b for a, b in zip(here, there, strict=True)) or all(
                a >= b for a, b in zip(here, there, strict=True)
            )
            gap = abs(evaluation.values["latency_ms"] - rival.values["latency_ms"])
            noise = _SPREADS * (_spread(evaluation) ** 2 + _spread(rival) ** 2) ** 0.5
            if ordered and gap <= noise:
                notes.append(
                    f"trials {number} and {rival_number} differ by {gap:.3g} ms, within noise ({noise:.2g} ms): "
                    "which of them dominates is not settled"
                )
    return notes


def _spread(evaluation: Evaluation) -> float:
    """Return the spread between blocks in milliseconds: that of single runs says little about their median."""
    origin = evaluation.provenance["latency_ms"]
    if origin.get("anchor_ratio") and origin.get("anchor_spread") is not None:
        return float(origin["anchor_spread"] / origin["anchor_ratio"] * origin["median"])
    return float(origin.get("spread") or 0.0)
