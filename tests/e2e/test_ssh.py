"""A board over ssh: a whole search against an sshd on loopback, and the link cut at every step."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nas.cli import devices
from nas.config.compose import Request, resolve
from nas.device import local_fingerprint
from nas.errors import MeasurementError
from nas.measure.devices import make_device
from nas.measure.link import LinkedRunner
from nas.measure.settings import TimingSettings
from nas.measure.ssh import SshMeter
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.loopback import SSHD, Sshd
from nas.testing.runtime_suite import write_dense

QUICK = TimingSettings(
    min_blocks=3, max_blocks=3, block_runs=3, warmup_s=0.0, tries=1, realtime=False, memory_loads=1, timeout_s=30.0
)
STEPS = ("start", "begin", "chunk", "load", "time")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    if SSHD is None:
        text = "sshd is missing, so nothing is measured over ssh; install Debian's package openssh-server"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    server = Sshd(tmp_path_factory.mktemp("sshd") / "files")
    yield server
    server.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "dense.onnx"
    write_dense(path, np.ones((64, 64), np.float32))
    return path


def device(sshd, **settings):
    fields = {"python": sys.executable, "ssh_config": str(sshd.config), "pause_s": 0.05, "tries": 2, **settings}
    return make_device("board", transport="ssh", host="board", **fields)


@pytest.fixture(scope="module")
def board(sshd, tmp_path_factory):
    """The device, and the folder where its temporary files lie."""
    folder = tmp_path_factory.mktemp("board")
    return SimpleNamespace(device=device(sshd, python=wrapper(folder)), folder=folder / "tmp")


@pytest.fixture
def cutting(monkeypatch, sshd):
    """Cuts the link when a request of a certain name is about to be sent, so many times; counts the sessions."""
    plan = {"step": "", "left": 0, "sessions": 0}
    begin, request = LinkedRunner.__init__, LinkedRunner.request

    def spied_begin(self, *args):
        plan["sessions"] += 1
        begin(self, *args)

    def spied_request(self, name, /, *args, **fields):
        if name == plan["step"] and plan["left"] > 0:
            plan["left"] -= 1
            threading.Timer(0.2, sshd.cut).start() if plan["late"] else sshd.cut()
        return request(self, name, *args, **fields)

    monkeypatch.setattr(LinkedRunner, "__init__", spied_begin)
    monkeypatch.setattr(LinkedRunner, "request", spied_request)
    return plan


def test_a_board_is_asked_which_machine_it_is(board):
    assert board.device.fingerprint == local_fingerprint()
    assert (board.device.isa, board.device.cores) == (os.uname().machine, os.cpu_count())


@pytest.mark.parametrize("step", STEPS)
def test_a_link_cut_once_costs_a_session_and_no_number(board, model, cutting, step):
    cutting.update(step=step, left=1, late=False)
    costs = SshMeter(board.device, OnnxRuntime(), QUICK).measure(model)
    assert cutting["sessions"] == 2
    assert costs["latency_ms"].count == 9
    assert costs["latency_ms"].device == local_fingerprint().id
    assert costs["memory_kib"].count == 1
    assert left_behind(board.folder) == []


@pytest.mark.parametrize("late", [False, True])
def test_a_link_cut_every_time_is_a_reason(board, model, cutting, late):
    cutting.update(step="time", left=2, late=late)
    settings = replace(QUICK, warmup_s=1.0)  # so that timing is under way when the late cut comes
    with pytest.raises(MeasurementError, match=r"2 tries.*the link to board was lost during 'time'"):
        SshMeter(board.device, OnnxRuntime(), settings).measure(model)
    assert cutting["sessions"] == 2


def wrapper(folder):
    """An interpreter whose temporary files lie in ``folder/tmp``."""
    (folder / "tmp").mkdir()
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nTMPDIR={folder}/tmp exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def left_behind(folder):
    """Folders of sessions that are still on the board after five seconds; the one for the lock stays."""
    for _ in range(100):
        kept = list(folder.glob("hwnas-*/code.zip"))
        if not kept:
            break
        threading.Event().wait(0.05)
    return kept


def test_a_board_that_refuses_the_login_is_a_reason(sshd, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    config = tmp_path / "config"
    config.write_text(sshd.config.read_text().replace(str(sshd.folder / "user"), str(tmp_path / "other")))
    with pytest.raises(MeasurementError, match=r"2 tries.*Permission denied.*works without a question"):
        device(sshd, ssh_config=str(config))


def test_a_board_without_the_interpreter_says_so(sshd):
    with pytest.raises(MeasurementError, match="nowhere/python"):
        device(sshd, python="nowhere/python", tries=1)


def test_nas_devices_says_whether_a_board_is_in_reach(sshd, capsys):
    words = [*sshd.words, f"device.python={sys.executable}", "device.tries=1", "measure=false", "output=json"]
    assert show(words, capsys)["offers"].startswith("in reach over ssh")
    away = show([*words, "device.host=-v"], capsys)
    assert "does not begin with '-'" in away["error"]
    away = show([*words, "device.python=nowhere/python"], capsys)
    assert "the link to board was lost" in away["error"]


def show(words, capsys):
    capsys.readouterr()
    assert devices.run(resolve(Request("devices", tuple(words), None))) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["devices"]
    return row


def test_a_whole_search_outlives_a_cut_link(sshd, tmp_path):
    peaks = "device.peaks={fp32_gmacs:20,int8_gmacs:40,bandwidth_gbs:10,op_overhead_us:2,source:assumed}"
    board = [*sshd.words, peaks, "device.pause_s=0.1", f"device.python={wrapper(tmp_path)}"]
    words = ["experiment=digits_toy", "study=board", "budget=3", "accuracy.epochs=2", "executor=in_process"]
    child = subprocess.Popen(
        [sys.executable, "-m", "nas", "search", *words, *board, "output=json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    cuts = [cut_a_session(sshd, child, tmp_path / "tmp") for _ in range(2)]
    output, errors = child.communicate(timeout=200)
    assert child.returncode == 0, errors[-3000:]
    assert cuts == [True, True]
    report = json.loads(output.splitlines()[-1])
    assert report["trials"]["complete"] == 3
    assert report["shipped"] is not None
    for member in report["front"]:
        assert member["provenance"]["latency_ms"] == "measured"
    card = json.loads((tmp_path / Path(report["export"]) / "model_card.json").read_text())
    assert card["device"]["fingerprint"]["id"] == local_fingerprint().id
    assert card["verified"]["latency"]["count"] > 0


def cut_a_session(sshd, child, folder):
    """Cut a session once its runner has a model, and say whether there was one."""
    while child.poll() is None:
        if list(folder.glob("hwnas-*/box/*.bin")) and sshd.cut():
            return True
        threading.Event().wait(0.01)
    return False
