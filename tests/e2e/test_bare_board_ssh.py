"""A board without Python over ssh: a whole search through nasq-run alone, and the link cut at every step."""

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.device import local_fingerprint
from nas.errors import MeasurementError
from nas.measure import bare
from nas.measure.bare_meter import BareMeter
from nas.measure.devices import make_device
from nas.measure.programs import find_program
from nas.measure.settings import TimingSettings
from nas.runtime.native import NativeRuntime
from nas.testing.loopback import SSHD, Sshd
from nas.testing.runtime_suite import write_dense

REPOSITORY = Path(__file__).parents[2]
QUICK = TimingSettings(
    min_blocks=3, max_blocks=3, block_runs=3, warmup_s=0.0, tries=1, realtime=False, memory_loads=1, timeout_s=30.0
)
# What the script calls; there is no python among them, but one that tells on whoever asks for it.
TOOLS = ("sh", "cat", "mkdir", "rm", "uname", "id", "dd", "wc", "sha256sum", "chmod", "env", "sleep")


def missing(text):
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="module")
def program():
    isa = platform.machine()
    if os.environ.get("CI") == "true":
        subprocess.run(["make", "--no-print-directory", f"nasq-run-{isa}"], cwd=REPOSITORY, check=True)
    try:
        return find_program(isa, None)
    except MeasurementError as error:
        missing(str(error))


