"""What is timed when a search has ended: on each device its front, and what the table of losses needs."""

from __future__ import annotations

from collections.abc import Mapping

from nas.config.parts import Parts
from nas.errors import CandidateError, MeasurementError, ModelFileError
from nas.measurement import Estimate
from nas.search.drift import retime_drifted
from nas.search.foresight import latency_of
from nas.search.front import complete, leading, study_objectives
from nas.search.readings import SETTLED, renew_estimates
from nas.search.settle import settle_front, time_besides
from nas.search.several import device_stores, winners_of
from nas.store import StudyStore
from nas.targets import own_axes


def settle(parts: Parts, store: StudyStore) -> list[str]:
    """Settle the front on every device, and return sentences for the report.

    Where everything was measured, the members of the front over all axes are timed on each device, since the table of
    losses needs each winner on each. With ``cost=auto`` that would be nearly all candidates: only a device's own front
    is timed there, and the winners of the other devices. These may change the model, the front and its winner, so it
    goes on until no front holds a member that was not timed.
    """
    if not parts.names:
        drifted, settled = _settle_on(parts, store)
        return [*drifted, *settled]
    views = device_stores(store)
    drift: dict[str, list[str]] = {}
    said: dict[str, list[str]] = {}
    due, timed = list(parts.each), -1
    while due:
        for name in due:
            drifted, said[name] = _settle_on(parts.each[name], views[name])
            drift[name] = [*drift.get(name, []), *drifted]
        said |= _time_winners(parts, views, said)
        now = sum(len(view.get(SETTLED, {})) for view in views.values())
        # What could not be timed now is not tried for ever.
        due = [name for name, part in parts.each.items() if now > timed and _holds_untimed(part, views[name])]
        timed = now
    return [f"{name}: {note}" for name, notes in said.items() for note in (*drift[name], *notes)]


def _settle_on(parts: Parts, store: StudyStore) -> tuple[list[str], list[str]]:
    """Return sentences on the machine's drift, and on the front as it stands now."""
    if parts.meter is None:
        return [], [
            f"nothing was measured on '{parts.device.name}': its costs are estimates (predicted or modelled). "
            "Intervals, reasons and the cards of the models are in the exported model_card.json under estimates"
        ]
    axes, drifted = study_objectives(store), list[str]()
    own = own_axes(axes) if parts.foresight is not None else axes
    further = [axis for axis in axes if axis not in own]
    try:
        drifted = retime_drifted(store, parts.folder, parts.meter, axes)
        return drifted, settle_front(store, parts.folder, parts.meter, own, parts.foresight, further=further)
    except (ModelFileError, CandidateError, MeasurementError) as error:
        return drifted, [f"the front was not timed again ({error}); latencies are those of the search"]


def _time_winners(parts: Parts, views: Mapping[str, StudyStore], said: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Time on each device that measures in doubt only what the others ship; return its notes where that failed."""
    winners = set(winners_of(views, parts.config["rule"]).values())
    failed = {}
    for name, part in parts.each.items():
        if part.foresight is None or part.meter is None:
            continue
        members = [member for member in complete(views[name]) if member[0] in winners]
        untimed = [member for member in members if isinstance(latency_of(member[1]), Estimate)]
        try:
            time_besides(views[name], part.folder, part.meter, untimed)
        except (ModelFileError, CandidateError, MeasurementError) as error:
            note = f"winners of other devices were not timed ({error}); what they take here is an estimate"
            failed[name] = [*said.get(name, []), note]
        renew_estimates(views[name], part.foresight)
    return failed


def _holds_untimed(parts: Parts, view: StudyStore) -> bool:
    if parts.foresight is None:
        return False
    timed = view.get(SETTLED, {})
    return any(str(number) not in timed for number, _ in leading(view, own_axes(study_objectives(view))))
