"""INA power sensors in Linux's hwmon: INA219 and its kin on shields, INA3221 on Jetson; power integrated over time.

They tell power (or volts and amperes) and not energy, so a thread reads them every few milliseconds while a model runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nas.errors import MeasurementError
from nas.measure.energy.source import absent

CHIPS = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina3221")
# Labels of the channel that feeds the whole board (Jetson's boards).
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VDD_5V_IN", "SYS5V")
# The slowest setting of these chips converts every 0.14 s, and the last digit of a living sensor flickers.
FROZEN_S = 2.0
_ROOT = Path("/sys/class/hwmon")


@dataclass(frozen=True)
class Rail:
    """One channel of a sensor.

    Args:
        label: as the kernel names it, or ``CHIP:CHANNEL``.
        files: one file of microwatts, or two whose product is: millivolts and milliamperes.
    """

    label: str
    files: tuple[Path, ...]

    def raw(self) -> tuple[int, ...]:
        """Return what the files hold.

        Raises:
            MeasurementError: one cannot be read or holds no number.
        """
        values = []
        for path in self.files:
            try:
                values.append(int(path.read_text()))
            except (OSError, ValueError) as error:
                raise absent("hwmon", f"{path} cannot be read ({type(error).__name__}: {error})") from error
        return tuple(values)


def power_mw(raw: Sequence[int]) -> float:
    """Return milliwatts of a rail's raw values."""
    return raw[0] / 1000 if len(raw) == 1 else raw[0] * raw[1] / 1000


class Hwmon:
    """Integrates the power of rails by the trapezoidal rule.

    Args:
        rails: added up.
        interval_s: between two samples.
        clock: monotonic seconds.

    Attributes:
        changes: samples that differed from the one before.
    """

    name = "hwmon"

    def __init__(
        self, rails: Sequence[Rail], interval_s: float = 0.005, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rails = list(rails)
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._energy_mj = 0.0
        self._last: tuple[float, float] | None = None  # seconds, milliwatts
        self._raw: list[tuple[int, ...]] = []
        self._same_s = 0.0
        self._error: MeasurementError | None = None
        self.changes = 0

    def sample(self) -> None:
        """Take one reading of all rails.

        Raises:
            MeasurementError: a sensor cannot be read, reads 0 W or less, or has not changed for ``FROZEN_S``.
        """
        with self._lock:
            raw = [rail.raw() for rail in self._rails]
            now, power = self._clock(), sum(power_mw(values) for values in raw)
            if not power > 0:
                raise absent(self.name, f"{self._labels()} read {power:g} mW, which no running machine draws")
            if self._last is not None:
                elapsed = now - self._last[0]
                # Milliwatts times seconds are millijoules.
                self._energy_mj += elapsed * (power + self._last[1]) / 2
                self._same_s = self._same_s + elapsed if raw == self._raw else 0.0
                self.changes += raw != self._raw
            if self._same_s > FROZEN_S:
                raise absent(self.name, f"{self._labels()} stand still: not one digit moved in {self._same_s:.1f} s")
            self._last, self._raw = (now, power), raw

    def read_mj(self) -> float:
        """Take a sample now and return what was integrated so far.

        Raises:
            MeasurementError: as ``sample``, now or in the thread since the last reading.
        """
        if self._error is not None:
            raise self._error
        self.sample()
        return self._energy_mj

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample in a thread for the length of the context; the time before it is not counted."""
        stop = threading.Event()
        self._last, self._error = None, None

        def watch() -> None:
            while not stop.wait(self._interval_s):
                try:
                    self.sample()
                except MeasurementError as error:
                    self._error = error
                    return

        thread = threading.Thread(target=watch, name="hwmon", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _labels(self) -> str:
        return " + ".join(rail.label for rail in self._rails)


def find_rails(root: Path = _ROOT) -> list[Rail]:
    """Return the channels of all INA sensors."""
    rails = []
    for folder in sorted(root.glob("hwmon*")):
        chip = _text(folder / "name")
        if chip not in CHIPS:
            continue
        if (folder / "power1_input").exists():
            rails.append(Rail(_text(folder / "power1_label") or f"{folder.name}:{chip}", (folder / "power1_input",)))
            continue
        for current in sorted(folder.glob("curr[0-9]*_input")):
            channel = current.name.removeprefix("curr").removesuffix("_input")
            volts = folder / f"in{channel}_input"
            # An INA3221 numbers its shunts' voltages from 4 on, and has a sum of currents without a voltage.
            if volts.exists() and (chip != "ina3221" or int(channel) <= 3):
                label = _text(folder / f"in{channel}_label") or f"{folder.name}:{chip}:{channel}"
                rails.append(Rail(label, (volts, current)))
    return rails


def open_hwmon(labels: Sequence[str] = (), interval_s: float = 0.005, root: Path = _ROOT) -> Hwmon:
    """Return the source.

    Args:
        labels: rails to add up; empty takes the one that feeds the whole board, or the only one there is.
        interval_s: between two samples.
        root: folder of hwmon.

    Raises:
        MeasurementError: there is no such sensor, or which rail to take cannot be told.
    """
    rails = find_rails(root)
    have = ", ".join(rail.label for rail in rails)
    if not rails:
        raise absent("hwmon", f"none of {', '.join(CHIPS)} under {root}")
    if labels:
        unknown = sorted(set(labels) - {rail.label for rail in rails})
        if unknown:
            raise absent("hwmon", f"no rail '{unknown[0]}'; have {have}")
        return Hwmon([rail for rail in rails if rail.label in labels], interval_s)
    whole = [rail for rail in rails if rail.label in WHOLE_BOARD] or (rails if len(rails) == 1 else [])
    if len(whole) != 1:
        raise absent("hwmon", f"several rails, some of which may feed others: {have}; name some by device.energy_rails")
    return Hwmon(whole, interval_s)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
