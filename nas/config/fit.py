"""What ``nas fit`` does: from resolved configs to timed networks, to a fitted model in a folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import nas
from nas.config.campaign import Campaign, block_shares
from nas.config.instantiate import instantiate
from nas.cost_protocols import LatencyFitter
from nas.data import Task
from nas.device import Device, local_fingerprint
from nas.errors import ConfigError, MeasurementError, UnservedTaskError
from nas.executor.gate import FileGate
from nas.measure.host import pinned
from nas.measure.meters import make_meter
from nas.measure.settings import TimingSettings
from nas.protocols import Runtime, SearchSpace
from nas.quantize.static import needs_reduced_range

# Kept for the fit of the models: what it takes at the most, and as a share of a short campaign.
FIT_SECONDS = 150.0
FIT_SHARE = 0.25
PROFILE_RUNS = 20


def fit_device(parts: Sequence[Mapping[str, Any]], told: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Time networks of all spaces in all runtimes, fit, save, and return the card with ``saved``, the folder.

    Args:
        parts: resolved configs of ``nas fit``, alike but for space and runtime.
        told: is given a line of progress now and then.

    Raises:
        ConfigError: the device is out of reach, or a space serves no task.
        MeasurementError: too little could be timed in the time.
    """
    begun = time.monotonic()
    config = parts[0]
    device: Device = instantiate(config["device"], path="device")
    if device.transport not in ("local", "ssh"):
        raise ConfigError(
            f"device '{device.name}' is out of reach (transport {device.transport}), and a model is fitted to "
            "measurements; use device=local on the device itself, or device=ssh."
        )
    runtimes = _runtimes(parts)
    timing = _timing(config)
    gate = FileGate(local_fingerprint().id)
    fingerprint = device.fingerprint
    features = fingerprint.features if fingerprint else ()
    campaign = Campaign(
        spaces=spaces_of(parts),
        meters={name: make_meter(device, runtime, timing, gate) for name, runtime in runtimes.items()},
        seed=config["seed"],
        rounds=config["rounds"],
        batch=config["batch"],
        reduce_range=needs_reduced_range(device.isa, features),
        profilers=_profilers(runtimes, device, gate),
    )
    seconds = config["minutes"] * 60
    timed = campaign.run(seconds - min(FIT_SECONDS, FIT_SHARE * seconds), config["networks"], told)
    spent = time.monotonic() - begun
    if not timed:
        failed = f"; the last failure: {campaign.failures[-1]}" if campaign.failures else ""
        raise MeasurementError(f"no network was timed in {spent:.0f} s{failed}. Give more minutes=.")
    target = Path(config["folder"]) / (config["name"] or _name(parts, device))
    fitter: LatencyFitter = instantiate(config["fitter"], path="fitter")
    facts = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hwnas": nas.__version__,
        "device": device.name,
        "device_key": device.key,
        "fingerprint": fingerprint.to_dict() if fingerprint else None,
        "threads": device.threads,
        "runtimes": {name: runtime.version for name, runtime in runtimes.items()},
        "spaces": sorted({network.space for network in timed}),
        "precisions": sorted({network.precision for network in timed}),
        "data": dict(config["data"]),
        "settings": {name: config[name] for name in ("minutes", "networks", "rounds", "batch", "seed")},
        "timing_s": spent,
        "failures": _counted(campaign.failures),
    }
    card = dict(fitter.fit(timed, device, target, facts))
    return {**card, "saved": str(target), "elapsed_s": time.monotonic() - begun}


def _profilers(
    runtimes: Mapping[str, Runtime], device: Device, gate: FileGate
) -> dict[str, Callable[[Path], Mapping[str, float]]]:
    """Return what profiles a file in each runtime; a profile is taken by this process, so not elsewhere."""
    if device.transport != "local":
        return {}

    def profile(runtime: Runtime, model: Path) -> Mapping[str, float]:
        with gate.timing(), pinned(device.affinity, device.threads):
            return block_shares(runtime.profile(model, PROFILE_RUNS, device.threads))

    return {name: partial(profile, runtime) for name, runtime in runtimes.items()}


def _timing(config: Mapping[str, Any]) -> TimingSettings:
    """Return the timing of single models, cut short for many networks."""
    node = config["cost"].get("timing")
    if node is None:
        raise ConfigError("cost has no timing settings, which a fit needs; use cost=measured.")
    timing: TimingSettings = instantiate(node, path="cost.timing")
    return replace(timing, tries=config["tries"], warmup_s=config["warmup_s"])


def spaces_of(parts: Sequence[Mapping[str, Any]]) -> list[SearchSpace]:
    """Return each space once per task that it serves, pictures once per number of colour channels.

    Raises:
        ConfigError: a space serves none of the tasks, or lacks what a task asks for.
    """
    nodes = {part["choices"]["space"]: part["space"] for part in parts}
    found = []
    for node in nodes.values():
        served, refusal = [], None
        for task in _tasks(parts[0]["data"]):
            try:
                served.append(instantiate(node, path="space", task=task))
            except UnservedTaskError as error:
                refusal = error
        if not served:
            raise refusal or ConfigError("data.tasks=[]; expected a task at least")
        found.append(served)
    # Alternating, so that a campaign that is cut has seen all.
    return [spaces[turn % len(spaces)] for turn in range(max(map(len, found))) for spaces in found]


def _tasks(data: Mapping[str, Any]) -> list[Task]:
    words = int(data["vocabulary"])
    made = {
        "image_classification": [Task("image_classification", count, data["classes"]) for count in data["channels"]],
        "text_classification": [Task("text_classification", 0, data["classes"], words)],
        "language_model": [Task("language_model", 0, words, words)],
    }
    return [task for kind in data["tasks"] for task in made[kind]]


def _runtimes(parts: Sequence[Mapping[str, Any]]) -> dict[str, Runtime]:
    made: dict[str, Runtime] = {}
    for node in {part["choices"]["runtime"]: part["runtime"] for part in parts}.values():
        runtime: Runtime = instantiate(node, path="runtime")
        made[runtime.name] = runtime
    return made


def _name(parts: Sequence[Mapping[str, Any]], device: Device) -> str:
    """Return a name that the same call on the same device makes again."""
    spaces = sorted({str(part["choices"]["space"]) for part in parts})
    runtimes = sorted({str(part["choices"]["runtime"]) for part in parts})
    told = json.dumps([device.key, spaces, runtimes, parts[0]["data"]], sort_keys=True)
    return f"{device.name}_{'-'.join(spaces)}_{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _counted(failures: Sequence[str]) -> dict[str, Any]:
    return {"count": len(failures), "last": failures[-1][:300] if failures else None}
