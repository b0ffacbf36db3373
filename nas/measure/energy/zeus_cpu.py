"""Processor packages and their memory through zeus (RAPL on Linux)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nas.errors import MeasurementError
from nas.measure.energy.source import absent

# RAPL counts in 32 bits and wraps every few minutes to hours. zeus looks for that every 0.1 s near the counter's end;
# until it has, the sum is too small by a whole range.
_WRAP_PAUSE_S = 0.1
_WRAP_TRIES = 20


class ZeusCpu:
    """All that runs on the packages, idle power included.

    Args:
        cpus: what ``zeus.device.get_cpus`` returns.
        pause: sleeps until zeus has noticed that a counter wrapped.
    """

    name = "zeus"

    def __init__(self, cpus: Any, pause: Callable[[float], None] = time.sleep) -> None:
        self._cpus = cpus
        self._pause = pause
        self._highest = float("-inf")

    def read_mj(self) -> float:
        """Return the sum over packages.

        Raises:
            MeasurementError: it stays below what was read before.
        """
        for _ in range(_WRAP_TRIES):
            total = self._sum()
            if total >= self._highest:
                self._highest = total
                return total
            self._pause(_WRAP_PAUSE_S)
        raise MeasurementError(
            f"energy source 'zeus' fell from {self._highest:.0f} to {total:.0f} mJ and stayed there; expected a rising "
            "counter. It was reset, or wrapped unseen: measure again."
        )

    def _sum(self) -> float:
        total = 0.0
        for index in range(len(self._cpus.cpus)):
            reading = self._cpus.get_total_energy_consumption(index)
            total += float(reading.cpu_mj) + float(reading.dram_mj or 0.0)
        return total


def open_zeus_cpu() -> ZeusCpu:
    """Return the source.

    Raises:
        MeasurementError: zeus is not installed or finds no counter.
    """
    try:
        from zeus.device import get_cpus
    except ImportError as error:
        raise absent("zeus", "the package is not installed (pip install 'hwnas[energy]')") from error
    try:
        cpus = get_cpus()
    # zeus raises its own classes, OSError and more, depending on what is missing.
    except Exception as error:
        raise absent("zeus", f"this machine offers no counter ({type(error).__name__}: {error})") from error
    # zeus may hand over an object that holds no processor at all; its sum would be a constant 0.
    if not getattr(cpus, "cpus", None):
        raise absent("zeus", "it found no processor with a counter")
    return ZeusCpu(cpus)
