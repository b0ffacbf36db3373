"""The runner without Python gives the bytes that Python gets, on x86-64 and on Arm, and is small."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from nas import _kernels
from nas.measure.child import death
from nas.runtime.inputs import random_inputs
from nas.runtime.native import NativeRuntime
from nas.runtime.program_file import write_program

REPOSITORY = Path(__file__).parents[2]
# Of the file, on both processors.
MOST_BYTES = 1_000_000
# Softmax, layer norms and GELU; every function that is computed one float at a time or by a table; fp32 beside int8.
MODELS = ("transformer", "convnet_mixed", "decoder_fp32")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def built(target: str) -> Path:
    """The program; with CI=true it is built here."""
    program = REPOSITORY / "build" / target
    if os.environ.get("CI") == "true":
        command = ["make", "--no-print-directory", target]
        made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
    if not program.is_file():
        pytest.skip(f"make {target} builds it in a minute or two; CI=true builds it here")
    return program


def emulated(machine: str) -> list[str]:
    """What runs a program for this processor here."""
    if machine == platform.machine():
        return []
    for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if machine != "aarch64" or shutil.which(tool) is None:
            if os.environ.get("CI") == "true" and machine == "aarch64":
                pytest.fail(f"{tool} is missing; scripts/install_test_tools.sh installs it")
            pytest.skip(f"programs for {machine} need {tool}")
    return ["qemu-aarch64", "-cpu", "max"]


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def runner(request: pytest.FixtureRequest) -> tuple[Path, Run]:
    """The program and a function that runs it."""
    before = emulated(request.param)
    program = built(f"nasq-run-{request.param}")

    def run(*words: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
        command = [*before, str(program), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **settings)

    return program, run


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A small float network and its program."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((8, 3, 3, 3), dtype=np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "/a/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], '/a/"Relu"'),
    ]
    return write(tmp_path / "net.onnx", nodes, {"x": [1, 3, 9, 9]}, {"y": [1, 8, 9, 9]}, [weights])


def write(
    path: Path, nodes: list[Any], inputs: dict[str, list[int]], outputs: dict[str, list[int]], stored: list[Any]
) -> Path:
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "net", *ends, stored)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    write_program(path, path.with_suffix(".nasq"))
    return path


def outputs_of(run: Run, model: Path, inputs: dict[str, Any], folder: Path, **settings: Any) -> bytes:
    (folder / "in.bin").write_bytes(b"".join(array.tobytes() for array in inputs.values()))
    ran = run(
        *(model.with_suffix(".nasq"), "--input", folder / "in.bin", "--output", folder / "out.bin", "--blocks", 0),
        **settings,
    )
    assert ran.returncode == 0, ran.stderr
    return (folder / "out.bin").read_bytes()


def test_outputs_equal_those_of_python(runner: tuple[Path, Run], planned: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((1, 3, 9, 9), dtype=np.float32)
    (tmp_path / "in.bin").write_bytes(x.tobytes())
    _, run = runner
    words = [planned.with_suffix(".nasq"), "--input", tmp_path / "in.bin", "--output", tmp_path / "out.bin"]
    ran = run(*words, "--blocks", 3, "--operators")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["blocks"] == 3
    assert report["p10_ms"] <= report["median_ms"] <= report["q75_ms"]
    assert len(report["operators"]) == report["operators_count"]
    assert '/a/"Relu"' in [operator["name"] for operator in report["operators"]]
    # Float convolutions sum in another order on each processor.
    if f"nasq-run-{platform.machine()}" == runner[0].name:
        assert (tmp_path / "out.bin").read_bytes() == NativeRuntime().load(planned).run({"x": x})[0].tobytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole networks with their programs."""
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, str(REPOSITORY / "scripts" / "fuzz_models.py"), str(folder), *MODELS]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_whole_networks_give_the_bytes_of_the_extension(
    runner: tuple[Path, Run], models: Path, name: str, tmp_path: Path
) -> None:
    program, run = runner
    path = models / f"{name}.onnx"
    blob = path.with_suffix(".nasq").read_bytes()
    # On the other processor the portable kernels, and for what no level rounds otherwise its best ones.
    levels = {"portable": "portable"}
    if program.name == f"nasq-run-{platform.machine()}":
        levels = {isa: isa for isa in _kernels.available_isas()}
    elif name == "transformer":
        levels["neoni8mm"] = "portable"
    for forced, isa in levels.items():
        planned = _kernels.Program(blob, isa)
        names = {"float": "float32"}
        described = {str(index): (shape, names.get(kind, kind)) for index, (shape, kind) in enumerate(planned.inputs)}
        given = random_inputs(described, seed=3)
        # Of a language model both fill their own cache, of zeros.
        expected = b"".join(array.tobytes() for array in planned.run(list(given.values())))
        environment = {**os.environ, "NAS_FORCE_ISA": forced}
        assert outputs_of(run, path, given, tmp_path, env=environment) == expected, forced


