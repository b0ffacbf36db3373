"""How long and how carefully a model is timed."""

from __future__ import annotations

from dataclasses import dataclass

from nas.errors import ConfigError


@dataclass(frozen=True)
class TimingSettings:
    """Settings of the timing protocol, see ``nas.measure.harness``.

    Args:
        block_runs: runs in a block; fewer where a block would take longer than ``burst_s``, never below 1.
        min_blocks: blocks of each model at least.
        max_blocks: blocks of each model at most.
        max_seconds: one try ends here, once ``min_blocks`` blocks are there; a model so slow that single runs
            do not fit ends at 5 blocks.
        max_spread: a try ends when half the quartile distance of the block medians falls to this share of the median.
        warmup_runs: runs of each model before anything is timed.
        warmup_s: goes on warming up at least this long, so that the processor's clock has settled.
        tries: how often a disturbed try is redone before the sample is marked disturbed.
        pause_s: waited before a try is redone.
        max_anchor_spread: the anchor's blocks may spread by this share of their median on a calm machine.
        max_anchor_level: the anchor's median may exceed the best it ever reached by this share.
        max_stolen: share of the time that the hypervisor may take away.
        burst_s: longest stretch under real-time priority.
        realtime: use real-time priority where the machine permits it (root) and one thread is timed.
        memory_loads: how often the model is loaded to read its peak memory.
        timeout_s: a model that has not been loaded, or not been timed, after this long has hung.
        memory_limit_mib: address space that loading and running the model may add.
    """

    block_runs: int = 10
    min_blocks: int = 20
    max_blocks: int = 200
    max_seconds: float = 2.0
    max_spread: float = 0.02
    warmup_runs: int = 5
    warmup_s: float = 0.05
    tries: int = 3
    pause_s: float = 0.25
    max_anchor_spread: float = 0.03
    max_anchor_level: float = 0.15
    max_stolen: float = 0.02
    burst_s: float = 0.4
    realtime: bool = True
    memory_loads: int = 3
    timeout_s: float = 60.0
    memory_limit_mib: int = 4096

    def __post_init__(self) -> None:
        counts = ("block_runs", "min_blocks", "max_blocks", "warmup_runs", "tries", "memory_loads", "memory_limit_mib")
        spans = ("max_seconds", "max_spread", "max_anchor_spread", "max_anchor_level", "max_stolen", "timeout_s")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"timing.{name} is {getattr(self, name)}; expected 1 or more")
        for name in spans:
            if not getattr(self, name) > 0:
                raise ConfigError(f"timing.{name} is {getattr(self, name)}; expected more than 0")
        if self.max_blocks < self.min_blocks:
            raise ConfigError(
                f"timing.max_blocks is {self.max_blocks}; expected min_blocks ({self.min_blocks}) or more"
            )
        if not 0 < self.burst_s <= 0.4:
            raise ConfigError(
                f"timing.burst_s is {self.burst_s}; expected 0 to 0.4: longer real-time bursts can stall a machine"
            )
