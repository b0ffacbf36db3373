"""Runtimes side by side: ratios on a clock that only the test moves, and differing bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model

from nas.cli import main
from nas.errors import MeasurementError
from nas.measure.harness import Harness, Host
from nas.measure.settings import TimingSettings
from nas.measure.versus import Difference, differences, take_turns

QUICK = (
    "latency=false",
    "runs=2",
    "inputs=3",
    "cost.timing.min_blocks=2",
    "cost.timing.max_seconds=0.05",
    "cost.timing.warmup_s=0.001",
    "cost.timing.tries=1",
    "cost.timing.realtime=false",
)


def test_ratios_of_a_clock_that_only_runs_move() -> None:
    now = [0.0]

    def takes(seconds: float) -> Any:
        def run() -> None:
            now[0] += seconds

        return run

    host = Host(clock=lambda: now[0], pause=lambda seconds: None)
    runs = {"onnxruntime": takes(0.003), "native": takes(0.002), "openvino": takes(0.001)}
    turns = take_turns(runs, "onnxruntime", Harness(TimingSettings(), host), rounds=5)
    assert turns.names == ("native", "openvino", "onnxruntime")
    ratio = turns.ratio("onnxruntime", "native")
    assert (ratio.q25, ratio.median, ratio.q75) == pytest.approx((1.5, 1.5, 1.5))
    assert turns.ratio("openvino", "native").median == pytest.approx(0.5)
    assert turns.times_ms()["native"] == pytest.approx({"p10": 2.0, "median": 2.0, "blocks": 5})


class Fixed:
    """A session that gives the same outputs whatever it is given."""

    def __init__(self, *outputs: np.ndarray[Any, Any]) -> None:
        self.inputs: dict[str, Any] = {}
        self._outputs = list(outputs)

    def run(self, inputs: Any) -> list[np.ndarray[Any, Any]]:
        return self._outputs


def test_every_differing_byte_is_counted() -> None:
    one, other = np.array([1.0, 2.0, 4.0], np.float32), np.array([1.0, 2.0, 3.0], np.float32)
    bytes_ = np.arange(5, dtype=np.uint8)
    found = differences(Fixed(one, bytes_), Fixed(other, bytes_), [{}, {}])
    unequal = sum(a != b for a, b in zip(one.tobytes(), other.tobytes(), strict=True))
    assert found == Difference(2 * unequal, 2 * (12 + 5), pytest.approx(1 / 3))
    assert differences(Fixed(one), Fixed(one), [{}]) == Difference(0, 12, 0.0)


def test_outputs_of_other_shapes_are_an_error() -> None:
    with pytest.raises(MeasurementError, match="of shape"):
        differences(Fixed(np.zeros(3)), Fixed(np.zeros(4)), [{}])
    with pytest.raises(MeasurementError, match="1 and 2 outputs"):
        differences(Fixed(np.zeros(3)), Fixed(np.zeros(3), np.zeros(3)), [{}])


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """Write a float product and a ReLU, whose operators both runtimes know."""
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], "/m"), helper.make_node("Relu", ["m"], ["y"], "/r")]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], [weights])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_profile_against_another_runtime(product: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["profile", str(product), "runtime=native", "against=onnxruntime", *QUICK]
    assert main([*words, "output=json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["q25"] <= report["ratio_to_onnxruntime"] <= report["q75"]
    assert report["differing_bytes"] == 0, "a product with the unit matrix is exact in every order"
    assert report["compared_bytes"] == 3 * 16
    assert report["ratio_to_openvino"] is None or report["ratio_to_openvino"] > 0
    assert report["operators"]
    assert {"MatMul", "Gemm", "Relu"} & {operator["kind"] for operator in report["against_operators"]}
    assert set(report["operators"][0]) == set(report["against_operators"][0]), "the same columns"
    assert report == {**json.loads(product.with_suffix(".profile.json").read_text()), "saved": report["saved"]}

    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "times as fast as onnxruntime (quartiles" in shown
    assert "0 of 48 bytes of the outputs differ over 3 random inputs" in shown
    assert shown.count("time us") == 2


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["runtime=native", "against=native"], 2, "name two, such as runtime=native against=onnxruntime"),
        (["runtime=native", "against=onxruntime"], 2, "Did you mean 'onnxruntime'?"),
        (["cost=predicted", "against=native", "latency=false"], 2, "use cost=measured"),
    ],
)
def test_wrong_opponents_are_explained(
    product: Path, words: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(product), *words]) == code
    assert expected in capsys.readouterr().err
