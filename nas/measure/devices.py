"""Makes devices from plain settings; what a local one leaves open is read from this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.device import Device, Peaks, Transport, local_fingerprint
from nas.errors import ConfigError, unknown_name
from nas.measure.peaks import local_peaks

TRANSPORTS = ("local", "none")


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
) -> Device:
    """Return a device.

    Args:
        name: as in ``conf/device``.
        isa: machine such as ``x86_64``; ``auto`` reads this one's.
        cores: processors; None reads this machine's.
        affinity: processors to pin timing to; empty takes the last one allowed.
        threads: intra-op threads of the runtime.
        transport: ``local``, or ``none`` for a device out of reach.
        energy_source: ``zeus`` or None.
        peaks: fields of ``Peaks``; ``auto`` measures this machine once (about 1 s, kept in the user's cache folder).
        cache: file that keeps measured peaks; None takes one in the user's cache folder.

    Raises:
        ConfigError: settings that contradict each other or this machine.
        MeasurementError: peaks in the cache belong to another machine.
    """
    local = transport == "local"
    if transport not in TRANSPORTS:
        raise unknown_name("transport", transport, TRANSPORTS)
    if not local and (isa == "auto" or cores is None or peaks == "auto"):
        raise ConfigError(
            f"device '{name}' cannot be reached (transport={transport}), so nothing of it can be read; expected isa, "
            "cores and peaks. Take them from its data sheet."
        )
    count = (os.cpu_count() or 1) if cores is None else cores
    _check_threads(name, threads, count, affinity, local)
    return Device(
        name=name,
        isa=platform.machine() if isa == "auto" else isa,
        cores=count,
        affinity=tuple(affinity),
        threads=threads,
        transport=_transport(local),
        energy_source=energy_source,
        peaks=_peaks(name, peaks, Path(cache) if cache else None),
        fingerprint=local_fingerprint() if local else None,
    )


def _transport(local: bool) -> Transport:
    return "local" if local else "none"


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


def _peaks(name: str, peaks: Mapping[str, Any] | str | None, cache: Path | None) -> Peaks | None:
    if peaks is None:
        return None
    if isinstance(peaks, str):
        if peaks != "auto":
            raise ConfigError(f"device '{name}': peaks={peaks}; expected auto, null or the fields of Peaks")
        return local_peaks(cache)
    try:
        made = Peaks(**{str(key): value for key, value in peaks.items()})
    except TypeError as error:
        raise ConfigError(f"device '{name}': peaks: {error}; expected {', '.join(Peaks.__annotations__)}") from error
    for field in ("fp32_gmacs", "int8_gmacs", "bandwidth_gbs"):
        if not getattr(made, field) > 0:
            raise ConfigError(f"device '{name}': peaks.{field}={getattr(made, field)}; expected more than 0")
    return made
