"""The timing process: what it measures, how it dies, and what the search is told."""

import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.device import Device, local_fingerprint
from nas.errors import CandidateError, MeasurementError, ModelFileError
from nas.measure.anchor import write_anchor
from nas.measure.child import RunnerProcess
from nas.measure.local import LocalMeter
from nas.measure.settings import TimingSettings
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.runtime_suite import write_dense, write_tokens

QUICK = TimingSettings(
    min_blocks=3, max_blocks=3, block_runs=3, warmup_s=0.0, tries=1, realtime=False, memory_loads=2, timeout_s=30.0
)
DEVICE = Device("here", "any", cores=os.cpu_count() or 1, fingerprint=local_fingerprint())

# A runtime that behaves as the name of the model file says; the anchor always behaves.
FAKE = """
import ctypes, os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class Session:
    inputs = {"input": ((1, 4), "float32")}

    def __init__(self, path):
        self.what = path.stem
        self.calls = 0
        self.held = np.ones(8 << 20, np.uint8) if self.what == "ballast" else None

    def run(self, inputs):
        self.calls += 1
        getattr(self, self.what, lambda: time.sleep(0.0005))()
        return [inputs["input"]]

    def segfault(self):
        ctypes.string_at(0)

    def abort(self):
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
        os.abort()

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self):
        os.write(2, b"the licence ran out\\n")
        os._exit(3)

    def hang(self):
        Path(os.environ["FAKE_CHILD"]).write_text(f"{os.getpid()} {os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '60')}")
        time.sleep(60)

    def hang_later(self):
        if self.calls > 3:
            time.sleep(60)

    def hungry(self):
        bytearray(16 << 30)

    def chatty(self):
        print('{"ok": true, "readings": []}')
        os.write(1, b"raw noise\\n")

    def wrong(self):
        raise ValueError("shape (3,) does not match")


@dataclass(frozen=True)
class FakeRuntime:
    label: str = "unset"
    name = "fake"

    @property
    def version(self):
        return f"fake-{self.label}"

    def load(self, model, threads=1):
        return Session(Path(model))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_runtime_module.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("fake_runtime_module", None)
    import fake_runtime_module

    yield lambda **fields: fake_runtime_module.FakeRuntime(label="1", **fields)
    del sys.modules["fake_runtime_module"]


def meter(runtime, **settings):
    return LocalMeter(DEVICE, runtime, replace(QUICK, **settings))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "dense.onnx"
    write_dense(path, np.ones((256, 256), np.float32))
    return path


def failure(meter, model):
    with pytest.raises(CandidateError) as caught:
        meter.measure(Path(model))
    return caught.value


def test_latency_and_memory_of_a_real_model(dense):
    costs = meter(OnnxRuntime()).measure(dense)
    assert set(costs) == {"latency_ms", "memory_kib"}
    latency, memory = costs["latency_ms"], costs["memory_kib"]
    assert latency.unit == "ms"
    assert latency.count == 9
    assert 0 < latency.p10 <= latency.median < 1000
    assert latency.anchor_ratio > 0
    assert latency.device == DEVICE.fingerprint.id
    assert latency.runtime == OnnxRuntime().version
    assert 0 < latency.started_s <= time.monotonic()
    assert (memory.unit, memory.count) == ("KiB", 2)
    assert memory.median > 0


def test_memory_grows_with_the_model(fake):
    small, large = (meter(fake()).measure(Path(f"{name}.onnx"))["memory_kib"] for name in ("calm", "ballast"))
    assert 7.5 * 1024 <= large.median - small.median < 9.5 * 1024


def test_compare_keeps_the_order_and_the_rounds(dense, tmp_path):
    write_tokens(tmp_path / "tokens.onnx", np.ones((5, 3), np.float32))
    big = tmp_path / "big.onnx"
    write_dense(big, np.ones((2048, 1024), np.float32))
    found = meter(OnnxRuntime()).compare([big, tmp_path / "tokens.onnx", dense], rounds=4)
    assert [measurement.count for measurement in found] == [12, 12, 12]
    assert found[0].median > found[1].median


@pytest.mark.parametrize(
    ("model", "kind", "says"),
    [
        ("segfault", "crash", "SIGSEGV"),
        ("killed", "crash", "SIGKILL"),
        ("leave", "crash", "status 3.*the licence ran out"),
        ("abort", "memory", "bad_alloc"),
        ("hungry", "memory", "memory"),
        ("wrong", "error", "shape"),
    ],
)
def test_a_candidates_end_is_a_reason(fake, model, kind, says):
    error = failure(meter(fake()), f"{model}.onnx")
    assert error.kind == kind
    assert error.reason
    import re

    assert re.search(says, error.reason, re.DOTALL)


def test_a_hang_is_killed_with_all_it_started(fake, tmp_path, monkeypatch):
    note = tmp_path / "child"
    monkeypatch.setenv("FAKE_CHILD", str(note))
    start = time.monotonic()
    error = failure(meter(fake(), timeout_s=1.5), "hang.onnx")
    assert error.kind == "timeout"
    assert "1.5 s" in error.reason
    assert time.monotonic() - start < 30
    for pid in map(int, note.read_text().split()):
        assert gone(pid)


def test_a_hang_while_timed_is_killed_too(fake):
    assert failure(meter(fake(), timeout_s=1.5), "hang_later.onnx").kind == "timeout"


def gone(pid):
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        time.sleep(0.05)
    return False


def test_what_a_model_prints_is_no_answer(fake):
    assert meter(fake()).measure(Path("chatty.onnx"))["latency_ms"].count == 9


def test_a_memory_limit_holds_for_a_real_model(tmp_path):
    path = tmp_path / "wide.onnx"
    write_dense(path, np.ones((4096, 4096), np.float32))  # 64 MiB of weights
    error = failure(meter(OnnxRuntime(), memory_limit_mib=48), path)
    assert error.kind == "memory"


def test_the_runtime_is_made_again_from_its_fields(fake):
    assert meter(fake()).measure(Path("calm.onnx"))["latency_ms"].runtime == "fake-1"


def test_a_runtime_that_cannot_be_imported_is_refused(dense):
    class Hidden(OnnxRuntime):
        pass

    with pytest.raises(MeasurementError, match=r"Hidden is defined in .*expected a class at the top"):
        meter(Hidden()).measure(dense)


def test_damaged_files_never_reach_the_timing_process(tmp_path, monkeypatch):
    monkeypatch.setattr(RunnerProcess, "request", lambda *args, **fields: pytest.fail("a request was made"))
    (tmp_path / "damaged.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=r"damaged\.onnx"):
        meter(OnnxRuntime()).measure(tmp_path / "damaged.onnx")


def test_a_device_out_of_reach_is_not_timed():
    with pytest.raises(MeasurementError, match=r"transport 'none'.*cost=predicted"):
        LocalMeter(replace(DEVICE, transport="none"), OnnxRuntime(), QUICK)


def test_another_machine_is_noticed(dense):
    other = replace(DEVICE, fingerprint=replace(DEVICE.fingerprint, cpu="another"))
    with pytest.raises(MeasurementError, match=r"has fingerprint .* start a new search"):
        LocalMeter(other, OnnxRuntime(), QUICK).measure(dense)


def test_starting_and_loading_share_the_gate_and_timing_has_it_alone(fake, dense):
    events = []

    class Gate:
        @contextlib.contextmanager
        def training(self):
            events.append("share")
            yield
            events.append("left")

        @contextlib.contextmanager
        def timing(self):
            events.append("alone")
            yield
            events.append("done")

    original = RunnerProcess.request

    def spy(self, name, *args, **fields):
        events.append(name)
        return original(self, name, *args, **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunnerProcess, "request", spy)
        LocalMeter(DEVICE, OnnxRuntime(), QUICK, gate=Gate()).measure(dense)
    assert events == ["share", "start", "load", "left", "alone", "time", "done"]


def test_the_runner_imports_little(dense):
    """Neither torch nor optuna nor onnx: every candidate waits for these imports."""
    code = "import sys, nas.measure.runner, nas.runtime.onnx_runtime; print([m for m in sys.modules if '.' not in m])"
    import subprocess

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "numpy" in done.stdout
    for heavy in ("'torch'", "'optuna'", "'onnx'", "'hydra'", "'mlflow'", "'PIL'", "'sklearn'"):
        assert heavy not in done.stdout


def test_the_runner_dies_with_the_process_that_asked(tmp_path):
    code = (
        "import os, signal, sys\nfrom nas.measure.child import RunnerProcess\nchild = RunnerProcess()\n"
        "try:\n    child.request('start', 30, runtime='nowhere:X', arguments={}, threads=1, affinity=[], "
        "memory_limit_mib=1)\nexcept Exception:\n    pass\n"
        "print(child.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    import subprocess

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert gone(int(done.stdout))


def test_the_anchor_is_the_same_everywhere(tmp_path):
    import hashlib

    write_anchor(tmp_path / "a.onnx")
    digest = hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest()
    assert digest == "ad05929f15b95607a62d3628fd4389fe3816c09a416f94b672276f4a2bc6ee64"
    (result,) = OnnxRuntime().load(tmp_path / "a.onnx").run({"input": np.ones((1, 16, 32, 32), np.float32)})
    assert np.isfinite(result).all()
    assert result.std() > 0
