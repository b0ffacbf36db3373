"""What the verbs search, front and export do, from a resolved config to a report."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from nas.accuracy.trainers import Trainer
from nas.config.baselines import make_baseline_job, read_requests, run_baselines
from nas.config.earlier import first_candidates
from nas.config.instantiate import instantiate
from nas.config.parts import Parts, environment, make_job
from nas.config.report import SearchReport, existing, report_of
from nas.config.settling import settle
from nas.config.sources import check_sources
from nas.config.study import find_study, identity, resumed
from nas.errors import (
    CandidateError,
    ConfigError,
    ExportError,
    MeasurementError,
    ModelFileError,
    StoreError,
    unknown_name,
)
from nas.executor.in_process import InProcessExecutor
from nas.executor.spawned import SpawnedExecutor
from nas.executor.worker import Factory
from nas.export import Exporter
from nas.objective import Objective
from nas.protocols import Executor, OperatorTime, ShippedModel, Tracker
from nas.search.ask_tell import OptunaMirror
from nas.search.driver import Driver
from nas.search.front import DEVICES, study_objectives
from nas.search.knowledge import problem_of
from nas.search.rules import check_rule
from nas.search.samplers import make_sampler
from nas.search.several import device_stores, full_snapshot
from nas.search.shipping import Shipper
from nas.search.status import Observer, SearchLimits, SearchStatus
from nas.search.worst import Threshold
from nas.store import StudyStore
from nas.targets import own_axes

_FIRST = "first"  # answers that make the first candidates
_TRACKING_PAUSE_S = 5.0
_TRACKING_CLOSE_S = 90.0


def run_search(config: Mapping[str, Any], observers: Sequence[Observer] = ()) -> SearchReport:
    """Search, settle the front, export the model to ship, and report; a failed export is in the report.

    Args:
        config: resolved config of ``nas search``.
        observers: displays.

    Raises:
        ConfigError: a setting is wrong, or the study was started with another config.
    """
    config, folder = _study_of(config)
    check_rule(config["rule"])
    with _only_driver(folder):
        store = StudyStore(folder / "store.sqlite")
        parts = _start(config, folder, store)
        tracker: Tracker = instantiate(config["tracking"], folder=config["folder"], gate=parts.gate)
        try:
            began = time.monotonic()
            shared = parts.prepare()
            store.put("elapsed_s", store.get("elapsed_s", 0.0) + time.monotonic() - began)
            driver, executor, mirror = _driver(parts, store, tracker, observers)
            try:
                ended = driver.run()
            finally:
                executor.close()
            notes = [*parts.dataset.notes, *shared, *settle(parts, store)]
            run_baselines(parts, store, partial(_executor, parts, make_baseline_job), notes)
            if mirror.error:
                notes.append(f"the Optuna storage lacks trials ({mirror.error}); the same command again adds them")
            shippers = _shippers(parts, store)
            outcomes = {name: _ship(parts, shipper, config["rule"]) for name, shipper in shippers.items()}
            if config["keep"] == "front":
                next(iter(shippers.values())).prune()
            store.put("elapsed_s", driver.elapsed_s)
            store.put("finished", True)
        finally:
            tracker.update(full_snapshot(store, folder))
            line = tracker.close(_TRACKING_CLOSE_S)
            store.put("tracking", line)
        return report_of(store, folder, config["rule"], ended, outcomes, notes, line)


def run_export(config: Mapping[str, Any]) -> dict[str, ShippedModel]:
    """Export a member of a study's front, verified anew; of a study for several devices one for each.

    Args:
        config: resolved config of ``nas export``.

    Returns:
        What ships by the device's name, which is empty in a study for one device.
    """
    check_rule(config["rule"])
    folder = find_study(config["study"], config["folder"])
    with _only_driver(folder):
        store = existing(folder)
        # Whose files may run is a matter of this call: a study's folder may come from elsewhere.
        stored = {**store.get("config"), "plugins": config.get("plugins", [])}
        if config.get("data_path"):
            stored["data"] = {**stored["data"], "path": config["data_path"]}
        if config.get("native") is not None:
            stored["export"] = {"native": config["native"]}
        parts = Parts(stored, folder, study_objectives(store))
        if not isinstance(parts.accuracy, Trainer):
            raise ConfigError(
                f"study '{store.get('study')}' trained no candidate (accuracy=zero_cost); nothing can ship"
            )
        target = Path(config["to"]) if config.get("to") else None
        shippers = _asked_for(_shippers(parts, store), config)
        shipped = {}
        for name, shipper in shippers.items():
            to = target / name if target and len(shippers) > 1 else target
            shipped[name] = shipper.ship(config["rule"], config.get("trial"), to)
        if target is None:
            tracker: Tracker = instantiate(stored["tracking"], folder=config["folder"], gate=parts.gate)
            tracker.update(full_snapshot(store, folder))
            tracker.close(_TRACKING_CLOSE_S)
        return shipped


def _asked_for(shippers: Mapping[str, Shipper], config: Mapping[str, Any]) -> Mapping[str, Shipper]:
    """Return the shippers of the devices that an export is for: all, the one named, or with a trial the first."""
    name = config.get("target")
    if name is None:
        return shippers if config.get("trial") is None else dict(list(shippers.items())[:1])
    if name not in shippers:
        raise unknown_name("device of the study", name, [known for known in shippers if known])
    return {name: shippers[name]}


def _study_of(config: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Return the config to run and the study's folder; a study that exists goes on with its own config."""
    if config.get("resume"):
        folder = find_study(config["resume"], config["folder"])
    else:
        folder = Path(config["folder"]) / config["study"]
    if not _was_started(folder):
        if config.get("resume"):
            raise StoreError(
                f"{folder} holds no study that was started, so there is nothing to resume; start it without resume="
            )
        return dict(config), folder
    store = existing(folder)
    stored = store.get("config")
    store.close()
    if config.get("resume"):
        return {**resumed(stored, config), "study": stored["study"]}, folder
    here, there = identity(config), identity(stored)
    changed = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    if changed:
        raise ConfigError(
            f"study '{config['study']}' was started with other settings of {', '.join(changed)}; "
            "name another study, or go on with it as it is by resume="
        )
    return dict(config), folder


