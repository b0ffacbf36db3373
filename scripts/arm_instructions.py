"""Instructions of one inference on a 64-bit Arm processor, counted by QEMU's user mode, of both runtimes.

A plug-in (``kernels/tools/count_instructions.c``) counts what a whole process executes. One inference is the difference
of two processes, divided by how many inferences more the second one ran, so loading and Python's start do not count.
What an instruction costs is another matter: this is no latency.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.errors import MeasurementError
from nas.measure.versus import Difference
from nas.runtime.inputs import random_inputs
from nas.runtime.model_file import check_model_file
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.plan.model import plan

REPOSITORY = Path(__file__).parents[1]
RUNNER = REPOSITORY / "build" / "nasq-run-aarch64"
ROOT = Path("~/.cache/hwnas/arm64").expanduser()
# Of the A76 class: dot products, no matrix products. The processor that the root of ``arm64_root.sh`` describes.
CPU = "neoverse-n1"
REPEATS = 3
_ORT = """import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
given = {"input": numpy.load(sys.argv[2])}
for _ in range(int(sys.argv[3])):
    session.run(None, given)
"""


@dataclass(frozen=True)
class Counts:
    """Per inference: of the native runtime, of ONNX Runtime, and in which bytes their outputs differ."""

    native: list[float]
    onnxruntime: list[float]
    difference: Difference


def count(model: Path) -> Counts:
    """Count for a model of one input called ``input`` and one output.

    Raises:
        MeasurementError: something that counting needs is missing, which is named.
    """
    for tool, package in (("qemu-aarch64", "qemu-user"), ("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")):
        if shutil.which(tool) is None:
            raise MeasurementError(f"{tool} is missing; on Debian: apt-get install {package}")
    if not (ROOT / "usr/bin/python3").exists():
        raise MeasurementError(f"no Arm file system in {ROOT}; make it with scripts/arm64_root.sh")
    _checked(["make", "--no-print-directory", "nasq-run-aarch64"])
    with tempfile.TemporaryDirectory(prefix="hwnas-count-") as made:
        folder = Path(made)
        session = OnnxRuntime().load(model)
        given = random_inputs(session.inputs)
        (folder / "input.bin").write_bytes(given["input"].tobytes())
        np.save(folder / "input.npy", given["input"], allow_pickle=False)
        (folder / "model.nasq").write_bytes(plan(model, check_model_file(model), {}).to_bytes())
        (folder / "ort.py").write_text(_ORT)
        files = [folder / "model.nasq", "--input", folder / "input.bin", "--output", folder / "output.bin"]
        runner = [RUNNER, *files, "--blocks", 0, "--runs"]
        python = [ROOT / "usr/bin/python3", folder / "ort.py", model, folder / "input.npy"]
        settings = ["-L", ROOT, "-E", f"PYTHONHOME={ROOT / 'usr'}", "-E", f"PYTHONPATH={ROOT / 'opt/hwnas'}"]
        counter = _counter(folder)
        native = [_per_run(lambda runs: counter([*runner, runs]), 20) for _ in range(REPEATS)]
        ort = [_per_run(lambda runs: counter([*settings, *python, runs]), 20) for _ in range(REPEATS)]
        (expected,) = session.run(given)
        found = Difference()
        found.add(np.frombuffer((folder / "output.bin").read_bytes(), expected.dtype).reshape(expected.shape), expected)
    return Counts(native, ort, found)


def _per_run(counted: Callable[[int], int], more: int) -> float:
    return (counted(1 + more) - counted(1)) / more


def _counter(folder: Path) -> Callable[[Sequence[object]], int]:
    """Return what runs a command in the emulator and gives its instructions; newer QEMUs want newer interfaces."""
    source = REPOSITORY / "kernels/tools/count_instructions.c"
    reason = ""
    for interface in range(1, 9):
        plugin, out = folder / f"count{interface}.so", folder / "count.txt"
        flags = ["-O2", "-shared", "-fPIC", f"-DINTERFACE={interface}"]
        _checked(["cc", *flags, source, "-o", plugin])
        emulator = ["qemu-aarch64", "-cpu", CPU, "-plugin", f"{plugin},out={out}"]

        def counted(command: Sequence[object], emulator: Sequence[object] = emulator, out: Path = out) -> int:
            out.unlink(missing_ok=True)
            _checked([*emulator, *command])
            return int(out.read_text())

        try:
            counted([RUNNER, folder / "model.nasq", "--blocks", 0])
        except MeasurementError as error:
            reason = str(error)
        else:
            return counted
    raise MeasurementError(f"QEMU takes no plug-in: {reason}")


def _checked(command: Sequence[object]) -> None:
    ran = subprocess.run([*map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise MeasurementError(f"{' '.join(map(str, command[:3]))} failed: {ran.stderr.strip()[-500:]}")
