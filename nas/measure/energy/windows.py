"""Energy per inference: the counter read around windows of back-to-back runs."""

from __future__ import annotations

from collections.abc import Callable

from nas.errors import MeasurementError
from nas.measure.energy.source import EnergySource, sampling

ENERGY_WINDOWS = 7


def energy_per_run(
    source: EnergySource, repeat: Callable[[float], int], latency_ms: float, window_s: float
) -> list[float]:
    """Return millijoules per run, one number per window; idle power is part of them.

    Args:
        source: that was seen to count.
        repeat: runs the model back to back for so many seconds and returns how often.
        latency_ms: of one run.
        window_s: length of a window, more where it would not hold five runs.

    Raises:
        MeasurementError: the counter stood still or fell in a window.
    """
    seconds = max(window_s, 5 * latency_ms / 1000)
    samples = []
    with sampling(source):
        for _ in range(ENERGY_WINDOWS):
            before = source.read_mj()
            runs = repeat(seconds)
            samples.append((source.read_mj() - before) / runs)
    if not min(samples) > 0:
        what = "stood still" if min(samples) == 0 else "fell"
        raise MeasurementError(
            f"energy source '{source.name}' {what} while the model ran; expected a rising counter. "
            "Take the labelled estimate with energy=modelled."
        )
    return samples
