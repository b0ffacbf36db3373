"""The timing protocol: blocks of runs, interleaved with an anchor model that tells a slow model from a busy machine.

Nothing here knows of runtimes or processes; clock, pause and priorities come from outside, so that the protocol is
tested on a clock that only tests move. No mean is ever taken: one interrupted run would move it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nas.measure.settings import TimingSettings

FEWEST_BLOCKS = 5
# The kernel counts stolen time in ticks; one of them may have been almost over when the sample began.
STOLEN_TICK_S = 0.01

Run = Callable[[], object]


@dataclass(frozen=True)
class Host:
    """What the protocol needs of the machine.

    Args:
        clock: monotonic seconds.
        pause: sleeps for so many seconds.
        stolen_s: seconds that the hypervisor has taken from the pinned processors since boot, or None if unknown.
        burst: context of one block; raises the priority where that is permitted.
    """

    clock: Callable[[], float]
    pause: Callable[[float], None]
    stolen_s: Callable[[], float | None] = lambda: None
    burst: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Sample:
    """One try: the runs of every model in milliseconds, block by block; the anchor is the last model.

    Args:
        blocks_ms: per model, per block, the runs.
        started_s: clock at the first block.
        elapsed_s: until the end of the last one.
        stolen_s: taken by the hypervisor meanwhile, or None if unknown.
        warmup: runs before the first block, per model.
        disturbance: why the sample is not to be trusted, or nothing.
    """

    blocks_ms: list[list[list[float]]]
    started_s: float
    elapsed_s: float
    stolen_s: float | None
    warmup: list[int]
    disturbance: str = ""

    def block_medians(self, model: int) -> NDArray[np.float64]:
        """Return the median of each block, shape (blocks,)."""
        return np.array([np.median(block) for block in self.blocks_ms[model]])


@dataclass(frozen=True)
class Reading:
    """What a sample says of one model.

    Args:
        median: over all runs, milliseconds, as are ``p10`` and ``spread``.
        p10: tenth percentile of the runs.
        spread: half the distance between the quartiles of the runs.
        count: runs.
        warmup: runs discarded before them.
        anchor_ratio: median over the blocks of (median of the model's block / median of the anchor's block).
        anchor_spread: half the distance between the quartiles of those ratios.
    """

    median: float
    p10: float
    spread: float
    count: int
    warmup: int
    anchor_ratio: float
    anchor_spread: float


@dataclass
class Level:
    """The best anchor median so far, in milliseconds: what the machine can do when it is calm."""

    best_ms: float | None = None

    def note(self, median_ms: float) -> None:
        """Keep the smaller one."""
        self.best_ms = median_ms if self.best_ms is None else min(self.best_ms, median_ms)


@dataclass(frozen=True)
class Harness:
    """Times models against an anchor.

    Args:
        settings: how long and how carefully.
        host: clock, pause, stolen time, priorities.
        level: remembers the anchor's best between samples.
        rest_s: slept before each block. Threads of ONNX Runtime that spin keep a processor busy for up to 35 ms after a
            run (measured), on which another runtime's threads would be timed.
    """

    settings: TimingSettings
    host: Host
    level: Level = field(default_factory=Level)
    rest_s: float = 0.0

    def measure(self, models: Sequence[Run], anchor: Run, rounds: int | None = None) -> Sample:
        """Time all models, interleaved, and redo the sample while the machine is busy.

        Args:
            models: each call is one inference.
            anchor: likewise.
            rounds: exactly so many blocks of each, whatever the spread; None lets the settings decide.

        Returns:
            The first calm sample, or of the disturbed ones that whose anchor spread least, with the reason in
            ``disturbance``.
        """
        runs = [*models, anchor]
        warmed = [self._warm_up(run) for run in runs]
        samples: list[Sample] = []
        for attempt in range(self.settings.tries):
            if attempt > 0:
                self.host.pause(self.settings.pause_s)
            sample = self._take(runs, warmed, rounds)
            self.level.note(float(np.median(sample.block_medians(-1))))
            reason = self.disturbance(sample)
            if not reason:
                return sample
            samples.append(replace(sample, disturbance=reason))
        return min(samples, key=lambda sample: relative_spread(sample.block_medians(-1)))

    def disturbance(self, sample: Sample) -> str:
        """Return what shows that the machine was busy, judged from the anchor and from stolen time; else nothing."""
        settings = self.settings
        anchor = sample.block_medians(-1)
        spread = relative_spread(anchor)
        if spread > settings.max_anchor_spread:
            return (
                f"the anchor's blocks spread by {spread:.1%} of their median (allowed {settings.max_anchor_spread:.1%})"
            )
        best = min(self.level.best_ms or np.inf, float(np.percentile(anchor, 10)))
        excess = float(np.median(anchor)) / best - 1
        if excess > settings.max_anchor_level:
            return f"the anchor took {excess:.0%} longer than its best (allowed {settings.max_anchor_level:.0%})"
        stolen_s = sample.stolen_s or 0.0
        if stolen_s > settings.max_stolen * sample.elapsed_s + STOLEN_TICK_S:
            return f"the hypervisor took {stolen_s / sample.elapsed_s:.1%} of the time"
        return ""

    def _warm_up(self, run: Run) -> tuple[int, float]:
        """Return how many runs warmed up and the shortest of the last ones, in seconds."""
        times: list[float] = []
        begin = self.host.clock()
        while len(times) < self.settings.warmup_runs or self.host.clock() - begin < self.settings.warmup_s:
            start = self.host.clock()
            run()
            times.append(self.host.clock() - start)
        return len(times), min(times[-self.settings.warmup_runs :])

    def _take(self, runs: Sequence[Run], warmed: Sequence[tuple[int, float]], rounds: int | None) -> Sample:
        settings, clock = self.settings, self.host.clock
        sizes = [self._block_runs(seconds) for _, seconds in warmed]
        blocks: list[list[list[float]]] = [[] for _ in runs]
        stolen_before, started = self.host.stolen_s(), clock()
        rested = 0.0
        while not self._enough(blocks, sizes, clock() - started - rested, rounds):
            turn = len(blocks[0])
            # The order turns by one from round to round, so that no model always follows the same neighbour.
            for position in range(len(runs)):
                index = (position + turn) % len(runs)
                if self.rest_s > 0:
                    self.host.pause(self.rest_s)
                    rested += self.rest_s
                burst = self.host.burst if sizes[index] * warmed[index][1] <= settings.burst_s else nullcontext
                with burst():
                    blocks[index].append(self._block(runs[index], sizes[index]))
        elapsed, stolen_after = clock() - started, self.host.stolen_s()
        stolen = None if stolen_before is None or stolen_after is None else stolen_after - stolen_before
        return Sample(blocks, started, elapsed, stolen, [count for count, _ in warmed])

    def _block(self, run: Run, size: int) -> list[float]:
        clock = self.host.clock
        run()  # finds its way back into the caches after the neighbour's block
        times = []
        for _ in range(size):
            start = clock()
            run()
            times.append((clock() - start) * 1000)
        return times

    def _block_runs(self, seconds: float) -> int:
        settings = self.settings
        if seconds <= 0:
            return settings.block_runs
        longest = min(settings.burst_s, settings.max_seconds / settings.min_blocks)
        return max(1, min(settings.block_runs, int(longest / seconds) - 1))

    def _enough(
        self, blocks: Sequence[Sequence[Sequence[float]]], sizes: Sequence[int], elapsed: float, rounds: int | None
    ) -> bool:
        settings = self.settings
        done = len(blocks[0])
        if rounds is not None:
            return done >= rounds
        late = elapsed >= settings.max_seconds
        if done < settings.min_blocks:
            return late and min(sizes) == 1 and done >= FEWEST_BLOCKS
        if late or done >= settings.max_blocks:
            return True
        spreads = [relative_spread(np.array([np.median(block) for block in model])) for model in blocks]
        return max(spreads) <= settings.max_spread


def relative_spread(values: NDArray[np.float64]) -> float:
    """Return half the distance between the quartiles as a share of the median."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float((high - low) / 2 / middle) if middle > 0 else 0.0


def reading(sample: Sample, model: int) -> Reading:
    """Summarise the runs of one model of a sample."""
    runs = np.concatenate([np.asarray(block) for block in sample.blocks_ms[model]])
    p10, low, middle, high = np.percentile(runs, [10, 25, 50, 75])
    ratios = sample.block_medians(model) / sample.block_medians(-1)
    ratio_low, ratio, ratio_high = np.percentile(ratios, [25, 50, 75])
    return Reading(
        median=float(middle),
        p10=float(p10),
        spread=float((high - low) / 2),
        count=len(runs),
        warmup=sample.warmup[model],
        anchor_ratio=float(ratio),
        anchor_spread=float((ratio_high - ratio_low) / 2),
    )
