"""The additive model finds the coefficients that made the times, and says where it knows nothing."""

from pathlib import Path

import numpy as np
import pytest

from latency_models.additive import CONSTANT, Additive, BlockTime, KernelTime
from latency_models.graph_latency import ALONE, GraphLatency
from latency_models.kernels import FUSIONS, kernels
from nas.architecture import Precision
from nas.data import Task
from nas.device import Device
from nas.errors import ConfigError, DataError, MeasurementError
from nas.graph import Graph, Op
from nas.measurement import Measurement
from search_spaces.convnet import ConvNet

SPACE = ConvNet(Task("image_classification", channels=3, classes=10), [8, 16], activations=["relu"])
DEVICE = Device("bench", "x86_64", 1)


def measured(milliseconds: float, unit: str = "ms") -> Measurement:
    return Measurement(milliseconds, milliseconds, 0.0, 10, 1, unit, "bench", "test", 0.0)


def made_up(graph: Graph, fusion: str) -> float:
    """A device on which each kernel costs 2 us, a MAC 1 ns, a value written 0.5 ns, and a call 5 us."""
    found = kernels(graph, fusion)
    spent = sum(
        2e-3 * (kernel.family != "rename")
        + 1e-6 * kernel.features.get("macs", 0.0)
        + 5e-7 * kernel.features.get("written", 0.0)
        for kernel in found
    )
    return 5e-3 + spent


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    rng = np.random.default_rng(3)
    return [SPACE.lower(SPACE.sample(rng)) for _ in range(130)]


@pytest.fixture(scope="module")
def rows(graphs: list[Graph]) -> list[tuple[Graph, Device, Measurement]]:
    rng = np.random.default_rng(4)
    return [(graph, DEVICE, measured(made_up(graph, "sums") * rng.normal(1, 0.01))) for graph in graphs]


@pytest.fixture(scope="module")
def fitted(rows: list[tuple[Graph, Device, Measurement]]) -> Additive:
    model = Additive()
    model.fit(rows[:100])
    return model


def relu_net(dtype: Precision = Precision.FP32) -> Graph:
    weights = {"weight": (16, 16, 1, 1), "bias": (16,)}
    same = ((1, 16, 4, 4),)
    conv = Op("/b/Conv", "conv", ("input",), same, same[0], dtype, weights, {"strides": (1, 1)}, "b")
    relu = Op("/b/Relu", "relu", ("/b/Conv",), same, same[0], dtype, block="b")
    add = Op("/b/Add", "add", ("/b/Relu", "input"), same * 2, same[0], dtype, block="b")
    soft = Op("/c/Softmax", "softmax", ("/b/Add",), same, same[0], Precision.FP32, block="c")
    return Graph((conv, relu, add, soft), same[0])


@pytest.mark.parametrize(("fusion", "first"), [("clipping", 2), ("functions", 2), ("sums", 3)])
def test_what_is_fused_is_one_kernel(fusion: str, first: int) -> None:
    found = kernels(relu_net(), fusion)
    assert [len(kernel.ops) for kernel in found] == [first] + [1] * (4 - first)
    assert found[0].family == "conv.pointwise.fp32"
    assert found[0].features["macs"] == 16 * 16 * 16
    assert found[0].features["with_relu"] == 256


def test_conversions_stand_between_eight_bits_and_float() -> None:
    families = [kernel.family for kernel in kernels(relu_net(Precision.INT8), "clipping")]
    assert families.count("quantize") == 1  # the input, once for both of its readers
    assert families.count("dequantize") == 1  # before the softmax
    assert not {"quantize", "dequantize"} & {kernel.family for kernel in kernels(relu_net(), "clipping")}


def test_synthetic_coefficients_are_recovered(fitted: Additive, rows: list[tuple[Graph, Device, Measurement]]) -> None:
    errors = [fitted.predict(graph, DEVICE).mean / one.median - 1 for graph, _, one in rows[100:]]
    assert np.mean(np.abs(errors)) < 0.03
    inside = [abs(error) < 1.645 * fitted.predict(graph, DEVICE).std / fitted.predict(graph, DEVICE).mean
              for error, (graph, _, _) in zip(errors, rows[100:], strict=True)]  # fmt: skip
    assert np.mean(inside) > 0.6
    assert min(cost.latency_ms for graph, _, _ in rows[:5] for cost in fitted.breakdown(graph)) >= 0


def test_parts_sum_to_the_prediction(fitted: Additive, graphs: list[Graph]) -> None:
    costs = fitted.breakdown(graphs[0])
    assert sum(cost.latency_ms for cost in costs) == pytest.approx(fitted.predict(graphs[0], DEVICE).mean)
    assert sorted(
        name for cost in costs for name in cost.ops if cost.family not in ("quantize", "dequantize")
    ) == sorted(op.name for op in graphs[0].ops)
    assert costs[0].family == CONSTANT[0]


def test_an_unknown_kernel_is_named_and_widens(fitted: Additive) -> None:
    known, odd = fitted.predict(relu_net(), DEVICE), fitted.breakdown(relu_net())
    assert [cost.name for cost in odd if not cost.known] == ["/c/Softmax"]
    assert known.std / known.mean > fitted.predict(Graph(relu_net().ops[:3], (1, 16, 4, 4)), DEVICE).std / known.mean