def test_wrong_files_and_words_are_errors(runner: tuple[Path, Run], planned: Path, tmp_path: Path) -> None:
    _, run = runner
    program = planned.with_suffix(".nasq")
    (tmp_path / "short.bin").write_bytes(b"1234567")
    for words, said in (
        ((program, "--input", tmp_path / "short.bin"), "must hold 972 bytes"),
        ((program, program.with_name("none.nasq")), "none.nasq"),
        ((program, "--output", tmp_path / "none" / "out.bin"), "cannot write"),
        ((program.with_name("none.nasq"),), "cannot be read"),
        ((planned,), "was refused: it does not start as a planned model does"),
    ):
        ran = run(*words, "--blocks", 0)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("nasq-run: ")
        assert said in ran.stderr
    for words in ((), (program, "--blocks"), (program, "--blocks", "-1"), (program, "--runs", "0"), (program, "-x")):
        ran = run(*words)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("usage: nasq-run MODEL.nasq")
    ran = run(program, env={**os.environ, "NAS_FORCE_ISA": "sse9"})
    assert (ran.returncode, ran.stderr) == (1, "nasq-run: NAS_FORCE_ISA names a level that is not available: sse9\n")
    program.write_bytes(program.read_bytes()[:-1])
    ran = run(program)
    assert ran.returncode == 1
    assert "was refused: it is cut off" in ran.stderr


def test_too_little_memory_is_an_error(planned: Path) -> None:
    program = built(f"nasq-run-{platform.machine()}")
    blob = bytearray(planned.with_suffix(".nasq").read_bytes())
    blob[8:16] = (2**32).to_bytes(8, "little")  # the arena, at its largest
    planned.with_suffix(".nasq").write_bytes(blob)
    command = ["sh", "-c", 'ulimit -v 1000000; exec "$0" "$1"', str(program), str(planned.with_suffix(".nasq"))]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "nasq-run: this model needs more memory than there is\n"
    assert death(ran.returncode, "nasq-run", ran.stderr).kind == "memory"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_it_brings_in_the_place_of_a_c_library(machine: str) -> None:
    before = emulated(machine)
    target = f"kernels-test-runner-{machine}"
    command = ["make", "--no-print-directory", target]
    made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    program = str(REPOSITORY / "build" / target)
    environment = {**os.environ, "NAS_TEST_WORD": "said"}
    ran = subprocess.run([*before, program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    checks = re.fullmatch(r"(\d+) checks, 0 failures\n", ran.stdout)
    assert checks is not None
    assert int(checks[1]) > 100_000


def test_it_is_one_static_file_of_at_most_a_megabyte(runner: tuple[Path, Run]) -> None:
    program, _ = runner
    # No interpreter in its program header: nothing is loaded at run time.
    assert b"/ld-linux" not in program.read_bytes()
    assert program.stat().st_size <= MOST_BYTES
