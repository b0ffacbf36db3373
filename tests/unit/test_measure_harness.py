"""The timing protocol on a clock that only the test moves."""

import contextlib
from dataclasses import dataclass, field

import numpy as np
import pytest

from nas.errors import ConfigError
from nas.measure.harness import FEWEST_BLOCKS, Harness, Host, Level, reading
from nas.measure.settings import TimingSettings

SETTINGS = TimingSettings(warmup_s=0.0)


@dataclass
class World:
    """Time passes only when a model runs or the protocol pauses."""

    now: float = 1000.0
    stolen: float | None = None
    pauses: list = field(default_factory=list)
    bursts: list = field(default_factory=list)
    order: list = field(default_factory=list)

    def model(self, name, duration_ms):
        """``duration_ms``: a number, or a function of (call number, time)."""
        calls = iter(range(10**9))

        def run():
            self.order.append(name)
            taken = duration_ms(next(calls), self.now) if callable(duration_ms) else duration_ms
            self.now += taken / 1000

        return run

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    @contextlib.contextmanager
    def burst(self):
        start = self.now
        yield
        self.bursts.append(self.now - start)

    @property
    def host(self):
        return Host(clock=lambda: self.now, pause=self.pause, stolen_s=lambda: self.stolen, burst=self.burst)


def block_of(call):
    """Number of the block to which a call belongs; one call of each block is not timed."""
    return (call - SETTINGS.warmup_runs) // (SETTINGS.block_runs + 1)


def noisy(median_ms, share, seed=0):
    rng = np.random.default_rng(seed)
    return lambda call, now: median_ms * (1 + share * rng.standard_normal())


def test_steady_models_end_at_the_fewest_blocks():
    world = World()
    sample = Harness(SETTINGS, world.host).measure([world.model("m", 2.0)], world.model("a", 0.5))
    result = reading(sample, 0)
    assert sample.disturbance == ""
    assert result.count == SETTINGS.min_blocks * SETTINGS.block_runs
    assert result.warmup == SETTINGS.warmup_runs
    assert result.median == pytest.approx(2.0)
    assert result.p10 == pytest.approx(2.0)
    assert result.spread == pytest.approx(0, abs=1e-6)
    assert result.anchor_ratio == pytest.approx(4.0)
    assert world.pauses == []


def test_blocks_are_interleaved_and_nobody_keeps_a_neighbour():
    world = World()
    Harness(SETTINGS, world.host).measure([world.model("x", 1.0), world.model("y", 1.0)], world.model("a", 1.0))
    timed = world.order[3 * SETTINGS.warmup_runs :]
    blocks = timed[:: SETTINGS.block_runs + 1]
    assert [blocks[i : i + 3] for i in (0, 3, 6)] == [["x", "y", "a"], ["y", "a", "x"], ["a", "x", "y"]]
    assert {blocks.count(name) for name in "xya"} == {SETTINGS.min_blocks}


def test_outliers_move_a_mean_but_not_the_median():
    world = World()
    model = world.model("m", lambda call, now: 50.0 if call % 7 == 0 else 1.0)
    result = reading(Harness(SETTINGS, world.host).measure([model], world.model("a", 1.0)), 0)
    assert result.median == pytest.approx(1.0)
    assert result.anchor_ratio == pytest.approx(1.0)


def test_a_noisy_model_gets_more_blocks_but_is_not_the_machines_fault():
    settings = TimingSettings(warmup_s=0.0, max_spread=0.004, max_seconds=60.0)
    world = World()
    sample = Harness(settings, world.host).measure([world.model("m", noisy(1.0, 0.1))], world.model("a", 0.3))
    result = reading(sample, 0)
    assert sample.disturbance == ""
    assert result.count == settings.max_blocks * settings.block_runs
    assert result.median == pytest.approx(1.0, rel=0.02)
    assert result.spread == pytest.approx(0.0674, rel=0.15)  # quartiles of a normal lie at 0.674 deviations
    assert result.p10 == pytest.approx(1 - 0.128, rel=0.03)


def test_drift_that_both_share_leaves_the_ratio_alone():
    world = World()
    start = world.now
    slower = 0.03  # the clock of the processor falls by 3 % a second

    def drifting(base):
        return lambda call, now: base * (1 + slower * (now - start))

    settings = TimingSettings(warmup_s=0.0, min_blocks=100)
    sample = Harness(settings, world.host).measure([world.model("m", drifting(1.0))], world.model("a", drifting(0.25)))
    result = reading(sample, 0)
    assert result.median > 1.005
    assert result.anchor_ratio == pytest.approx(4.0, rel=0.005)
    assert sample.disturbance == ""


def test_a_machine_that_calms_down_is_timed_again():
    world = World()
    busy_until = world.now + 1.6

    def shaken(base):
        # Whole blocks are slow: the median of a block hides single slow runs.
        return lambda call, now: base * (1.2 + 0.8 * (block_of(call) % 2) if now < busy_until else 1.0)

    sample = Harness(SETTINGS, world.host).measure([world.model("m", shaken(1.0))], world.model("a", shaken(0.5)))
    assert world.pauses == [SETTINGS.pause_s]
    assert sample.disturbance == ""
    assert reading(sample, 0).median == pytest.approx(1.0)


