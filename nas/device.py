"""Devices: what they are, what they offer, and the fingerprint that a number is bound to."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Transport = Literal["local", "none"]

_ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


@dataclass(frozen=True)
class Fingerprint:
    """What must be equal for two latencies to be comparable.

    Args:
        cpu: model name as the kernel reports it.
        isa: machine, such as ``x86_64``.
        features: vector extensions that matter to quantized kernels, sorted.
        cores: logical processors.
        governor: frequency governor, or ``none`` where the machine does not say.
        kernel: release of the operating system's kernel.
    """

    cpu: str
    isa: str
    features: tuple[str, ...]
    cores: int
    governor: str
    kernel: str

    @cached_property
    def id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, id included."""
        return {**asdict(self), "features": list(self.features), "id": self.id}


@dataclass(frozen=True)
class Peaks:
    """Upper bounds of one core, the constants of a roofline.

    Args:
        fp32_gmacs: billion fp32 multiply-accumulates per second.
        int8_gmacs: billion int8 multiply-accumulates per second.
        bandwidth_gbs: billion bytes per second from memory.
        op_overhead_us: microseconds that a runtime spends per op besides computing.
        source: where the numbers come from, such as ``measured`` or a data sheet.
    """

    fp32_gmacs: float
    int8_gmacs: float
    bandwidth_gbs: float
    op_overhead_us: float
    source: str


@dataclass(frozen=True)
class Device:
    """A target on which candidates are costed.

    Args:
        name: as in ``conf/device``.
        isa: machine, such as ``x86_64`` or ``aarch64``.
        cores: processors that the device has.
        affinity: processors that timing is pinned to; empty leaves it to the timer.
        threads: intra-op threads of the runtime.
        transport: ``local``, or ``none`` where the device cannot be reached and costs are estimates.
        energy_source: ``zeus`` or None; None means that energy is absent, never 0.
        peaks: roofline constants, or None where they were neither measured nor configured.
        fingerprint: of the machine, or None for one that cannot be reached.
    """

    name: str
    isa: str
    cores: int
    affinity: tuple[int, ...] = ()
    threads: int = 1
    transport: Transport = "local"
    energy_source: str | None = None
    peaks: Peaks | None = None
    fingerprint: Fingerprint | None = None

    @property
    def key(self) -> str:
        """Fingerprint and thread count, or the name for a device out of reach: what a stored cost is bound to."""
        known = self.fingerprint.id if self.fingerprint else f"name:{self.name}"
        return f"{known}/t{self.threads}"


def local_fingerprint(cpuinfo: Path = Path("/proc/cpuinfo"), sysfs: Path = Path("/sys")) -> Fingerprint:
    """Read the fingerprint of this machine.

    Args:
        cpuinfo: file in the format of ``/proc/cpuinfo``.
        sysfs: root of the sys file system.
    """
    fields = _cpuinfo_fields(cpuinfo)
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    governor = sysfs / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return Fingerprint(
        cpu=fields.get("model name") or fields.get("Hardware") or platform.processor() or "unknown",
        isa=platform.machine(),
        features=tuple(flag for flag in _ISA_FLAGS if flag in flags),
        cores=os.cpu_count() or 1,
        governor=governor.read_text().strip() if governor.is_file() else "none",
        kernel=platform.release(),
    )


def _cpuinfo_fields(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    fields: dict[str, str] = {}
    for key, value in pairs:
        fields.setdefault(key.strip(), value.strip())
    return fields
