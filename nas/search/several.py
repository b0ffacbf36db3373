"""A study of several devices as each of them sees it: its store with the device in the first one's place; its front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.errors import ConfigError
from nas.evaluation import Evaluation
from nas.objective import Objective
from nas.protocols import SearchSnapshot
from nas.search.front import DEVICES, Members, complete, leading, snapshot_of, study_objectives
from nas.search.rules import pick
from nas.store import StudyStore, TrialRecord
from nas.targets import Exchange, exchanges, on_device, own_axes, seen_from, seen_on

# Facts of a study of which each device has its own.
_OF_A_DEVICE = ("settled", "estimates", "within_noise", "readings", "untimeable", "shipped")


class DeviceStore(StudyStore):
    """The store of a study with a device and the first one having changed places; it holds nothing of its own.

    Args:
        store: of a study of several devices.
        device: one of them.
    """

    def __init__(self, store: StudyStore, device: str) -> None:
        self.path, self._store, self._device = store.path, store, device
        self._db = store._db
        self._devices: Mapping[str, Any] = store.get(DEVICES, {})
        self._first = next(iter(self._devices))

    def _name(self, name: str) -> str:
        if self._device == self._first:
            return name
        if name in _OF_A_DEVICE:
            return on_device(name, self._device)
        plain = name.removesuffix(on_device("", self._first))
        return plain if plain != name and plain in _OF_A_DEVICE else name

    def get(self, name: str, default: Any = None) -> Any:
        """Return a fact as the device sees it."""
        if name == "device":
            return self._devices[self._device]
        if name == DEVICES:
            return {self._device: self._devices[self._device], **self._devices}
        found = self._store.get(self._name(name), default)
        if name == "config" and found:
            cost = (found.get("costs") or {}).get(self._device, found.get("cost"))
            return {**found, "device": (found.get("devices") or {}).get(self._device), "cost": cost}
        if name == "objectives" and found:
            return [{**axis, "metric": self._seen(axis["metric"])} for axis in found]
        if name == "baselines" and found:
            return [{**item, **{part: self._named(item[part]) for part in ("values", "provenance")}} for item in found]
        return found

    def _seen(self, metric: str) -> str:
        return seen_from(metric, self._first, self._device)

    def _named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {self._seen(metric): value for metric, value in values.items()}

    def put_all(self, facts: Mapping[str, Any]) -> None:
        """Keep facts in one transaction, the device's own under its name."""
        self._store.put_all({self._name(name): value for name, value in facts.items()})

    def trials(self) -> Iterator[TrialRecord]:
        """Yield all trials, their values named as the device sees them."""
        for record in self._store.trials():
            known = record.evaluation
            yield replace(record, evaluation=seen_on(known, self._first, self._device) if known else None)


def device_stores(store: StudyStore) -> dict[str, DeviceStore]:
    """Return each device's view of a study by the device's name; empty for a study of one device."""
    return {name: DeviceStore(store, name) for name in store.get(DEVICES, {})}


def exchanges_of(
    stores: Mapping[str, StudyStore], fronts: Mapping[str, tuple[Members, int | None]]
) -> tuple[Exchange, ...]:
    """Return what is lost by shipping each device's winner on each other one.

    Args:
        stores: as :func:`device_stores` returns them.
        fronts: device to the members of its front, as it sees them, and the number of its winner, or None.
    """
    seen: dict[str, dict[int, Evaluation]] = {name: dict(complete(view)) for name, view in stores.items()}
    winners = {
        name: (trial, {on: evaluations[trial] for on, evaluations in seen.items()})
        for name, (_, trial) in fronts.items()
        if trial is not None
    }
    return tuple(exchanges({name: front for name, (front, _) in fronts.items()}, winners))


def winners_of(stores: Mapping[str, StudyStore], rule: str) -> dict[str, int]:
    """Return device to the number of the trial that a rule picks of its front; a device without a winner is left out.

    Args:
        stores: as :func:`device_stores` returns them.
        rule: see :mod:`nas.search.rules`.
    """
    found = {}
    for name, view in stores.items():
        axes = own_axes(study_objectives(view))
        _, winner = _with_winner(leading(view, axes), rule, axes)
        if winner is not None:
            found[name] = winner
    return found


def full_snapshot(store: StudyStore, folder: Path) -> SearchSnapshot:
    """Rebuild all that a tracker shows, with one front per device where the search names several."""
    snapshot = snapshot_of(store, folder)
    views = device_stores(store)
    if not views:
        return snapshot
    axes = {name: own_axes(study_objectives(view)) for name, view in views.items()}
    devices = {name: snapshot_of(view, folder, axes[name]) for name, view in views.items()}
    rule = snapshot.config.get("rule", "knee")
    fronts = {name: _with_winner(leading(view, axes[name]), rule, axes[name]) for name, view in views.items()}
    return replace(snapshot, devices=devices, exchanges=exchanges_of(views, fronts))


def _with_winner(front: Members, rule: str, axes: Sequence[Objective]) -> tuple[Members, int | None]:
    try:
        index, _ = pick(rule, [evaluation.values for _, evaluation in front], axes)
    except ConfigError:
        return front, None
    return front, front[index][0]
