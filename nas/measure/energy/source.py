"""What an energy source is, and the error of one that is not there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

from nas.errors import MeasurementError


class EnergySource(Protocol):
    """Counts energy from some start on."""

    @property
    def name(self) -> str:
        """As in ``device.energy_source``."""
        ...

    def read_mj(self) -> float:
        """Return millijoules since the source was made; rises for ever.

        Raises:
            MeasurementError: the counter cannot be read or cannot be believed.
        """
        ...


@runtime_checkable
class PowerSensor(Protocol):
    """A source that has to be watched, because the device tells power and not energy."""

    def watching(self) -> AbstractContextManager[None]:
        """Integrate for the length of the context; ``read_mj`` makes sense inside only."""
        ...


def sampling(source: EnergySource) -> AbstractContextManager[None]:
    """Return the context in which a source may be read."""
    return source.watching() if isinstance(source, PowerSensor) else nullcontext()


def absent(name: str, reason: str) -> MeasurementError:
    """Return the error for a source that this machine does not offer."""
    return MeasurementError(
        f"energy source '{name}' is not there: {reason}; expected a counter that can be read and rises. "
        "Leave the energy objective out, take the labelled estimate with energy=modelled, or use a machine with a "
        "counter that this user may read (RAPL, a GPU, an INA sensor, or a command of your own)."
    )
