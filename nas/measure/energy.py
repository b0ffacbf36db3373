"""Energy counters of this machine; a machine without one has no energy reading, never 0."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from nas.errors import MeasurementError, unknown_name

SOURCES = ("zeus",)
ANY = "measured"
# Long enough for a counter that is updated every millisecond (RAPL) on an idle processor.
_PROBE_S = 0.05


class EnergySource(Protocol):
    """Counts energy from some start on."""

    name: str

    def read_mj(self) -> float:
        """Return millijoules since the source was made; rises for ever."""
        ...


class ZeusCpu:
    """Processor packages and their memory through zeus (RAPL on Linux): all that runs on them, idle power included.

    Args:
        cpus: what ``zeus.device.get_cpus`` returns.
    """

    name = "zeus"

    def __init__(self, cpus: Any) -> None:
        self._cpus = cpus

    def read_mj(self) -> float:
        """Return the sum over packages."""
        total = 0.0
        for index in range(len(self._cpus.cpus)):
            reading = self._cpus.get_total_energy_consumption(index)
            total += float(reading.cpu_mj) + float(reading.dram_mj or 0.0)
        return total


def energy_source(name: str, pause: Callable[[float], None] = time.sleep) -> EnergySource:
    """Return a source that was seen to count.

    Args:
        name: ``zeus``, or ``measured`` for whichever source this machine has.
        pause: sleeps between two readings of the counter.

    Raises:
        ConfigError: no such source.
        MeasurementError: the machine offers no such counter, it may not be read, or it stands still.
    """
    if name == ANY:
        name = SOURCES[0]
    if name not in SOURCES:
        raise unknown_name("energy source", name, SOURCES)
    source = _zeus()
    try:
        before = source.read_mj()
        pause(_PROBE_S)
        moved = source.read_mj() - before
    # zeus raises its own classes, OSError and more, depending on what is missing.
    except Exception as error:
        raise _absent(name, f"its counter cannot be read ({type(error).__name__}: {error})") from error
    if not moved > 0:
        raise _absent(name, "its counter stands still")
    return source


def available_source(name: str) -> EnergySource | None:
    """Return the source, or None where this machine does not offer it."""
    try:
        return energy_source(name)
    except MeasurementError:
        return None


def _zeus() -> EnergySource:
    try:
        from zeus.device import get_cpus
    except ImportError as error:
        raise _absent("zeus", "the package is not installed (pip install 'hwnas[energy]')") from error
    try:
        cpus = get_cpus()
    # See above.
    except Exception as error:
        raise _absent("zeus", f"this machine offers no counter ({type(error).__name__}: {error})") from error
    # zeus may hand over an object that holds no processor at all; its sum would be a constant 0.
    if not getattr(cpus, "cpus", None):
        raise _absent("zeus", "it found no processor with a counter")
    return ZeusCpu(cpus)


def _absent(name: str, reason: str) -> MeasurementError:
    return MeasurementError(
        f"energy source '{name}' is not there: {reason}; expected a counter that can be read and rises. "
        "Leave the energy objective out, take the labelled estimate with energy=modelled, or use a machine with RAPL "
        "that this user may read."
    )
