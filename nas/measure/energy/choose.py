"""From the name of a source to one that was seen to count."""

from __future__ import annotations

import time
from collections.abc import Callable

from nas.device import EnergyOptions
from nas.errors import MeasurementError, unknown_name
from nas.measure.energy.command import open_command
from nas.measure.energy.hwmon import FROZEN_S, Hwmon, open_hwmon
from nas.measure.energy.source import EnergySource, absent, sampling
from nas.measure.energy.zeus_cpu import open_zeus_cpu
from nas.measure.energy.zeus_gpu import open_zeus_gpu

SOURCES = ("zeus", "hwmon", "zeus_gpu", "command")
# Those that are read on the machine that computes; a command belongs to whoever typed it.
ON_BOARD = ("zeus", "hwmon", "zeus_gpu")
ANY = "measured"
# A GPU counts only what runs on it, and a command has to be named: neither is taken unasked.
_UNASKED = ("zeus", "hwmon")
# Long enough for a counter that is updated every millisecond (RAPL) on an idle processor.
_PROBE_S = 0.05
_PLAIN = EnergyOptions()
# A power sensor converts more rarely, and a command may print whole joules.
_PROBES = {"hwmon": int(FROZEN_S / _PROBE_S), "command": 100}


def energy_source(
    name: str, pause: Callable[[float], None] = time.sleep, options: EnergyOptions = _PLAIN
) -> EnergySource:
    """Return a source that was seen to count.

    Args:
        name: one of ``SOURCES``, or ``measured`` for whichever of RAPL and hwmon this machine has.
        pause: sleeps between two readings of the counter.
        options: rails, command, interval.

    Raises:
        ConfigError: no such source.
        MeasurementError: the machine offers no such counter, it may not be read, or it stands still.
    """
    if name == ANY:
        return _first(pause, options)
    if name not in SOURCES:
        raise unknown_name("energy source", name, SOURCES)
    source = _open(name, options)
    try:
        _watch_it_move(source, pause)
    except MeasurementError:
        raise
    # zeus raises its own classes, OSError and more, depending on what is missing.
    except Exception as error:
        raise absent(name, f"its counter cannot be read ({type(error).__name__}: {error})") from error
    return source


def available_source(name: str, options: EnergyOptions = _PLAIN) -> EnergySource | None:
    """Return the source, or None where this machine does not offer it."""
    try:
        return energy_source(name, options=options)
    except MeasurementError:
        return None


def _first(pause: Callable[[float], None], options: EnergyOptions) -> EnergySource:
    reasons = []
    for name in _UNASKED:
        try:
            return energy_source(name, pause, options)
        except MeasurementError as error:
            reasons.append(error)
    raise reasons[0]


def _open(name: str, options: EnergyOptions) -> EnergySource:
    if name == "hwmon":
        return open_hwmon(options.rails, options.interval_s)
    if name == "command":
        return open_command(options.command)
    return open_zeus_gpu() if name == "zeus_gpu" else open_zeus_cpu()


def _watch_it_move(source: EnergySource, pause: Callable[[float], None]) -> None:
    """Read until it moved; the integral of a power sensor always grows, so there the sensor itself has to move."""
    with sampling(source):
        before = source.read_mj()
        for _ in range(_PROBES.get(source.name, 1)):
            pause(_PROBE_S)
            moved = source.read_mj() - before
            if moved > 0 and (not isinstance(source, Hwmon) or source.changes):
                return
    raise absent(source.name, "its counter stands still" if moved >= 0 else "its counter falls")
