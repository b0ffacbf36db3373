"""Two or more runtimes on one model: times taken in turns, and the bytes in which outputs differ.

A ratio is the median over the blocks of (the other's block median / ours), with its quartiles: above 1, ours is faster.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import MeasurementError
from nas.measure import host as machine
from nas.measure.harness import Harness, Host, Run, Sample, reading
from nas.protocols import Session


@dataclass(frozen=True)
class Ratio:
    """How often one run fits into the other, over the blocks: median and quartiles."""

    median: float
    q25: float
    q75: float


@dataclass(frozen=True)
class Turns:
    """Runs that were timed in turns in one process.

    Args:
        names: of the runs in the order of the sample.
        sample: blocks of each.
    """

    names: tuple[str, ...]
    sample: Sample

    @property
    def disturbance(self) -> str:
        """Why the times are not to be trusted, or nothing."""
        return self.sample.disturbance

    def times_ms(self) -> dict[str, dict[str, float]]:
        """Return per run ``p10`` and ``median`` in milliseconds and the number of ``blocks``."""
        found = {}
        for index, name in enumerate(self.names):
            seen = reading(self.sample, index)
            found[name] = {"p10": seen.p10, "median": seen.median, "blocks": len(self.sample.blocks_ms[index])}
        return found

    def ratio(self, other: str, ours: str) -> Ratio:
        """Return how many of ``ours`` fit into ``other``."""
        blocks = {name: self.sample.block_medians(index) for index, name in enumerate(self.names)}
        q25, median, q75 = np.percentile(blocks[other] / blocks[ours], [25, 50, 75])
        return Ratio(float(median), float(q25), float(q75))


@dataclass
class Difference:
    """In what the outputs of two sessions differ.

    Args:
        differing_bytes: bytes of all outputs that are not equal.
        compared_bytes: bytes of all outputs.
        largest: largest difference of two numbers, as a share of the largest number of that output.
    """

    differing_bytes: int = 0
    compared_bytes: int = 0
    largest: float = 0.0

    def add(self, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
        """Count one output of one run.

        Raises:
            MeasurementError: they differ in shape or type.
        """
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise MeasurementError(
                f"outputs are {ours.dtype} of shape {ours.shape} and {theirs.dtype} of shape {theirs.shape}; expected "
                "the same of both runtimes"
            )
        differ = np.frombuffer(ours.tobytes(), np.uint8) != np.frombuffer(theirs.tobytes(), np.uint8)
        self.differing_bytes += int(differ.sum())
        self.compared_bytes += differ.size
        gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(initial=0.0)
        if gap > 0:
            largest = max(1e-9, float(np.abs(theirs.astype(np.float64)).max(initial=0.0)))
            self.largest = max(self.largest, float(gap) / largest)


def make_host(cores: tuple[int, ...], realtime: bool, threads: int = 1) -> tuple[Host, bool]:
    """Return what the timing protocol needs of this machine, and whether real-time bursts are permitted.

    Args:
        cores: that this process is pinned to.
        realtime: whether bursts are wanted.
        threads: that are timed.
    """
    bursts = machine.RealtimeBursts(realtime, threads)
    return Host(time.perf_counter, time.sleep, lambda: machine.stolen_s(cores), bursts.burst), bursts.permitted


def take_turns(runs: Mapping[str, Run], anchor: str, harness: Harness, rounds: int | None = None) -> Turns:
    """Time all runs in turns.

    Args:
        runs: by name; each call is one inference.
        anchor: the one of them that tells a busy machine from a slow model.
        harness: with a level of its own per model, since here a run of the model itself is the anchor.
        rounds: as ``Harness.measure``.
    """
    names = (*(name for name in runs if name != anchor), anchor)
    return Turns(names, harness.measure([runs[name] for name in names[:-1]], runs[anchor], rounds))


def differences(ours: Session, theirs: Session, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> Difference:
    """Return in what outputs differ over all inputs.

    Raises:
        MeasurementError: the sessions have different outputs.
    """
    found = Difference()
    for given in inputs:
        ran, expected = ours.run(given), theirs.run(given)
        if len(ran) != len(expected):
            raise MeasurementError(f"{len(ran)} and {len(expected)} outputs; expected the same of both runtimes")
        for mine, other in zip(ran, expected, strict=True):
            found.add(mine, other)
    return found
