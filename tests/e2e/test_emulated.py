"""A quantized candidate on an emulated Arm processor computes what it computes here; it is never timed there."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.architecture import Precision
from nas.data.digits import Digits
from nas.device import local_fingerprint
from nas.errors import MeasurementError
from nas.measure.devices import make_device
from nas.measure.emulated import EmulatedDevice
from nas.measure.meters import make_meter
from nas.measure.peaks import cache_folder
from nas.measure.programs import find_program
from nas.measure.settings import TimingSettings
from nas.quantize.static import needs_reduced_range, quantize_static
from nas.quantize.torch_to_onnx import export_fp32
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from search_spaces.toy import Toy

ROOT = cache_folder() / "arm64"
# Share of the logits' range. Arm and x86 kernels may round a sum that lies half way to another step of a tensor's 8-bit
# scale; one step is 1 / 255 of that tensor's range, and the following layers average it out.
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def arm():
    ready = shutil.which("qemu-aarch64") and (ROOT / "usr/bin/python3").exists()
    if not ready:
        text = f"no emulated Arm processor: needs qemu-aarch64 and {ROOT}, which scripts/arm64_root.sh makes"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    return make_device("arm", transport="emulated", root=str(ROOT))


@pytest.fixture(scope="module")
def candidate(tmp_path_factory):
    """A quantized network of the toy space and 16 pictures of digits that it reads."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = Digits().load()
    space = Toy(dataset.task, resolutions=(8,), precisions=("int8",), depths=(2,), widths=(8,), strides=(1,))
    architecture = space.sample(np.random.default_rng(0))
    folder = tmp_path_factory.mktemp("candidate")
    preprocessing = dataset.preprocessing(*space.input_size(architecture))
    pictures = preprocessing.normalize(preprocessing.resize(dataset.splits["train"].images[:64]))
    module = space.build(architecture).eval()
    export_fp32(module, folder / "fp32.onnx", dataset.task.channels, 8, 8)
    here = local_fingerprint()
    quantize_static(
        folder / "fp32.onnx",
        folder / "model.onnx",
        pictures,
        architecture.precision,
        Precision.FP32,
        needs_reduced_range(here.isa, here.features),
    )
    return folder / "model.onnx", {"input": pictures[:16]}


def test_it_computes_there_what_it_computes_here(arm, candidate):
    model, inputs = candidate
    (there,), machine = EmulatedDevice(arm, OnnxRuntime()).outputs(model, inputs)
    (here,) = OnnxRuntime().load(model).run(inputs)
    assert machine.isa == "aarch64"
    assert "asimddp" in machine.features
    assert there.shape == here.shape == (16, 10)
    assert np.abs(there - here).max() <= TOLERANCE * np.ptp(here)
    assert np.ptp(here, axis=1).min() > 0


def test_it_has_no_latency(arm, candidate):
    device = EmulatedDevice(arm, OnnxRuntime())
    with pytest.raises(MeasurementError, match=r"emulated.*no latency, memory or energy.*cost=predicted"):
        device.measure(candidate[0])
    with pytest.raises(MeasurementError, match="emulated"):
        device.compare([candidate[0]], 3)
    with pytest.raises(MeasurementError, match="emulated"):
        make_meter(arm, OnnxRuntime(), TimingSettings())


@pytest.fixture(scope="module")
def arm_program():
    if os.environ.get("CI") == "true":
        subprocess.run(["make", "--no-print-directory", "nasq-run-aarch64"], cwd=Path(__file__).parents[2], check=True)
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is missing; install Debian's package qemu-user")
    try:
        return make_device("arm", transport="emulated", runner="nasq-run"), find_program("aarch64", None)
    except MeasurementError as error:
        pytest.skip(str(error))


def test_the_program_alone_computes_there_the_bytes_of_here(arm_program, candidate):
    model, inputs = candidate
    one = {"input": inputs["input"][:1]}
    (there,), _ = EmulatedDevice(arm_program[0], NativeRuntime()).outputs(model, one)
    (here,) = NativeRuntime().load(model).run(one)
    assert there.tobytes() == here.tobytes()
    assert np.ptp(here) > 0


def test_the_program_alone_has_no_latency_there(arm_program):
    with pytest.raises(MeasurementError, match=r"emulated.*no latency, memory or energy"):
        make_meter(arm_program[0], NativeRuntime(), TimingSettings())
    with pytest.raises(MeasurementError, match="runtime=native"):
        EmulatedDevice(arm_program[0], OnnxRuntime())
