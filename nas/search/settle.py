"""After the search: re-measure the front, all members interleaved, until who dominates whom is settled."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from nas.doubt import LATENCY, gain, interval
from nas.errors import CandidateError, ModelFileError
from nas.evaluation import Evaluation
from nas.measurement import Estimate, Measurement
from nas.objective import Objective
from nas.search.foresight import Foresight, latency_of
from nas.search.front import Members, eligible, front_of, front_within, settled_metric
from nas.search.readings import estimated, keep_readings, leave_out_untimeable, renew_estimates
from nas.store import StudyStore

# Two medians are told apart when they lie further apart than this many of their blocks' spreads, added in quadrature.
_SPREADS = 2.0
_NEAR = 0.05
# Where a process happens to lay out its memory shifts a small model's time by more than the spread inside the process.
_FEWEST_PROCESSES = 2


class Comparer(Protocol):
    """Times several models in one process, interleaved."""

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Return one measurement per model, in order."""
        ...


def settle_front(
    store: StudyStore,
    folder: Path,
    comparer: Comparer,
    objectives: Sequence[Objective],
    foresight: Foresight | None = None,
    attempts: int = 3,
    further: Sequence[Objective] = (),
) -> list[str]:
    """Re-measure the latency of the front's members and keep the new readings in the store.

    Reading one candidate per minute on a shared machine lets drift decide close calls; here all members share each
    minute. Each attempt is a process of its own and doubles the rounds; there are at least two for each member, and
    more for as long as a dominance hangs on a difference within the noise. What is kept is pooled over the attempts,
    see :func:`pooled`. A member that falls off the front may leave room for a candidate that it had hidden, so
    candidates that enter, and those that one unlucky reading or a predicted interval may have kept off, are measured
    likewise; there are as many attempts as it takes until the front holds no latency that nobody measured.

    Args:
        store: of the study.
        folder: of the study, to which the evaluations' folders are relative.
        comparer: times the quantized models.
        objectives: axes of the front; without ``latency_ms``, of a language model ``token_ms``, among them there is
            nothing to settle, and only what nobody measured on the front is timed.
        foresight: predicts what nobody measured; fed with all readings before each attempt.
        attempts: measuring rounds before what is left is called within noise.
        further: axes of the study besides; their bounds hold, and the front is taken out of the one over all axes.

    Returns:
        One sentence per pair whose order is within noise; empty when all is settled.
    """
    axes = {objective.metric for objective in objectives}
    is_axis = settled_metric(axes) in axes
    if not is_axis and foresight is None:
        return []
    rounds, disturbed = 10, 0
    least_gain = foresight.least_gain if foresight is not None else 0.0
    notes: list[str] = []
    faults: list[str] = []
    readings: dict[str, list[Measurement]] = {}
    for attempt in itertools.count():
        timed = _whom_to_time(store, folder, objectives, foresight, attempt >= attempts or not is_axis, further)
        if not timed:
            break
        try:
            _time(store, folder, comparer, timed, rounds, readings)
        except (CandidateError, ModelFileError):
            found = leave_out_untimeable(store, timed, lambda model: comparer.compare([model], 1), folder)
            if not found:
                raise
            faults += found
            continue
        if not is_axis:
            continue
        kept, settled = _pooled_readings(readings), store.get("settled", {})
        members = eligible(store, (*objectives, *further))
        known = [member for member in members if str(member[0]) in kept or str(member[0]) in settled]
        leading = front_of(known, objectives)
        notes = within_noise(leading, known, objectives)
        unmeasured = [number for number, _ in front_within(members, objectives, further) if str(number) not in kept]
        unmeasured += [number for number, _ in estimated(near_front(members, objectives, least_gain))]
        once = [number for number, _ in leading if len(readings.get(str(number), [])) < _FEWEST_PROCESSES]
        disturbed = sum(kept[str(number)].disturbed for number, _ in timed)
        if not notes and not unmeasured and not once and not disturbed:
            break
        rounds *= 2 if attempt < attempts else 1
    if disturbed:
        notes.append(f"the machine was busy while the front was timed again: {disturbed} readings are marked disturbed")
    front = front_within(eligible(store, (*objectives, *further)), objectives, further)
    timed_again = {int(number) for number in store.get("settled", {})}
    missing = sorted({number for number, _ in front} - timed_again) if is_axis else []
    notes += [f"trial {number} on the front was not timed again; its latency is the search's" for number in missing]
    store.put("within_noise", [*faults, *notes])
    return [*faults, *notes]


def _whom_to_time(
    store: StudyStore,
    folder: Path,
    objectives: Sequence[Objective],
    foresight: Foresight | None,
    late: bool,
    further: Sequence[Objective],
) -> Members:
    """Return the front and what is near it, late only what nobody has measured on the front; what has no file is left.

    The estimates are those after all readings so far.
    """
    if foresight is not None:
        renew_estimates(store, foresight)
    members = eligible(store, (*objectives, *further))
    least_gain = foresight.least_gain if foresight is not None else 0.0
    front = front_within(members, objectives, further)
    chosen = estimated(front)
    if not late:
        near = near_front(members, objectives, least_gain)
        seen = {number for number, _ in near}
        chosen = [*near, *(member for member in front if member[0] not in seen)]
    return [member for member in chosen if (folder / member[1].folder / "model.onnx").is_file()]