def _was_started(folder: Path) -> bool:
    """Say whether a search got past its checks; one that was refused or stopped before left an empty store."""
    if not (folder / "store.sqlite").is_file():
        return False
    store = StudyStore(folder / "store.sqlite")
    try:
        return store.get("config") is not None
    finally:
        store.close()


def _start(config: Mapping[str, Any], folder: Path, store: StudyStore) -> Parts:
    """Check what can be checked before anything is spent, and note what the study is."""
    parts = Parts(config, folder)
    check_sources(parts)
    _sampler(parts, 0)
    read_requests(parts)
    first = store.get(_FIRST)
    if first is None:
        first = first_candidates(parts)
    _check_same_machine(parts, store)
    if store.get("uuid") is None:
        store.put("uuid", uuid.uuid4().hex)
    if store.get("objectives") is None:
        store.put("objectives", [asdict(objective) for objective in parts.resolved_objectives()])
        store.put("started", time.time())
    store.put("study", config["study"])
    store.put("config", config)
    store.put("environment", environment())
    store.put("device", _device_facts(parts))
    store.put(DEVICES, {name: _device_facts(part) for name, part in parts.each.items()})
    store.put("data", parts.dataset.fingerprint)
    store.put(_FIRST, first)
    store.put("finished", False)
    for name, content in parts.dataset.study_files.items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "models").mkdir(parents=True, exist_ok=True)
    return replace(parts, references=study_objectives(store))


def _check_same_machine(parts: Parts, store: StudyStore) -> None:
    """Refuse to mix two machines, runtimes or states of the data in one front."""
    known, versions = store.get("device"), store.get("environment")
    if known is None:
        return
    keys = {f"device {name}": facts["key"] for name, facts in list(store.get(DEVICES, {}).items())[1:]}
    here = {
        **parts.device_keys,
        "onnxruntime": environment().get("onnxruntime"),
        "data": parts.dataset.fingerprint,
    }
    there = {"device": known["key"], **keys, "onnxruntime": versions.get("onnxruntime"), "data": store.get("data")}
    changed = [f"{name} {there.get(name)} then, {here[name]} now" for name in here if here[name] != there.get(name)]
    if changed:
        raise StoreError(
            f"study '{store.get('study')}' was made with another device, runtime or data ({'; '.join(changed)}), so "
            "its numbers do not compare with new ones; start a new study by study=NAME"
        )


def _device_facts(parts: Parts) -> dict[str, Any]:
    device = parts.device
    fingerprint = device.fingerprint.to_dict() if device.fingerprint else None
    return {"name": device.name, "threads": device.threads, "key": device.key, "fingerprint": fingerprint}


def _driver(
    parts: Parts, store: StudyStore, tracker: Tracker, observers: Sequence[Observer]
) -> tuple[Driver, Executor, OptunaMirror]:
    config, folder = parts.config, parts.folder
    mirror_url = config.get("storage") or f"sqlite:///{(folder / 'optuna.sqlite3').resolve()}"
    mirror = OptunaMirror(mirror_url, config["study"], parts.objectives, store.get("uuid"))
    mirror.check()
    executor = _executor(parts)
    driver = Driver(
        study=config["study"],
        screen=parts.screen,
        objectives=parts.objectives,
        make_sampler=partial(_sampler, parts),
        key_of=parts.key_of,
        store=store,
        executor=executor,
        limits=SearchLimits(budget=int(config["budget"]), hours=config["hours"]),
        seed=int(config["seed"]),
        mirror=mirror,
        observers=(*observers, _Feeder(tracker, store, folder)),
        halving=parts.halving,
        threshold=Threshold(config.get("drop_worst", {})),
        outlook=parts.outlook,
        first=store.get(_FIRST, []),
    )
    return driver, executor, mirror


