"""Makes devices from plain settings; what a local one leaves open is read from this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from nas.device import (
    Device,
    Emulation,
    EnergyOptions,
    Fingerprint,
    Peaks,
    Recording,
    SshLink,
    Transport,
    fingerprint_from_dict,
    local_fingerprint,
)
from nas.errors import ConfigError, unknown_name
from nas.measure.peaks import linked_peaks, local_peaks
from nas.measure.programs import BARE, RUNNERS, check_runner
from nas.measure.replay import recorded_fingerprint
from nas.measure.settings import TimingSettings
from nas.measure.ssh import SshMeter, ask_once
from nas.protocols import Runtime
from nas.runtime.onnx_runtime import OnnxRuntime

TRANSPORTS = ("local", "ssh", "emulated", "replay", "none")
_MAKER = "nas.measure.devices.make_device"
# Settings that one transport alone reads.
_ONLY = {
    "host": "ssh",
    "ssh_config": "ssh",
    "root": "emulated",
    "recording": "replay",
    "fingerprint": "ssh",
}


@dataclass(frozen=True)
class _Machine:
    """What the transport says of the machine at its end."""

    reach: SshLink | Emulation | Recording | None
    fingerprint: Fingerprint | None


def make_device(
    name: str,
    isa: str = "auto",
    cores: int | None = None,
    affinity: Sequence[int] = (),
    threads: int = 1,
    transport: str = "local",
    energy_source: str | None = None,
    peaks: Mapping[str, Any] | str | None = None,
    cache: str | None = None,
    host: str | None = None,
    python: str = "python3",
    runner: str = "python",
    program: str | None = None,
    ssh_config: str | None = None,
    connect_timeout_s: float = 15.0,
    tries: int = 3,
    pause_s: float = 1.0,
    root: str | None = None,
    recording: str | None = None,
    energy_rails: Sequence[str] = (),
    energy_command: Sequence[str] = (),
    energy_window_s: float = 0.5,
    record: str | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> Device:
    """Return a device; one behind ssh is asked which machine it is.

    Args:
        name: as in ``conf/device``.
        isa: machine such as ``x86_64``; ``auto`` takes what the machine says.
        cores: processors; None takes what the machine says.
        affinity: processors to pin timing to; empty takes the last one allowed.
        threads: intra-op threads of the runtime.
        transport: ``local``, ``ssh``, ``emulated``, ``replay``, or ``none`` for a device out of reach.
        energy_source: ``zeus``, ``zeus_gpu``, ``hwmon``, ``command`` or None.
        peaks: fields of ``Peaks``; ``auto`` measures a local device or one behind ssh once (some seconds, kept in the
            user's cache folder).
        cache: file that keeps measured peaks; None takes one in the user's cache folder.
        host: ssh: as in ``ssh HOST``.
        python: ssh: interpreter on the board that imports onnxruntime.
        runner: ssh, emulated: ``python``, or ``nasq-run`` for a board without it: that program and planned models are
            sent, and the runtime is ``native``.
        program: ssh, emulated: file of nasq-run for the board's processor; None takes the one that was built here.
        ssh_config: ssh: config file in place of the user's own.
        connect_timeout_s: ssh: a board that has not answered by then is out of reach.
        tries: ssh: sessions begun for one measurement.
        pause_s: ssh: waited before the second session.
        root: emulated: folder of an Arm file system, see ``scripts/arm64_root.sh``.
        recording: replay: file of recorded measurements.
        energy_rails: hwmon: labels of the channels to add up; empty takes the one that feeds the whole board.
        energy_command: command: program and arguments that print the joules counted so far.
        energy_window_s: length of a window of back-to-back runs.
        record: file that notes all measurements for a later replay.
        fingerprint: ssh: which machine it is, so that it is not asked; whatever is measured is held against it.

    Raises:
        ConfigError: settings that contradict each other or the machine.
        MeasurementError: peaks in the cache belong to another machine, or no machine answers.
    """
    if transport not in TRANSPORTS:
        raise unknown_name("transport", transport, TRANSPORTS)
    own = {"host": host, "ssh_config": ssh_config, "root": root, "recording": recording, "fingerprint": fingerprint}
    for setting, value in own.items():
        if value is not None and transport != _ONLY[setting]:
            raise ConfigError(
                f"device '{name}': {setting}={value} with transport={transport}; expected transport={_ONLY[setting]}"
            )
    if transport not in ("local", "ssh") and peaks == "auto":
        raise ConfigError(
            f"device '{name}' has transport={transport}, so its peaks cannot be measured from here; expected numbers. "
            "Take them from its data sheet."
        )
    check_runner(runner, program)
    if transport not in ("ssh", "emulated") and runner != RUNNERS[0]:
        raise ConfigError(
            f"device '{name}': runner={runner} with transport={transport}; expected transport=ssh or emulated"
        )
    if transport == "ssh":
        link = SshLink(host or "", python, ssh_config, connect_timeout_s, tries, pause_s, runner, program)
        machine = _behind_ssh(name, host, link, fingerprint)
    elif transport == "replay":
        machine = _recorded(name, recording)
    elif transport == "emulated":
        folder = root or "" if runner == BARE else _needed(name, "root", root)
        machine = _Machine(Emulation(folder, runner=runner, program=program), None)
    else:
        machine = _Machine(None, local_fingerprint() if transport == "local" else None)
    known = machine.fingerprint
    emulated = transport == "emulated"
    if known is None and not emulated and (isa == "auto" or cores is None):
        raise ConfigError(
            f"device '{name}' cannot be reached (transport={transport}), so nothing of it can be read; expected isa, "
            "cores and peaks. Take them from its data sheet."
        )
    count = cores if cores is not None else known.cores if known else 1
    _check_threads(name, threads, count, affinity, transport == "local")
    if not energy_window_s > 0:
        raise ConfigError(f"device '{name}': energy_window_s={energy_window_s}; expected more than 0")
    device = Device(
        name=name,
        isa=isa if isa != "auto" else known.isa if known else "aarch64",
        cores=count,
        affinity=tuple(affinity),
        threads=threads,
        transport=cast(Transport, transport),
        energy_source=energy_source,
        fingerprint=known,
        reach=machine.reach,
        energy_options=EnergyOptions(tuple(energy_rails), tuple(energy_command), window_s=energy_window_s),
        record=record,
    )
    return replace(device, peaks=_peaks(device, peaks, Path(cache) if cache else None))


def _needed(name: str, setting: str, value: str | None) -> str:
    if value is None:
        raise ConfigError(f"device '{name}' lacks {setting}; give it by device.{setting}=VALUE")
    return value


def _behind_ssh(name: str, host: str | None, link: SshLink, known: Mapping[str, Any] | None) -> _Machine:
    _needed(name, "host", host)
    if known is None:
        return _Machine(link, ask_once(link))
    try:
        return _Machine(link, fingerprint_from_dict(known))
    except ValueError as error:
        raise ConfigError(f"device '{name}': fingerprint: {error}; drop it, and the board is asked") from error


def as_known(node: Mapping[str, Any], device: Device) -> Mapping[str, Any]:
    """Return a config node that makes the same device without asking the board again, such as for a worker.

    A process that starts holds the gate, so what it asked over a link would keep every timing on this machine waiting.

    Args:
        node: of which the device was made.
        device: behind ssh, else the node is returned as it is.
    """
    if device.transport != "ssh" or device.fingerprint is None or node.get("_target_") != _MAKER:
        return node
    peaks = asdict(device.peaks) if device.peaks else None
    return {**node, "fingerprint": device.fingerprint.to_dict(), "peaks": peaks}


def _recorded(name: str, recording: str | None) -> _Machine:
    file = _needed(name, "recording", recording)
    return _Machine(Recording(file), recorded_fingerprint(Path(file)))


def _check_threads(name: str, threads: int, cores: int, affinity: Sequence[int], local: bool) -> None:
    if not 1 <= threads <= cores:
        raise ConfigError(f"device '{name}': threads={threads}; expected 1 to {cores}, its cores")
    if affinity and len(affinity) < threads:
        raise ConfigError(f"device '{name}': {threads} threads on {len(affinity)} pinned processors; pin as many")
    if local and affinity and hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        if not set(affinity) <= allowed:
            raise ConfigError(
                f"device '{name}': affinity={list(affinity)}; this process may use {sorted(allowed)}. Pick from those."
            )


def _linked_peaks(device: Device, fingerprint: Fingerprint, cache: Path | None) -> Peaks:
    if isinstance(device.reach, SshLink) and device.reach.runner == BARE:
        from nas.measure.bare_meter import BareMeter
        from nas.runtime.native import NativeRuntime

        return linked_peaks(
            BareMeter(device, NativeRuntime(), TimingSettings()).compare, fingerprint, cache, native=True
        )
    meter = SshMeter(device, cast(Runtime, OnnxRuntime()), TimingSettings())
    return linked_peaks(meter.compare, fingerprint, cache)


def _peaks(device: Device, peaks: Mapping[str, Any] | str | None, cache: Path | None) -> Peaks | None:
    name = device.name
    if peaks is None:
        return None
    if isinstance(peaks, str):
        if peaks != "auto":
            raise ConfigError(f"device '{name}': peaks={peaks}; expected auto, null or the fields of Peaks")
        if device.transport == "local":
            return local_peaks(cache)
        assert device.fingerprint is not None
        return _linked_peaks(replace(device, energy_source=None, threads=1), device.fingerprint, cache)
    try:
        made = Peaks(**{str(key): value for key, value in peaks.items()})
    except TypeError as error:
        raise ConfigError(f"device '{name}': peaks: {error}; expected {', '.join(Peaks.__annotations__)}") from error
    for field in ("fp32_gmacs", "int8_gmacs", "bandwidth_gbs"):
        if not getattr(made, field) > 0:
            raise ConfigError(f"device '{name}': peaks.{field}={getattr(made, field)}; expected more than 0")
    return made
