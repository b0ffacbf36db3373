"""The roofline in units, in its direction, and in its honesty."""

import math
from dataclasses import replace

import pytest

from latency_models.roofline import PICOJOULES_PER_DRAM_BYTE, Roofline
from nas.architecture import Precision
from nas.device import Device, Peaks
from nas.errors import ConfigError
from nas.graph import Graph, Op
from nas.measurement import Measurement

PEAKS = Peaks(fp32_gmacs=50.0, int8_gmacs=200.0, bandwidth_gbs=10.0, op_overhead_us=2.0, source="test")
DEVICE = Device("here", "x86_64", 4, peaks=PEAKS)


def conv(channels=64, size=16, kernel=3, dtype=Precision.FP32, name="conv"):
    shape = (1, channels, size, size)
    weights = {"weight": (channels, channels, kernel, kernel), "bias": (channels,)}
    return Op(name, "conv", ("input",), (shape,), shape, dtype, weights)


def graph(*ops):
    return Graph(ops, ops[0].input_shapes[0])


def measured(milliseconds):
    return Measurement(milliseconds, milliseconds, 0.0, 1, 0, "ms", "d", "r", 0.0)


def test_units_of_a_compute_bound_op():
    op = conv()
    found = Roofline().predict(graph(op), DEVICE)
    assert op.macs == 64 * 64 * 9 * 256
    assert found.mean == pytest.approx(op.macs / 50e9 * 1e3 + 2e-3)
    assert (found.unit, found.device, found.model, found.kind) == ("ms", "here", "roofline", "modelled")


def test_units_of_a_memory_bound_op():
    op = Op("add", "add", ("input", "conv"), ((1, 64, 16, 16),) * 2, (1, 64, 16, 16))
    found = Roofline().predict(graph(op), DEVICE)
    assert found.mean == pytest.approx(3 * 4 * 64 * 256 / 10e9 * 1e3 + 2e-3)


def test_int8_runs_at_its_own_peak_and_moves_fewer_bytes():
    float_cost, int8_cost = (
        Roofline().breakdown(graph(conv(dtype=dtype)), DEVICE)[0] for dtype in (Precision.FP32, Precision.INT8)
    )
    assert int8_cost.compute_ms == pytest.approx(float_cost.compute_ms / 4)
    assert int8_cost.memory_ms < float_cost.memory_ms / 3


@pytest.mark.parametrize("field", ["channels", "size", "kernel"])
def test_more_work_takes_longer(field):
    times = [Roofline().predict(graph(conv(**{field: value})), DEVICE).mean for value in (8, 16, 32)]
    assert times == sorted(times)
    assert times[0] < times[-1]


@pytest.mark.parametrize("field", ["fp32_gmacs", "bandwidth_gbs"])
def test_a_better_device_is_never_slower(field):
    ops = graph(conv(name="a"), conv(kernel=1, channels=8, name="b"))
    faster = replace(DEVICE, peaks=replace(PEAKS, **{field: 2 * getattr(PEAKS, field)}))
    assert Roofline().predict(ops, faster).mean <= Roofline().predict(ops, DEVICE).mean


def test_threads_share_the_arithmetic():
    ops = graph(conv(kernel=7))
    one, four = (Roofline().breakdown(ops, replace(DEVICE, threads=count))[0] for count in (1, 4))
    assert four.compute_ms == pytest.approx(one.compute_ms / 4)
    assert four.memory_ms == one.memory_ms


def test_the_breakdown_adds_up_and_names_the_bound():
    view = Op("flat", "flatten", ("input",), ((1, 8, 4, 4),), (1, 128))
    add = Op("add", "add", ("input", "x"), ((1, 64, 32, 32),) * 2, (1, 64, 32, 32))
    tiny = Op("tiny", "relu", ("input",), ((1, 4),), (1, 4))
    ops = graph(conv(), add, view, tiny)
    model = Roofline()
    costs = model.breakdown(ops, DEVICE)
    assert [cost.bound for cost in costs] == ["compute", "memory", "overhead", "overhead"]
    assert costs[2].latency_ms == 0.0
    assert sum(cost.latency_ms for cost in costs) == pytest.approx(model.predict(ops, DEVICE).mean)


def test_the_estimate_admits_that_it_may_be_off():
    found = Roofline().predict(graph(conv()), DEVICE)
    assert found.std >= 0.5 * found.mean
    energy = Roofline().predict_energy(graph(conv()), DEVICE)
    assert energy.std >= energy.mean
    with pytest.raises(ConfigError, match="never exact"):
        Roofline(relative_std=0.0)


def test_fitting_scales_by_the_median_ratio_and_learns_its_error():
    model = Roofline()
    graphs = [graph(conv(channels=width)) for width in (16, 32, 64, 96, 128)]
    base = [Roofline().predict(ops, DEVICE).mean for ops in graphs]
    ratios = [1.8, 1.9, 2.0, 2.1, 40.0]
    model.fit([(ops, DEVICE, measured(r * b)) for ops, r, b in zip(graphs, ratios, base, strict=True)])
    assert model.factor == pytest.approx(2.0)
    found = model.predict(graphs[0], DEVICE)
    assert found.mean == pytest.approx(2.0 * base[0])
    assert found.kind == "predicted"
    assert found.std / found.mean == pytest.approx(1.4826 * abs(math.log(1.9 / 2)), rel=0.05)


def test_fitting_nothing_changes_nothing():
    model = Roofline()
    model.fit([])
    assert model.factor == 1.0
    assert model.predict(graph(conv()), DEVICE).kind == "modelled"


def test_energy_in_millijoules_from_the_cited_constants():
    op = conv()
    found = Roofline().predict_energy(graph(op), DEVICE)
    moved = (op.activation_bytes + op.weight_bytes) * PICOJOULES_PER_DRAM_BYTE
    assert found.mean == pytest.approx((op.macs * 4.6 + moved) * 1e-9)
    assert (found.unit, found.kind) == ("mJ", "modelled")
    int8 = Roofline().predict_energy(graph(conv(dtype=Precision.INT8)), DEVICE)
    assert int8.mean < found.mean / 3


def test_a_device_without_peaks_is_refused():
    with pytest.raises(ConfigError, match=r"'here' has no peaks.*device.peaks=auto"):
        Roofline().predict(graph(conv()), replace(DEVICE, peaks=None))
