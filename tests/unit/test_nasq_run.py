"""The runner without Python gives the bytes that Python gets, and is small."""

import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from nas.runtime.native import NativeRuntime
from nas.runtime.program_file import write_program

REPOSITORY = Path(__file__).parents[2]
RUNNER = REPOSITORY / "build" / f"nasq-run-{platform.machine()}"


@pytest.fixture(scope="module")
def runner():
    if os.environ.get("CI") == "true":
        target = f"nasq-run-{platform.machine()}"
        built = subprocess.run(
            ["make", "--no-print-directory", target], cwd=REPOSITORY, capture_output=True, check=False
        )
        assert built.returncode == 0, built.stderr
    if not RUNNER.is_file():
        pytest.skip("make nasq-run builds it in a minute or two; CI=true builds it here")
    return RUNNER


@pytest.fixture
def planned(tmp_path):
    """Write a small float network and its program."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((8, 3, 3, 3), dtype=np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "/a/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], "/a/Relu"),
    ]
    shapes = {"x": [1, 3, 9, 9], "y": [1, 8, 9, 9]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], [weights])
    path = tmp_path / "net.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_program(path, tmp_path / "net.nasq")
    return path


def test_outputs_equal_those_of_python(runner, planned, tmp_path):
    x = np.random.default_rng(1).standard_normal((1, 3, 9, 9), dtype=np.float32)
    (tmp_path / "in.bin").write_bytes(x.tobytes())
    command = [runner, planned.with_suffix(".nasq"), "--input", tmp_path / "in.bin", "--output", tmp_path / "out.bin"]
    ran = subprocess.run(
        [*map(str, command), "--blocks", "3", "--operators"], capture_output=True, text=True, check=True
    )
    report = json.loads(ran.stdout)
    assert (tmp_path / "out.bin").read_bytes() == NativeRuntime().load(planned).run({"x": x})[0].tobytes()
    assert report["blocks"] == 3
    assert report["p10_ms"] <= report["median_ms"] <= report["q75_ms"] * (1 + 1e-6)
    assert len(report["operators"]) == report["operators_count"]


def test_damaged_and_missing_models_are_errors(runner, planned):
    program = planned.with_suffix(".nasq")
    program.write_bytes(program.read_bytes()[:-1])
    for path in (program, planned, program.with_name("none.nasq")):
        ran = subprocess.run([str(runner), str(path)], capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        assert ran.stderr.startswith("nasq-run: ")


def test_it_is_one_static_file_that_grows_no_further(runner):
    # No interpreter in its program header: nothing is loaded at run time.
    assert b"/lib64/ld-" not in runner.read_bytes()
    # The aim is 1 MB. Half of it is the C library's share; the kernels of transformers brought it to 1.37 MB.
    assert runner.stat().st_size <= 1_500_000