def _time(
    store: StudyStore,
    folder: Path,
    comparer: Comparer,
    timed: Members,
    rounds: int,
    readings: dict[str, list[Measurement]],
) -> None:
    """Time the members once more, interleaved, and keep what is pooled of all their readings."""
    models = [folder / evaluation.folder / "model.onnx" for _, evaluation in timed]
    taken = comparer.compare(models, rounds)
    for (number, _), measurement in zip(timed, taken, strict=True):
        readings.setdefault(str(number), []).append(measurement)
    kept = {number: measurement.to_dict() for number, measurement in _pooled_readings(readings).items()}
    keep_readings(store, "settle", len(taken), kept)


def time_besides(store: StudyStore, folder: Path, comparer: Comparer, members: Members, rounds: int = 10) -> None:
    """Time members besides the front, in as many processes as one of the front at least; what has no file is left.

    Args:
        store: of the study.
        folder: of the study.
        comparer: times the quantized models.
        members: to time.
        rounds: blocks of each model.
    """
    timed = [member for member in members if (folder / member[1].folder / "model.onnx").is_file()]
    readings: dict[str, list[Measurement]] = {}
    for _ in range(_FEWEST_PROCESSES if timed else 0):
        _time(store, folder, comparer, timed, rounds, readings)


def _pooled_readings(readings: Mapping[str, Sequence[Measurement]]) -> dict[str, Measurement]:
    return {number: pooled(taken) for number, taken in readings.items()}


def pooled(readings: Sequence[Measurement]) -> Measurement:
    """Return one measurement of several processes' readings of one model; disturbed ones count only where all are.

    ``anchor_spread`` becomes the larger of the spread inside a process and half the range between the processes, so
    that it says how far a reading in yet another process may lie off.
    """
    calm = [reading for reading in readings if not reading.disturbed] or list(readings)
    ratios = [reading.anchor_ratio for reading in calm if reading.anchor_ratio is not None]
    inside = [reading.anchor_spread for reading in calm if reading.anchor_spread is not None]
    return replace(
        calm[-1],
        median=float(np.median([reading.median for reading in calm])),
        p10=float(np.median([reading.p10 for reading in calm])),
        spread=float(np.median([reading.spread for reading in calm])),
        count=sum(reading.count for reading in calm),
        anchor_ratio=float(np.median(ratios)) if ratios else None,
        anchor_spread=max(float(np.median(inside)), (max(ratios) - min(ratios)) / 2) if ratios and inside else None,
    )


def near_front(members: Members, objectives: Sequence[Objective], least_gain: float = 0.0) -> Members:
    """Return the front and the candidates that a latency smaller by 5 % would put on it: one reading is not enough.

    Of a latency that was predicted the lower end of its interval is taken, and who would add less than ``least_gain``
    to the hypervolume there, a share of its box, is left out.
    """
    front = front_of(members, objectives)
    on_front = {number for number, _ in front}
    values = [evaluation.values for _, evaluation in front]
    near = []
    for number, evaluation in members:
        if number in on_front:
            continue
        metric, latency = settled_metric(evaluation.values), latency_of(evaluation)
        predicted = latency if metric == LATENCY and isinstance(latency, Estimate) else None
        least = interval(predicted)[0] if predicted else evaluation.values[metric] * (1 - _NEAR)
        lucky = {**evaluation.values, metric: least}
        mine = [objective.loss(lucky) for objective in objectives]
        if any(
            all(objective.loss(member) <= loss for objective, loss in zip(objectives, mine, strict=True))
            for member in values
        ):
            continue
        if predicted is None or gain(lucky, values, objectives) >= least_gain:
            near.append((number, evaluation))
    return [*front, *near]


def within_noise(front: Members, members: Members, objectives: Sequence[Objective]) -> list[str]:
    """Return a sentence for each pair in which dominance hangs on a latency difference within the noise.

    A pair is a member of the front with any other timed candidate; it hangs on latency when one of the two is no worse
    than the other in every other objective.
    """
    notes = []
    metric = settled_metric([objective.metric for objective in objectives])
    others = [objective for objective in objectives if objective.metric != metric]
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
            gap = abs(evaluation.values[metric] - rival.values[metric])
            noise = _SPREADS * (_spread(evaluation) ** 2 + _spread(rival) ** 2) ** 0.5
            if ordered and gap <= noise:
                notes.append(
                    f"trials {number} and {rival_number} differ by {gap:.3g} ms, within noise ({noise:.2g} ms): "
                    "which of them dominates is not settled"
                )
    return notes


def _spread(evaluation: Evaluation) -> float:
    """Return the spread between blocks in milliseconds: that of single runs says little about their median."""
    origin = evaluation.provenance[settled_metric(evaluation.values)]
    if origin.get("anchor_ratio") and origin.get("anchor_spread") is not None:
        return float(origin["anchor_spread"] / origin["anchor_ratio"] * origin["median"])
    return float(origin.get("spread") or 0.0)
