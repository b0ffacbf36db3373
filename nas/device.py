"""Devices: what they are, what they offer, and the fingerprint that a number is bound to."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Transport = Literal["local", "ssh", "emulated", "replay", "none"]

_ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimdhp", "asimddp", "i8mm")


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
class SshLink:
    """How a board is reached through the system's OpenSSH.

    Args:
        host: as the user's ssh knows it, such as ``pi@raspberrypi.local`` or a name of their ssh config.
        python: interpreter on the board that imports onnxruntime; a path is absolute or starts in the login folder.
        runner: ``python``, or ``nasq-run`` for a board that has none: that program and planned models are sent.
        program: file of ``nasq-run`` for the board's processor; None takes the one that was built here.
        config_file: ssh config in place of the user's own, or None.
        connect_timeout_s: a board that has not answered by then is out of reach.
        tries: sessions that are begun for one measurement before a cut link is a reason to stop.
        pause_s: waited before the second session, twice as long before the third, and so on.
    """

    host: str
    python: str = "python3"
    config_file: str | None = None
    connect_timeout_s: float = 15.0
    tries: int = 3
    pause_s: float = 1.0
    runner: str = "python"
    program: str | None = None


@dataclass(frozen=True)
class Emulation:
    """A 64-bit Arm Linux under QEMU's user mode, for function only.

    Args:
        root: folder that holds the Arm file system, as ``scripts/arm64_root.sh`` makes it; ``nasq-run`` needs none.
        cpu: model that QEMU pretends to be, the one that the root's ``proc/cpuinfo`` describes.
        emulator: command of QEMU.
        runner: ``python`` in that file system, or ``nasq-run`` alone.
        program: as in ``SshLink``.
    """

    root: str
    cpu: str = "neoverse-n1"
    emulator: str = "qemu-aarch64"
    runner: str = "python"
    program: str | None = None


@dataclass(frozen=True)
class Recording:
    """Measurements taken earlier, played back.

    Args:
        file: JSON that ``nas.measure.replay`` wrote.
    """

    file: str


@dataclass(frozen=True)
class EnergyOptions:
    """What an energy source needs to know besides its name.

    Args:
        rails: labels of the hwmon channels to add up; empty takes the one that feeds the whole board.
        command: program and arguments that print the joules counted so far.
        interval_s: between two readings of a power sensor.
        window_s: length of a window of back-to-back runs, and half a second unless the counter is coarse.
    """

    rails: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    interval_s: float = 0.005
    window_s: float = 0.5


@dataclass(frozen=True)
class Device:
    """A target on which candidates are costed.

    Args:
        name: as in ``conf/device``.
        isa: machine, such as ``x86_64`` or ``aarch64``.
        cores: processors that the device has.
        affinity: processors that timing is pinned to; empty leaves it to the timer.
        threads: intra-op threads of the runtime.
        transport: ``local``; ``ssh``; ``emulated``, which has no latency; ``replay``; or ``none`` where the device
            cannot be reached and costs are estimates.
        energy_source: ``zeus``, ``zeus_gpu``, ``hwmon``, ``command`` or None; None means that energy is absent, not 0.
        peaks: roofline constants, or None where they were neither measured nor configured.
        fingerprint: of the machine, or None for one that cannot be reached.
        reach: what the transport needs to get there, or None where it needs nothing.
        energy_options: of the energy source.
        record: file that notes all measurements for a later replay, or None.
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
    reach: SshLink | Emulation | Recording | None = None
    energy_options: EnergyOptions = EnergyOptions()
    record: str | None = None

    @property
    def key(self) -> str:
        """Fingerprint and thread count, or the name for a device out of reach: what a stored cost is bound to.

        A recording has a key of its own: what is played back is not mixed with what the device says now.
        """
        known = self.fingerprint.id if self.fingerprint else f"name:{self.name}"
        played = "replay:" if self.transport == "replay" else ""
        return f"{played}{known}/t{self.threads}"


def fingerprint_from_dict(data: Mapping[str, Any]) -> Fingerprint:
    """Rebuild what ``Fingerprint.to_dict`` returned.

    Raises:
        ValueError: a field is missing, unknown or of another type, or the id is not that of the fields.
    """
    fields = {key: value for key, value in data.items() if key != "id"}
    texts = {"cpu", "isa", "governor", "kernel"}
    right = (
        set(fields) == {*texts, "features", "cores"}
        and all(isinstance(fields[name], str) for name in texts)
        and isinstance(fields["features"], list)
        and all(isinstance(name, str) for name in fields["features"])
        and isinstance(fields["cores"], int)
    )
    if not right:
        raise ValueError(f"{str(dict(data))[:200]} is no fingerprint")
    made = Fingerprint(**{**fields, "features": tuple(fields["features"])})
    if data.get("id") != made.id:
        raise ValueError(f"fingerprint {made.id} claims to be {data.get('id')}")
    return made


def local_fingerprint(cpuinfo: Path = Path("/proc/cpuinfo"), sysfs: Path = Path("/sys")) -> Fingerprint:
    """Read the fingerprint of this machine.

    Args:
        cpuinfo: file in the format of ``/proc/cpuinfo``.
        sysfs: root of the sys file system.
    """
    governor = sysfs / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return read_fingerprint(
        cpuinfo.read_text() if cpuinfo.is_file() else "",
        isa=platform.machine(),
        processor=platform.processor,  # starts a program where nothing else names the processor
        cores=os.cpu_count() or 1,
        governor=governor.read_text().strip() if governor.is_file() else "",
        kernel=platform.release(),
    )


def read_fingerprint(
    cpuinfo: str, isa: str, processor: Callable[[], str], cores: int, governor: str, kernel: str
) -> Fingerprint:
    """Return the fingerprint of the machine that said all this.

    Args:
        cpuinfo: content of its ``/proc/cpuinfo``.
        isa: machine, as ``uname -m`` says.
        processor: returns what ``uname -p`` says; empty where it says nothing.
        cores: logical processors.
        governor: frequency governor; empty where there is none.
        kernel: as ``uname -r`` says.
    """
    fields = _cpuinfo_fields(cpuinfo)
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    return Fingerprint(
        cpu=fields.get("model name") or fields.get("Hardware") or processor() or "unknown",
        isa=isa,
        features=tuple(flag for flag in _ISA_FLAGS if flag in flags),
        cores=cores,
        governor=governor or "none",
        kernel=kernel,
    )


def _cpuinfo_fields(text: str) -> Mapping[str, str]:
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields: dict[str, str] = {}
    for key, value in pairs:
        fields.setdefault(key.strip(), value.strip())
    return fields
