"""What every runtime must do, as tests to inherit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nas.errors import ModelFileError
from nas.protocols import Runtime


class RuntimeSuite:
    """Subclass it as ``TestMyRuntime`` and return the runtime from ``make_runtime``.

    Attributes:
        tolerance: largest difference allowed from numpy's result, relative to the largest value or to 1.
        float16: whether the runtime takes half-precision inputs.
    """

    tolerance: float = 1e-5
    float16: bool = True

    def make_runtime(self) -> Runtime:
        """Return the runtime under test."""
        raise NotImplementedError

    def test_version_is_one_word_with_the_name(self) -> None:
        """The store's keys hold it."""
        runtime = self.make_runtime()
        assert runtime.version.startswith(f"{runtime.name}-")
        assert len(runtime.version) > len(runtime.name) + 1
        assert not set(runtime.version) & set(" \t\n|/")

    def test_runs_as_numpy_does(self, tmp_path: Path) -> None:
        """A dense layer with an activation, batch left open."""
        path, weight = tmp_path / "dense.onnx", _values((6, 4), 1)
        write_dense(path, weight)
        session = self.make_runtime().load(path, threads=1)
        shape, dtype = session.inputs["input"]
        assert isinstance(shape[0], str)
        assert (shape[1], dtype) == (6, "float32")
        for batch in (1, 3):
            given = _values((batch, 6), batch)
            (result,) = session.run({"input": given})
            self._same(result, np.maximum(given @ weight, 0))

    def test_result_does_not_depend_on_threads(self, tmp_path: Path) -> None:
        """Within rounding: sums may be taken in another order."""
        path, weight = tmp_path / "dense.onnx", _values((64, 64), 1)
        write_dense(path, weight)
        given = _values((8, 64), 2)
        runtime = self.make_runtime()
        counts = (1, min(2, getattr(runtime, "most_threads", 2)))
        one, two = (runtime.load(path, threads=count).run({"input": given})[0] for count in counts)
        self._same(one, two)

    def test_several_inputs_of_several_types(self, tmp_path: Path) -> None:
        """Tokens, a mask and a float, as language models have."""
        path, table = tmp_path / "tokens.onnx", _values((5, 3), 0)
        write_tokens(path, table)
        session = self.make_runtime().load(path, threads=1)
        assert {name: dtype for name, (_, dtype) in session.inputs.items()} == {
            "tokens": "int64",
            "mask": "bool",
            "scale": "float32",
        }
        tokens, mask = np.array([[4, 0]], np.int64), np.array([[True, False]])
        (result,) = session.run({"tokens": tokens, "mask": mask, "scale": np.array([2.0], np.float32)})
        self._same(result, np.where(mask[..., None], table[tokens], 0) * 2)

    def test_half_precision(self, tmp_path: Path) -> None:
        """Inputs and outputs of 16 bits keep their type."""
        if not self.float16:
            return
        path = tmp_path / "half.onnx"
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [2]) for name in ("input", "output")]
        _write(path, [helper.make_node("Relu", ["input"], ["output"])], value[:1], value[1:], [])
        session = self.make_runtime().load(path, threads=1)
        assert session.inputs["input"][1] == "float16"
        (result,) = session.run({"input": np.array([-1, 2], np.float16)})
        assert result.dtype == np.float16
        assert result.tolist() == [0, 2]

    def test_profile_shares_sum_to_one(self, tmp_path: Path) -> None:
        """Slowest first, names unique, times that were taken."""
        path = tmp_path / "tokens.onnx"
        write_tokens(path, _values((5, 3), 0))
        operators = self.make_runtime().profile(path, runs=5, threads=1)
        assert operators
        assert abs(sum(operator.share for operator in operators) - 1) < 1e-9
        times = [operator.median_us for operator in operators]
        assert times == sorted(times, reverse=True)
        assert min(times) >= 0
        assert len({operator.name for operator in operators}) == len(operators)
        assert all(operator.kind for operator in operators)

    def test_profile_leaves_no_file_behind(self, tmp_path: Path) -> None:
        """Neither beside the model nor in the current folder."""
        path = tmp_path / "dense.onnx"
        write_dense(path, _values((6, 4), 1))
        before = set(os.listdir())
        self.make_runtime().profile(path, runs=1, threads=1)
        assert [entry.name for entry in tmp_path.iterdir()] == ["dense.onnx"]
        assert set(os.listdir()) == before

    def test_refuses_damaged_files(self, tmp_path: Path) -> None:
        """Missing, empty, truncated, and no ONNX at all."""
        path, weight = tmp_path / "model.onnx", _values((64, 64), 1)
        write_dense(path, weight)
        whole = path.read_bytes()
        self._refused(tmp_path / "missing.onnx")
        for damaged in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + bytes(100), b"not a model\n" * 50):
            path.write_bytes(damaged)
            self._refused(path)

    def test_refuses_external_data_outside_the_folder(self, tmp_path: Path) -> None:
        """By ``..``, by an absolute path, through a symbolic link, through a hard link."""
        folder, secret = tmp_path / "model", tmp_path / "secret.bin"
        folder.mkdir()
        weight = _values((6, 4), 1)
        secret.write_bytes(weight.tobytes())
        path = folder / "model.onnx"
        for location in ("../secret.bin", str(secret)):
            write_dense(path, weight, location)
            self._refused(path)
        for link in (os.symlink, os.link):
            linked = folder / f"{link.__name__}.bin"
            link(secret, linked)
            write_dense(path, weight, linked.name)
            self._refused(path)

    def test_takes_external_data_beside_the_model(self, tmp_path: Path) -> None:
        """Also when the current folder is another one."""
        weight = _values((6, 4), 1)
        (tmp_path / "weights.bin").write_bytes(weight.tobytes())
        write_dense(tmp_path / "model.onnx", weight, "weights.bin")
        given = _values((1, 6), 2)
        (result,) = self.make_runtime().load(tmp_path / "model.onnx", threads=1).run({"input": given})
        self._same(result, np.maximum(given @ weight, 0))

    def _same(self, result: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        assert result.shape == expected.shape
        allowed = self.tolerance * max(1.0, float(np.abs(expected).max()))
        assert float(np.abs(result - expected).max()) <= allowed

    def _refused(self, path: Path) -> None:
        runtime = self.make_runtime()
        calls: list[Callable[[], object]] = [lambda: runtime.load(path), lambda: runtime.profile(path, runs=1)]
        for call in calls:
            try:
                call()
            except ModelFileError as error:
                assert str(path) in str(error)
            else:
                raise AssertionError(f"{path} was accepted")


def write_dense(path: Path, weight: NDArray[np.float32], external: str = "") -> None:
    """Write Relu(input @ weight) with a free batch.

    Args:
        path: file to write.
        weight: shape (features, outputs).
        external: where the weight's data lies; empty keeps it in the file.
    """
    stored = numpy_helper.from_array(weight, "weight")
    if external:
        stored.ClearField("raw_data")
        stored.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(weight.nbytes))):
            stored.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("MatMul", ["input", "weight"], ["product"], "/dense/MatMul"),
        helper.make_node("Relu", ["product"], ["output"], "/dense/Relu"),
    ]
    shapes = [("input", ["batch", weight.shape[0]]), ("output", ["batch", weight.shape[1]])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    _write(path, nodes, values[:1], values[1:], [stored])


def write_tokens(path: Path, table: NDArray[np.float32]) -> None:
    """Write table[tokens], zeroed where the mask is False, times a scale; tokens of shape (batch, length)."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["embedded"], "/embed/Gather"),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"], "/mask/Unsqueeze"),
        helper.make_node("Where", ["column", "embedded", "zero"], ["kept"], "/mask/Where"),
        helper.make_node("Mul", ["kept", "scale"], ["output"], "/scale/Mul"),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["batch", "length"]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]),
    ]
    stored = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([-1], np.int64), "last"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
    ]
    shape = ["batch", "length", table.shape[1]]
    _write(path, nodes, inputs, [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)], stored)


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    stored: list[onnx.TensorProto],
) -> None:
    graph = helper.make_graph(nodes, "suite", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def _values(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