def _sampler(parts: Parts, seed: int) -> Any:
    node = parts.config["sampler"]
    predicted_on = [name for name, part in parts.others.items() if part.config["cost"]["mode"] == "predicted"]
    problem = problem_of(parts.screen, parts.config["cost"]["mode"] == "predicted", predicted_on)
    return make_sampler(node["name"], seed, node.get("options"), problem)


def _executor(parts: Parts, factory: Factory = make_job) -> Executor:
    node = parts.config["executor"]
    payload = {
        "config": parts.config_of_workers(),
        "folder": str(parts.folder),
        "objectives": [asdict(objective) for objective in parts.objectives],
    }
    if node["kind"] == "in_process":
        return InProcessExecutor(factory(payload))
    return SpawnedExecutor(
        factory,
        payload,
        workers=node["workers"],
        memory_limit_mib=node["memory_limit_mib"],
        timeout_s=node["timeout_s"],
        log=parts.folder / "workers.log",
    )


class _Feeder:
    """Hands the tracker a snapshot when a trial has ended, but not more often than every few seconds."""

    def __init__(self, tracker: Tracker, store: StudyStore, folder: Path) -> None:
        self._tracker, self._store, self._folder = tracker, store, folder
        self._shown, self._next = -1, 0.0

    def __call__(self, status: SearchStatus) -> None:
        finished = sum(status.counts.values())
        if finished != self._shown and time.monotonic() >= self._next:
            self._tracker.update(full_snapshot(self._store, self._folder))
            self._shown, self._next = finished, time.monotonic() + _TRACKING_PAUSE_S


def _ship(parts: Parts, shipper: Shipper, rule: str) -> tuple[ShippedModel | None, str]:
    """Export what the rule picks, or say why nothing ships."""
    if not isinstance(parts.accuracy, Trainer):
        return None, "nothing ships: accuracy=zero_cost trains no candidate; search with accuracy=short_training"
    try:
        shipper.choose(rule)
    except ConfigError as error:
        return None, f"nothing ships: {error}"
    try:
        shipped = shipper.ship(rule)
    except (ExportError, ModelFileError, CandidateError, MeasurementError) as error:
        earlier = shipper.store.get("shipped")
        kept = f" The folder {shipper.home} still holds the earlier one, trial {earlier['trial']}." if earlier else ""
        return None, f"export failed: {error}.{kept}"
    return shipped, shipped.reason


def _shippers(parts: Parts, store: StudyStore) -> dict[str, Shipper]:
    """Return what picks and exports for each device, by its name; under an empty name where there is but one."""
    if not parts.names:
        return {"": _shipper(parts, parts, store, parts.objectives, "export")}
    return {
        name: _shipper(parts, parts.each[name], view, own_axes(study_objectives(view)), f"export/{name}")
        for name, view in device_stores(store).items()
    }


def _shipper(search: Parts, parts: Parts, store: StudyStore, axes: tuple[Objective, ...], home: str) -> Shipper:
    """Return what exports to ``home`` what is verified on the device of ``parts``; the whole search scores."""
    exporter = Exporter(
        dataset=parts.dataset,
        runtime=parts.runtime,
        meter=parts.meter,
        score=search.evaluator.score,
        environment=environment(),
        device=_device_facts(parts),
        cost_cards=parts.cost_cards(),
        native=_ships_native(parts),
    )
    return Shipper(store, parts.folder, axes, exporter, partial(_profile, parts), search.preprocessing, home)


def _ships_native(parts: Parts) -> bool:
    asked = (parts.config.get("export") or {}).get("native")
    return parts.runtime.name == "native" if asked is None else bool(asked)


def _profile(parts: Parts, model: Path) -> list[OperatorTime]:
    """Profile with the threads that were timed, and with nothing else running; elsewhere than here there is none."""
    if parts.device.transport != "local":
        return []
    with parts.gate.timing():
        return parts.runtime.profile(model, threads=parts.device.threads)


@contextmanager
def _only_driver(folder: Path) -> Iterator[None]:
    """Refuse to run beside another driver of the same study; the kernel frees the lock of one that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"study '{folder.name}' is being searched by another process; wait for it, or name another study"
            ) from error
        yield
    finally:
        os.close(descriptor)