def test_a_machine_that_stays_busy_is_marked_and_the_calmest_try_kept():
    world = World()

    def anchor(call, now):
        # Odd blocks are slower; by how much falls with every try.
        excess = (0.9, 0.6, 0.3)[min(len(world.pauses), 2)]
        return 0.5 * (1 + (block_of(call) % 2) * excess)

    sample = Harness(SETTINGS, world.host).measure([world.model("m", 1.0)], world.model("a", anchor))
    assert world.pauses == [SETTINGS.pause_s] * (SETTINGS.tries - 1)
    assert "anchor's blocks spread" in sample.disturbance
    assert sample.block_medians(-1).max() == pytest.approx(0.5 * 1.3)


def test_a_slow_but_even_machine_is_known_by_the_anchors_best():
    world, level = World(), Level(best_ms=0.5)
    sample = Harness(SETTINGS, world.host, level).measure([world.model("m", 1.5)], world.model("a", 0.75))
    assert "50% longer than its best" in sample.disturbance
    assert level.best_ms == 0.5
    assert reading(sample, 0).anchor_ratio == pytest.approx(2.0)


def test_the_best_anchor_is_remembered():
    world, level = World(), Level()
    Harness(SETTINGS, world.host, level).measure([world.model("m", 1.0)], world.model("a", 0.5))
    assert level.best_ms == pytest.approx(0.5)


def test_stolen_time_disturbs():
    world = World(stolen=0.0)

    def run(base):
        def duration(call, now):
            world.stolen += 0.1 * base / 1000
            return base

        return duration

    sample = Harness(SETTINGS, world.host).measure([world.model("m", run(2.0))], world.model("a", run(0.5)))
    assert "hypervisor took" in sample.disturbance


def test_one_tick_of_stolen_time_is_within_the_counters_grain():
    world = World(stolen=0.0)

    def run(call, now):
        world.stolen = 0.01 if call > 40 else 0.0
        return 0.3

    sample = Harness(SETTINGS, world.host).measure([world.model("m", run)], world.model("a", 0.3))
    assert sample.disturbance == ""


def test_slow_models_get_shorter_blocks_and_short_bursts():
    world = World()
    sample = Harness(SETTINGS, world.host).measure([world.model("m", 40.0)], world.model("a", 0.3))
    assert reading(sample, 0).count == SETTINGS.min_blocks  # single runs
    assert len(sample.blocks_ms[1][0]) == SETTINGS.block_runs
    assert max(world.bursts) <= SETTINGS.burst_s


def test_a_run_longer_than_a_burst_keeps_normal_priority_and_ends_early():
    world = World()
    sample = Harness(SETTINGS, world.host).measure([world.model("m", 900.0)], world.model("a", 0.3))
    assert len(sample.blocks_ms[0]) == FEWEST_BLOCKS
    assert len(world.bursts) == FEWEST_BLOCKS  # the anchor's


def test_rounds_are_kept_exactly():
    world = World()
    models = [world.model(str(index), noisy(1.0, 0.5, index)) for index in range(4)]
    sample = Harness(SETTINGS, world.host).measure(models, world.model("a", 0.3), rounds=7)
    assert {len(blocks) for blocks in sample.blocks_ms} == {7}


def test_warm_up_lasts_until_the_clock_has_settled():
    world = World()
    settings = TimingSettings(warmup_s=0.5)
    model = world.model("m", lambda call, now: 3.0 if now < 1000.4 else 1.0)
    result = reading(Harness(settings, world.host).measure([model], world.model("a", 0.3)), 0)
    assert result.warmup > 200
    assert result.median == pytest.approx(1.0)


def test_rests_before_blocks_take_no_time_from_them():
    world, rested = World(), World()
    settings = TimingSettings(warmup_s=0.0, max_seconds=0.5, max_spread=1e-9)
    for each, rest_s in ((world, 0.0), (rested, 0.06)):
        harness = Harness(settings, each.host, rest_s=rest_s)
        sample = harness.measure([each.model("m", noisy(1.0, 0.1))], each.model("a", 0.3))
        each.pauses.append(len(sample.blocks_ms[0]))
    blocks = world.pauses[-1]
    assert rested.pauses == [0.06] * (2 * blocks) + [blocks]


def test_seconds_end_a_try():
    world = World()
    settings = TimingSettings(warmup_s=0.0, max_seconds=0.5, max_spread=1e-9)
    start = world.now
    Harness(settings, world.host).measure([world.model("m", noisy(1.0, 0.1))], world.model("a", 0.3))
    assert 0.5 <= world.now - start < 0.6


@pytest.mark.parametrize(
    "wrong",
    [{"block_runs": 0}, {"max_blocks": 5}, {"max_seconds": 0.0}, {"burst_s": 1.0}, {"timeout_s": -1.0}, {"tries": 0}],
)
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"timing.{next(iter(wrong))}"):
        TimingSettings(**wrong)
