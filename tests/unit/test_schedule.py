"""Parts of a quantized file in float, and which way to run it is taken and remembered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from nas.errors import ModelFileError
from nas.measure.schedule import EVERYTHING, Route, Schedule, Scheduler, TimedRoute, faster_in_float, floating
from nas.measure.scheduled import ScheduledRuntime
from nas.protocols import OperatorTime
from nas.quantize.in_float import in_float, parts_of
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.zoo import write_zoo_model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_zoo_model("mobilenetv2_32", tmp_path_factory.mktemp("zoo"))


def outputs(path: Path, count: int = 4) -> NDArray[Any]:
    session = OnnxRuntime().load(path)
    ((name, (shape, _)),) = session.inputs.items()
    rng = np.random.default_rng(3)
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    return np.stack([session.run({name: rng.standard_normal(sizes, dtype=np.float32)})[0] for _ in range(count)])


def written(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save_model(model, path)
    return path


def gap(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_all_in_float_is_the_float_network_with_rounded_weights(files: tuple[Path, Path], tmp_path: Path) -> None:
    fp32, quantized = files
    plain = in_float(onnx.load(quantized))
    kinds = {node.op_type for node in plain.graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
    assert "Clip" in kinds  # the quantizer had folded ReLU6 into ranges
    expected = outputs(fp32)
    assert gap(outputs(written(plain, tmp_path / "plain.onnx")), expected) < gap(outputs(quantized), expected)


def test_no_part_in_float_changes_no_byte(files: tuple[Path, Path], tmp_path: Path) -> None:
    _, quantized = files
    same = outputs(written(in_float(onnx.load(quantized), ()), tmp_path / "same.onnx"))
    np.testing.assert_array_equal(same, outputs(quantized))


def test_parts_in_float_leave_the_rest_in_int8(files: tuple[Path, Path], tmp_path: Path) -> None:
    fp32, quantized = files
    model = onnx.load(quantized)
    parts = sorted(set(parts_of(model).values()))
    some = in_float(model, parts[: len(parts) // 2])
    pairs = [sum(node.op_type == "QuantizeLinear" for node in graph.node) for graph in (some.graph, model.graph)]
    assert 0 < pairs[0] < pairs[1]
    assert gap(outputs(written(some, tmp_path / "some.onnx")), outputs(fp32)) < 0.1


def test_files_without_paths_in_names_have_a_part_per_operator_with_weights(files: tuple[Path, Path]) -> None:
    model = onnx.load(files[1])
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    parts = parts_of(model)
    weights = sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
    assert len(set(parts.values()) - {""}) == weights


@dataclass
class StubSession:
    """Says a number and takes its time."""

    value: float
    work: int
    ran: list[int] = field(default_factory=list)

    @property
    def inputs(self) -> Mapping[str, tuple[tuple[int | str, ...], str]]:
        return {"input": ((1, 4), "float32")}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        np.linalg.eigvals(np.ones((self.work, self.work)))
        return [np.float32([1.0, self.value])]


@dataclass(frozen=True)
class StubRuntime:
    """Runs any file in so much work, and says what it is told to."""

    name: str
    value: float = 0.5
    work: int = 40
    refuses: bool = False
    quick_in_float: str = ""

    @property
    def version(self) -> str:
        return self.name

    def load(self, model: Path, threads: int = 1) -> StubSession:
        if self.refuses:
            raise ModelFileError(f"{model}: no such operator")
        return StubSession(self.value, self.work)

    def profile(self, model: Path, runs: int = 50, threads: int = 1) -> list[OperatorTime]:
        quantized = any(node.op_type == "QuantizeLinear" for node in onnx.load(model).graph.node)
        parts = {name: part for name, part in parts_of(onnx.load(model)).items() if part}
        times = [5.0 if quantized else 1.0 if part == self.quick_in_float else 50.0 for part in parts.values()]
        return [OperatorTime(n, "op", us, 1 / len(parts), (1,), "") for n, us in zip(parts, times, strict=True)]


def decide(files: tuple[Path, Path], *others: StubRuntime) -> Schedule:
    runtimes = {stub.name: stub for stub in (StubRuntime("first", work=60), *others)}
    return Scheduler(runtimes, rounds=5, inputs=2).schedule(files[0])


def test_the_fastest_way_is_taken(files: tuple[Path, Path]) -> None:
    decided = decide(files, StubRuntime("fast", work=2), StubRuntime("slow", work=80))
    assert decided.route == Route("fast")
    assert [timed.route.runtime for timed in decided.routes] == ["first", "fast", "slow"]
    assert decided.routes[1].speedup > 1 > decided.routes[2].speedup > 0


def test_a_faster_way_that_says_something_else_is_refused(files: tuple[Path, Path]) -> None:
    decided = decide(files, StubRuntime("wrong", value=0.9, work=2))
    assert decided.route == Route("first")
    assert decided.routes[1].reason == "outputs differ by 0.400 of the largest"
    assert decided.routes[1].median_ms is None


def test_a_runtime_that_refuses_the_file_is_left_out_with_its_reason(files: tuple[Path, Path]) -> None:
    decided = decide(files, StubRuntime("narrow", refuses=True))
    assert decided.route == Route("first")
    assert "no such operator" in decided.routes[1].reason


def test_the_first_runtime_must_take_the_file(files: tuple[Path, Path]) -> None:
    with pytest.raises(ModelFileError, match="no such operator"):
        Scheduler({"only": StubRuntime("only", refuses=True)}).schedule(files[0])


def test_what_the_profiles_say_is_slower_in_int8_goes_to_float(files: tuple[Path, Path]) -> None:
    with floating(files[1]) as version:
        part = sorted(set(version.parts().values()))[3]
        assert faster_in_float(StubRuntime("any", quick_in_float=part), version) == (part,)
        assert faster_in_float(StubRuntime("any"), version) == ()


def test_routes_in_float_are_tried_on_quantized_files_only(files: tuple[Path, Path]) -> None:
    runtimes = {"any": StubRuntime("any")}
    quantized = Scheduler(runtimes, rounds=5, inputs=1).schedule(files[1])
    plain = Scheduler(runtimes, rounds=5, inputs=1).schedule(files[0])
    assert Route("any", 1, EVERYTHING) in [timed.route for timed in quantized.routes]
    assert [timed.route for timed in plain.routes] == [Route("any")]


def test_threads_are_tried_where_a_runtime_has_them(files: tuple[Path, Path]) -> None:
    runtimes = {"onnxruntime": OnnxRuntime(spinning=False), "native": NativeRuntime()}
    decided = Scheduler(runtimes, threads=2, rounds=5, inputs=1).schedule(files[0])
    # The native one takes no more threads than there are processors.
    own = sorted({1, min(2, runtimes["native"].most_threads)}, reverse=True)
    assert [timed.route for timed in decided.routes] == [
        Route("onnxruntime", 2),
        Route("onnxruntime", 1),
        *(Route("native", count) for count in own),
    ]


def test_a_decision_is_remembered_for_file_and_settings(files: tuple[Path, Path], tmp_path: Path) -> None:
    cache = tmp_path / "decisions.json"
    runtime = ScheduledRuntime(rounds=5, cache=str(cache))
    decided = runtime.schedule(files[1])
    kept = json.loads(cache.read_text())
    assert len(kept) == 1
    # What stands there is believed, so that a second look times nothing.
    (key,) = kept
    told = Schedule((TimedRoute(Route("onnxruntime")), TimedRoute(Route("native", 1, EVERYTHING), speedup=9.0)), 1)
    cache.write_text(json.dumps({key: told.to_dict()}))
    assert runtime.schedule(files[1]) == told != decided
    assert ScheduledRuntime(rounds=6, cache=str(cache)).schedule(files[1]) != told
    assert len(json.loads(cache.read_text())) == 2


def test_a_remembered_way_in_float_is_run_in_float(files: tuple[Path, Path], tmp_path: Path) -> None:
    cache = tmp_path / "decisions.json"
    runtime = ScheduledRuntime(rounds=5, cache=str(cache))
    runtime.schedule(files[1])
    (key,) = json.loads(cache.read_text())
    told = Schedule((TimedRoute(Route("onnxruntime", 1, EVERYTHING)),), 0)
    cache.write_text(json.dumps({key: told.to_dict()}))
    session = runtime.load(files[1])
    given = {"input": np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)}
    plain = OnnxRuntime().load(written(in_float(onnx.load(files[1])), tmp_path / "plain.onnx"))
    np.testing.assert_array_equal(session.run(given)[0], plain.run(given)[0])
    assert not any("quant" in operator.kind.lower() for operator in runtime.profile(files[1], runs=3))


def test_damaged_decisions_are_made_again(files: tuple[Path, Path], tmp_path: Path) -> None:
    cache = tmp_path / "decisions.json"
    for text in ("{", "[]", '{"a": {"routes": [], "chosen": 0, "disturbance": ""}}'):
        cache.write_text(text)
        ScheduledRuntime(rounds=5, cache=str(cache)).schedule(files[1])
        assert len(json.loads(cache.read_text())) == 1
