"""Energy sources, one file per kind; a machine without one has no energy reading, never 0.

A source counts millijoules from some start on. It is one only if it was seen to count: a counter that stands still,
that reads 0 or that may not be read is refused with the reason.
"""

from nas.measure.energy.choose import ANY, ON_BOARD, SOURCES, available_source, energy_source
from nas.measure.energy.source import EnergySource, absent, sampling
from nas.measure.energy.windows import ENERGY_WINDOWS, energy_per_run
from nas.measure.energy.zeus_cpu import ZeusCpu
from nas.measure.energy.zeus_gpu import ZeusGpu

__all__ = [
    "ANY",
    "ENERGY_WINDOWS",
    "ON_BOARD",
    "SOURCES",
    "EnergySource",
    "ZeusCpu",
    "ZeusGpu",
    "absent",
    "available_source",
    "energy_per_run",
    "energy_source",
    "sampling",
]