def test_profiles_alone_tell_two_kinds_apart(rows: list[tuple[Graph, Device, Measurement]]) -> None:
    graph = rows[0][0]
    pool = next(op.name for op in graph.ops if op.kind == "globalaveragepool")
    few = [(graph, DEVICE, measured(1.0)) for _ in range(8)]
    model = Additive(["clipping"])
    model.fit(few, [KernelTime(graph, pool, 0.9)] * 200)
    spent = {cost.name: cost.latency_ms for cost in model.breakdown(graph) if cost.family.startswith("globala")}
    assert spent[pool] == pytest.approx(0.9, rel=0.05)


def test_blocks_of_profiles_alone_predict_whole_networks(rows: list[tuple[Graph, Device, Measurement]]) -> None:
    profiles = []
    for graph, _, _ in rows[:100]:
        block_of = {op.name: op.block for op in graph.ops}
        spent = {"": 5e-3}
        for kernel in kernels(graph, "sums"):
            block = block_of.get(kernel.ops[0], "")
            work = 1e-6 * kernel.features.get("macs", 0.0) + 5e-7 * kernel.features.get("written", 0.0)
            spent[block] = spent.get(block, 0.0) + 2e-3 * (kernel.family != "rename") + work
        profiles += [BlockTime(graph, block, milliseconds) for block, milliseconds in spent.items()]
    model = Additive(alone=True)
    model.fit(rows[:100], profiles)
    errors = [model.predict(graph, DEVICE).mean / taken.median - 1 for graph, _, taken in rows[100:]]
    assert np.median(np.abs(errors)) < 0.03
    both = GraphLatency(choices=())
    both.fit(rows[:100], profiles)
    assert both.kind == ALONE
    assert isinstance(both.chosen["profiled"], bool)
    with pytest.raises(MeasurementError, match="no profiles to learn from"):
        Additive(alone=True).fit(rows[:100])


def test_bad_input_is_refused(graphs: list[Graph]) -> None:
    good = [(graph, DEVICE, measured(1.0)) for graph in graphs[:8]]
    for bad, match in (
        (good[:7], "7 measurements; expected 8"),
        ([*good, (graphs[8], DEVICE, measured(0.0))], "above 0"),
        ([*good, (graphs[8], DEVICE, measured(float("nan")))], "above 0"),
        ([*good, (graphs[8], DEVICE, measured(3.0, "KiB"))], "KiB"),
    ):
        with pytest.raises(MeasurementError, match=match):
            Additive().fit(bad)
    with pytest.raises(ConfigError, match=f"have {', '.join(FUSIONS)}"):
        Additive(["everything"])


def test_a_saved_model_predicts_the_same_bits(fitted: Additive, graphs: list[Graph], tmp_path: Path) -> None:
    fitted.save(tmp_path / "model", {"made": "here"})
    again, card = Additive.load(tmp_path / "model")
    assert card == {"made": "here"}
    assert [again.predict(graph, DEVICE) for graph in graphs] == [fitted.predict(graph, DEVICE) for graph in graphs]
    (tmp_path / "model.npz").write_bytes((tmp_path / "model.npz").read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read"):
        Additive.load(tmp_path / "model")


@pytest.mark.parametrize("choices", [(), ("ridge_on_sums",), ("trees_on_ratio",)], ids=str)
def test_the_graph_model_keeps_what_errs_least(
    choices: tuple[str, ...], rows: list[tuple[Graph, Device, Measurement]], tmp_path: Path
) -> None:
    model = GraphLatency(choices)
    model.fit(rows[:100])
    assert set(model.errors) == {ALONE, *choices}
    assert model.errors[model.kind] == min(model.errors.values())
    held = [graph for graph, _, _ in rows[100:]]
    found = model.predict_all(held, DEVICE)
    assert np.mean([abs(one.mean / row[2].median - 1) for one, row in zip(found, rows[100:], strict=True)]) < 0.05
    model.save(tmp_path / "graph", {})
    assert GraphLatency.load(tmp_path / "graph")[0].predict_all(held, DEVICE) == found
    parts = model.parts(held[0], DEVICE)
    assert sum(part.latency_ms for part in parts) == pytest.approx(found[0].mean)


def test_the_graph_model_doubts_what_it_has_not_seen(rows: list[tuple[Graph, Device, Measurement]]) -> None:
    model = GraphLatency(())
    model.fit(rows[:60])
    assert not model.doubts(rows[0][0], DEVICE)
    wide = ConvNet(SPACE.task, [64], activations=["relu"])
    big = wide.lower(wide.sample(np.random.default_rng(0)))
    assert any("beyond what was timed" in doubt for doubt in model.doubts(big, DEVICE))
    small, large = model.predict(rows[0][0], DEVICE), model.predict(big, DEVICE)
    assert large.std / large.mean > 2 * small.std / small.mean
    assert any("/c/Softmax" in doubt for doubt in model.doubts(relu_net(), DEVICE))
