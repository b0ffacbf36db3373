"""One search on two devices that are both timed: this machine, and a board behind ssh that is this machine too."""

import json
import os
import subprocess
import sys

import pytest

from nas.config.compose import Request, resolve
from nas.config.parts import Parts
from nas.measure import devices, ssh
from nas.store import StudyStore
from nas.testing.loopback import SSHD, Sshd

PEAKS = "{fp32_gmacs: 20.0, int8_gmacs: 80.0, bandwidth_gbs: 10.0, op_overhead_us: 1.0, source: made up}"
QUICK = ("accuracy.epochs=1", "accuracy.warmup_epochs=0", "proxies=[]", "calibration_images=8", "executor.workers=1")
TIMING = ("cost.timing.min_blocks=5", "cost.timing.max_blocks=5", "cost.timing.tries=1", "cost.timing.memory_loads=1")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Settings of a search on both."""
    if SSHD is None:
        text = "sshd is missing, so nothing is measured over ssh; install Debian's package openssh-server"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    server = Sshd(tmp_path_factory.mktemp("sshd") / "files")
    board = {"host": "board", "ssh_config": server.config, "python": sys.executable, "peaks": PEAKS}
    yield (
        "experiment=digits_toy",
        "devices={desk: local, board: ssh}",
        f"devices.desk.peaks={PEAKS}",
        *(f"devices.board.{key}={value}" for key, value in board.items()),
    )
    server.close()


@pytest.mark.timeout(600)
def test_it_reaches_its_end_with_a_front_and_an_export_on_each(words, tmp_path):
    command = [sys.executable, "-m", "nas", "search", *words, *QUICK, *TIMING, "budget=2", "study=two", "output=json"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=570, check=False)
    # A busy machine may fail an export, with its advice; the search is whole then.
    assert ended.returncode == 0 or "as a ratio to the anchor model" in ended.stderr, ended.stderr[-3000:]
    report = json.loads(ended.stdout.splitlines()[-1])
    assert report["trials"]["complete"] == 2
    assert set(report["devices"]) == {"desk", "board"}
    for name, own in report["devices"].items():
        assert own["front"], name
        assert {member["provenance"]["latency_ms"] for member in own["front"]} == {"measured"}
        assert own["measurements"]["search"] == 2
        assert own["measurements"]["settle"] >= 2 * len(own["front"])
    assert {(exchange["winner_of"], exchange["on"]) for exchange in report["exchanges"]} == {
        (winner, on) for winner in report["devices"] for on in report["devices"]
    }
    assert not any(exchange["estimated"] for exchange in report["exchanges"])
    store = StudyStore(tmp_path / "runs" / "two" / "store.sqlite")
    # What a worker is told of the board is no part of the study.
    assert "fingerprint" not in store.get("config")["devices"]["board"]
    store.close()


def test_a_worker_is_told_what_the_board_has_said_and_does_not_ask_it(words, tmp_path, monkeypatch):
    parts = Parts(resolve(Request("search", (*words, *QUICK))), tmp_path)
    asked = parts.others["board"].device

    def refuse(*_):
        raise AssertionError("the board was asked")

    monkeypatch.setattr(devices, "ask_once", refuse)
    monkeypatch.setattr(ssh, "ask", refuse)
    told = Parts(parts.config_of_workers(), tmp_path)
    assert told.others["board"].device == asked
    assert told.device == parts.device
    assert told.device_keys == {"device": parts.device.key, "device board": asked.key}
    with pytest.raises(AssertionError, match="was asked"):
        Parts(parts.config, tmp_path).others["board"].device  # noqa: B018