class Board:
    """An sshd whose users find no Python, and the folder of their temporary files."""

    def __init__(self, folder):
        tools, self.temporary, self.told = folder / "bin", folder / "tmp", folder / "python-was-asked-for"
        tools.mkdir(parents=True)
        self.temporary.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(shutil.which(name))
        for name in ("python", "python3"):
            (tools / name).write_text(f"#!/bin/sh\n: > {self.told}\nexit 127\n")
            (tools / name).chmod(0o755)
        login = folder / "login"
        login.write_text(
            f'#!/bin/sh\nexec env -i PATH={tools} TMPDIR={self.temporary} {tools}/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        login.chmod(0o755)
        self.sshd = Sshd(folder / "files", login)

    def device(self, **settings):
        fields = {"ssh_config": str(self.sshd.config), "pause_s": 0.05, "tries": 2, "runner": "nasq-run", **settings}
        return make_device("board", transport="ssh", host="board", **fields)

    def left(self):
        """What is still there after five seconds."""
        for _ in range(100):
            if not (kept := list(self.temporary.iterdir())):
                break
            threading.Event().wait(0.05)
        return kept


@pytest.fixture(scope="module")
def board(tmp_path_factory, program):
    if SSHD is None:
        missing("sshd is missing, so nothing is measured over ssh; install Debian's package openssh-server")
    made = Board(tmp_path_factory.mktemp("bare"))
    yield made
    made.sshd.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "dense.onnx"
    write_dense(path, np.ones((64, 64), np.float32))
    return path


@pytest.fixture
def cutting(monkeypatch, board):
    """Cuts the link at a step, so many times; counts the sessions."""
    plan = {"step": "", "left": 0, "sessions": 0}
    begin, send = bare._Link.__init__, bare._Link.send

    def cut(step, link, late=0.0):
        if plan["step"] != step or plan["left"] == 0:
            return
        plan["left"] -= 1
        if late:
            threading.Timer(late, board.sshd.cut).start()
            return
        # Right after its start the client may have no connection yet that could be cut.
        for _ in range(200):
            board.sshd.cut()
            if link._stream.status(0.05) is not None:
                return
        pytest.fail(f"the link could not be cut at '{step}'")

    def spied_begin(self, *args):
        plan["sessions"] += 1
        begin(self, *args)
        cut("greeting", self)

    def spied_send(self, data, deadline):
        if plan["step"] == "half sent" and plan["left"] > 0:
            self._stream.write(data[: len(data) // 2], deadline)
        cut("half sent", self)
        cut("send", self)
        send(self, data, deadline)
        cut("running", self, late=0.7)

    monkeypatch.setattr(bare._Link, "__init__", spied_begin)
    monkeypatch.setattr(bare._Link, "send", spied_send)
    return plan


def test_it_says_the_machine_that_python_would_say_and_its_peaks(board, tmp_path):
    device = board.device(peaks="auto", cache=str(tmp_path / "peaks.json"))
    assert device.fingerprint == local_fingerprint()
    assert "our matrix products" in device.peaks.source
    assert min(device.peaks.fp32_gmacs, device.peaks.int8_gmacs, device.peaks.bandwidth_gbs) > 0
    assert not board.told.exists()


def test_latency_and_memory_come_with_the_anchor(board, model, program):
    meter = BareMeter(board.device(), NativeRuntime(), QUICK)
    costs = meter.measure(model)
    assert costs["latency_ms"].count == 30
    assert costs["latency_ms"].anchor_ratio > 0
    assert costs["latency_ms"].device == local_fingerprint().id
    assert costs["latency_ms"].runtime.startswith("nasq-run-")
    assert costs["memory_kib"].median > 0
    assert [reading.count for reading in meter.compare([model, model], 4)] == [40, 40]
    assert not board.told.exists()
    assert board.left() == []


@pytest.mark.parametrize("step", ["greeting", "send", "half sent", "running"])
def test_a_link_cut_once_costs_a_session_and_no_number(board, model, cutting, step):
    device = board.device()
    timing = replace(QUICK, max_blocks=400, max_seconds=3.0)  # so that it is still timing when the late cut comes
    meter = BareMeter(device, NativeRuntime(), timing if step == "running" else QUICK)
    cutting.update(step=step, left=1, sessions=0)
    costs = meter.measure(model)
    assert cutting["sessions"] == 2
    assert costs["latency_ms"].median > 0
    assert board.left() == []


def test_a_link_cut_every_time_is_a_reason(board, model, cutting):
    meter = BareMeter(board.device(), NativeRuntime(), replace(QUICK, max_blocks=400, max_seconds=3.0))
    cutting.update(step="running", left=2, sessions=0)
    with pytest.raises(MeasurementError, match=r"2 tries.*the link to board was lost after 'before'.*uname -m"):
        meter.measure(model)
    assert cutting["sessions"] == 2
    assert board.left() == []


def test_a_program_of_another_processor_is_refused_before_anything_is_sent(board, model, tmp_path, cutting, program):
    other = tmp_path / "nasq-run-other"
    head = bytearray(program.read_bytes())
    head[18:20] = b"\xb7\x00" if platform.machine() != "aarch64" else b"\x3e\x00"
    other.write_bytes(head)
    meter = BareMeter(board.device(program=str(other)), NativeRuntime(), QUICK)
    cutting["sessions"] = 0
    with pytest.raises(MeasurementError, match=rf"nasq-run-other is built for .*board says {platform.machine()}"):
        meter.measure(model)
    assert cutting["sessions"] == 0


def test_a_whole_search_needs_no_python_there_and_outlives_a_cut(board, tmp_path):
    peaks = "device.peaks={fp32_gmacs:20,int8_gmacs:40,bandwidth_gbs:10,op_overhead_us:2,source:assumed}"
    words = ["experiment=digits_toy", "study=bare", "budget=3", "accuracy.epochs=2", "executor=in_process", peaks]
    child = subprocess.Popen(
        [sys.executable, "-m", "nas", "search", *words, *board.sshd.words, "device.runner=nasq-run", "output=json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    was_cut = cut_a_session(board, child)
    output, errors = child.communicate(timeout=400)
    assert child.returncode == 0, errors[-3000:]
    assert was_cut
    report = json.loads(output.splitlines()[-1])
    assert report["trials"]["complete"] == 3
    for member in report["front"]:
        assert member["provenance"]["latency_ms"] == "measured"
    folder = tmp_path / Path(report["export"])
    card = json.loads((folder / "model_card.json").read_text())
    assert card["device"]["fingerprint"]["id"] == local_fingerprint().id
    assert card["verified"]["latency"]["runtime"].startswith("nasq-run-")
    assert (folder / "model.nasq").is_file()
    assert not board.told.exists()
    assert board.left() == []


def cut_a_session(board, child):
    """Cut a session once its program runs, and say whether there was one."""
    while child.poll() is None:
        if list(board.temporary.glob("hwnas-*/out")) and board.sshd.cut():
            return True
        threading.Event().wait(0.01)
    return False
