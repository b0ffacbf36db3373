"""This machine's end of the link to a board, without ssh between them."""

import os
import shlex
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nas.device import Device, EnergyOptions, SshLink, local_fingerprint
from nas.errors import CandidateError, ConfigError, MeasurementError
from nas.measure import peaks, ssh
from nas.measure.archive import runner_archive, start_arguments
from nas.measure.devices import make_device
from nas.measure.link import LinkCutError, LinkedRunner
from nas.measure.settings import TimingSettings
from nas.measure.ssh import SshMeter, check_link, ssh_command
from nas.measure.stream import ChildStream
from nas.measure.wire import FRAME_BYTES, encode
from nas.measurement import Measurement
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.runtime_suite import write_dense

QUICK = TimingSettings(
    min_blocks=3, max_blocks=3, block_runs=3, warmup_s=0.0, tries=1, realtime=False, memory_loads=1, timeout_s=30.0
)
LINK = SshLink("board", tries=1)
BOARD = Device("board", "any", os.cpu_count() or 1, transport="ssh", fingerprint=local_fingerprint(), reach=LINK)
NUMBER = Measurement(1.0, 1.0, 0.1, 9, 5, "ms", "d", "r", 0.0)
HELLO = {"hwnas": 1, "fingerprint": local_fingerprint().to_dict(), "python": "3.11.2"}

# Passes so many lines of a runner on, and so many bytes of the next one (-1: all but its end); then it is gone.
RELAY = """
import os, subprocess, sys
lines, more = int(sys.argv[1]), int(sys.argv[2])
runner = subprocess.Popen(sys.argv[3:], stdout=subprocess.PIPE)
for _ in range(lines):
    os.write(1, runner.stdout.readline())
if more:
    os.write(1, runner.stdout.readline()[:more])
runner.kill()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "dense.onnx"
    write_dense(path, np.ones((64, 64), np.float32))
    return path


def local_runner(lifetime_s=60.0, queue_s=-1.0):
    return [sys.executable, *start_arguments(lifetime_s, queue_s)]


def test_the_archive_needs_numpy_and_onnxruntime_alone(model, tmp_path, monkeypatch):
    for package in (Path(np.__file__).parent, Path(onnxruntime.__file__).parent):
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                (tmp_path / part.name).symlink_to(part)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # -S: no site-packages, and so no installed copy of this package either.
    command = [sys.executable, "-S", *start_arguments(0.0, -1.0)]
    monkeypatch.setattr(ssh, "ssh_command", lambda *args: command)
    costs = SshMeter(BOARD, OnnxRuntime(), QUICK).measure(model)
    assert costs["latency_ms"].count == 9
    assert costs["latency_ms"].runtime == OnnxRuntime().version


def test_a_link_that_ends_anywhere_gives_no_number(model, monkeypatch):
    last = answers(model) - 1
    # Within the greeting, before the first answer, within the second; before, within and at the end of the last.
    for lines, more in ((0, 10), (1, 0), (2, 5), (last, 0), (last, 30), (last, -1)):
        command = [sys.executable, "-c", RELAY, str(lines), str(more), *local_runner()]
        monkeypatch.setattr(ssh, "ssh_command", lambda *args, command=command: command)
        with pytest.raises(MeasurementError, match="the link to board was lost"):
            SshMeter(BOARD, OnnxRuntime(), QUICK).measure(model)


def answers(model):
    """How many lines a runner says during a measurement that ends well."""
    said = []
    read = ChildStream.read_line

    def spy(self, deadline):
        line = read(self, deadline)
        said.append(line)
        return line

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChildStream, "read_line", spy)
        patch.setattr(ssh, "ssh_command", lambda *args: local_runner())
        SshMeter(BOARD, OnnxRuntime(), QUICK).measure(model)
    assert all(line.endswith(b"\n") for line in said)
    return len(said)


def test_a_second_measurement_waits_for_the_first_or_says_busy(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with LinkedRunner(local_runner(queue_s=0.0), "board", 30.0) as first:
        assert first.fingerprint == local_fingerprint()
        with pytest.raises(MeasurementError, match=r"busy: another measurement kept the board for 0\.2 s"):
            LinkedRunner(local_runner(queue_s=0.2), "board", 30.0)
    with LinkedRunner(local_runner(queue_s=20.0), "board", 30.0) as second:
        assert second.fingerprint == local_fingerprint()


def test_a_session_ends_when_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with LinkedRunner(local_runner(lifetime_s=0.5), "board", 30.0) as runner:
        wait_until(lambda: not list(tmp_path.glob("hwnas-*")))
        with pytest.raises(LinkCutError):
            runner.request("repeat", 10.0, model=0, seconds=0.1)


def wait_until(true):
    for _ in range(400):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within 20 s")


def peer(*lines):
    """A program that says these lines, whatever it hears, and then waits."""
    data = b"".join(line if isinstance(line, bytes) else encode(line) for line in lines)
    packed = zlib.compress(data)
    say = f"sys.stdout.buffer.write(zlib.decompress({packed!r})); sys.stdout.flush()"
    code = f"import sys, time, zlib; {say}; time.sleep(60)"
    return [sys.executable, "-I", "-S", "-c", code]


def ended_peer(*lines):
    return [word.replace("time.sleep(60)", "0") for word in peer(*lines)]


def ask(command, timeout_s=20.0):
    with LinkedRunner(command, "board", 20.0) as runner:
        return runner.request("time", timeout_s)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b'{"id":1,"ok":tr', "it was closed"),
        (b'{"id":1,"ok":tru\n', "no JSON"),
        (b"[1]\n", "a list in place of an object"),
        ({"id": 2, "ok": True}, "no answer to request 1"),
        ({"ok": True}, "no answer to request 1"),
        ({"id": 1, "ok": 1}, "no answer to request 1"),
        ({"id": 1, "ok": False}, "without a reason"),
        (b"x" * (FRAME_BYTES + 10), "frame of more than|without its end"),
    ],
)
def test_what_is_no_whole_answer_is_a_cut_link(says, reason):
    with pytest.raises(LinkCutError, match=reason):
        ask(ended_peer(HELLO, says))


def test_an_answer_given_twice_is_not_taken_for_the_next_one():
    reply = {"id": 1, "ok": True, "x": 1}
    with LinkedRunner(peer(HELLO, reply, reply), "board", 20.0) as runner:
        assert runner.request("start", 20.0) == {"x": 1}
        with pytest.raises(LinkCutError, match="no answer to request 2"):
            runner.request("time", 20.0)


def test_a_greeting_of_the_login_shell_is_skipped_but_not_for_ever():
    assert ask(peer(b"Welcome to Raspbian\n", b"{}\n", HELLO, {"id": 1, "ok": True, "a": 2})) == {"a": 2}
    with pytest.raises(MeasurementError, match="no greeting of a runner"):
        ask(peer(b"noise\n" * 300))


def test_silence_is_a_timeout():
    with pytest.raises(CandidateError, match=r"timeout: no answer to 'time' from board within 0\.2 s"):
        ask(peer(HELLO), timeout_s=0.2)


@pytest.mark.parametrize(
    ("hello", "says"),
    [
        ({**HELLO, "hwnas": 7}, "speaks protocol 7; expected 1"),
        ({**HELLO, "fingerprint": {**HELLO["fingerprint"], "cpu": "faster"}}, "did not say which machine it is"),
        ({**HELLO, "fingerprint": {"cpu": 1}}, "did not say which machine it is"),
        ({"hwnas": 1}, "did not say which machine it is"),
    ],
)
def test_a_peer_that_is_no_runner_of_ours_is_refused(hello, says):
    with pytest.raises(MeasurementError, match=says):
        ask(peer(hello))


def test_the_death_of_the_runner_is_the_candidates_and_not_the_links():
    with pytest.raises(CandidateError, match="crash: the process died of SIGSEGV during 'time'"):
        ask(ended_peer(HELLO, b"\n", {"died": -11}))


@pytest.mark.parametrize("host", ["-oProxyCommand=reboot", "", "a b", "a\nb", "a\tb"])
def test_hosts_that_ssh_would_take_for_an_option_are_refused(host):
    with pytest.raises(ConfigError, match=r"device\.host=.*does not begin with '-'"):
        check_link(SshLink(host))
    with pytest.raises(ConfigError, match=r"device\.python="):
        check_link(SshLink("board", python=host))


def test_the_command_asks_nothing_and_a_shell_reads_it_as_it_was_meant():
    command = ssh_command(SshLink("pi@board", "my/python3", "config file"), 60.0, 5.0)
    assert command[0] == "ssh"
    assert command[-3:-1] == ["--", "pi@board"]
    assert command[command.index("-F") + 1] == "config file"
    assert {"BatchMode=yes", "ClearAllForwardings=yes", "ForwardAgent=no"} <= set(command)
    words = shlex.split(command[-1])
    assert words == ["exec", "my/python3", *start_arguments(60.0, 5.0)]
    assert not set("'$`\\!") & set(start_arguments(60.0, 5.0)[2])


def test_the_archive_is_small_and_always_the_same():
    first = runner_archive()
    runner_archive.cache_clear()
    assert runner_archive() == first
    assert len(first) < 50_000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"transport": "ssh"}, r"lacks host; give it by device\.host=VALUE"),
        ({"transport": "ssh", "host": "-v"}, "does not begin with"),
        ({"transport": "local", "host": "a"}, "expected transport=ssh"),
        ({"transport": "emulated"}, "lacks root"),
        ({"transport": "replay"}, "lacks recording"),
        ({"transport": "local", "recording": "a"}, "expected transport=replay"),
        ({"energy_window_s": 0.0}, "energy_window_s=0"),
    ],
)
def test_settings_of_another_transport_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        make_device("board", **settings)


def test_a_runtime_that_cannot_be_sent_is_refused():
    class Other(OnnxRuntime):
        pass

    with pytest.raises(MeasurementError, match="is not sent to boards"):
        SshMeter(BOARD, Other(), QUICK)


def test_another_board_under_the_same_name_is_noticed(model, monkeypatch):
    monkeypatch.setattr(ssh, "ssh_command", lambda *args: local_runner())
    other = replace(BOARD, fingerprint=replace(BOARD.fingerprint, cpu="another"))
    with pytest.raises(MeasurementError, match="but the machine that answers is"):
        SshMeter(other, OnnxRuntime(), QUICK).measure(model)


def test_a_model_in_several_files_is_not_sent(tmp_path):
    (tmp_path / "m.data").write_bytes(bytes(64 * 64 * 4))
    write_dense(tmp_path / "m.onnx", np.ones((64, 64), np.float32), external="m.data")
    with pytest.raises(MeasurementError, match="save it as one file"):
        SshMeter(BOARD, OnnxRuntime(), QUICK).measure(tmp_path / "m.onnx")


def test_peaks_are_measured_over_the_link_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ssh, "ssh_command", lambda *args: local_runner())
    monkeypatch.setattr(peaks, "MATMUL_SIZE", 64)
    monkeypatch.setattr(peaks, "LINKED_COPY_BYTES", 1 << 20)
    cache = tmp_path / "peaks.json"
    found = peaks.linked_peaks(SshMeter(BOARD, OnnxRuntime(), QUICK).compare, BOARD.fingerprint, cache)
    assert "over the link" in found.source
    assert min(found.fp32_gmacs, found.int8_gmacs, found.bandwidth_gbs) > 0
    assert found.op_overhead_us >= 0
    assert peaks.linked_peaks(lambda *args: pytest.fail("measured again"), BOARD.fingerprint, cache) == found


def test_a_command_of_the_users_runs_here_and_counts_what_the_board_computes(model, monkeypatch, tmp_path):
    monkeypatch.setattr(ssh, "ssh_command", lambda *args: local_runner())
    count = tmp_path / "count"
    count.write_text("0")
    (tmp_path / "meter.py").write_text(
        f"import pathlib\np = pathlib.Path({str(count)!r})\nn = int(p.read_text()) + 2\np.write_text(str(n))\n"
        "print(n)\n"
    )
    options = EnergyOptions(command=(sys.executable, str(tmp_path / "meter.py")), window_s=0.02)
    board = replace(BOARD, energy_source="command", energy_options=options)
    costs = SshMeter(board, OnnxRuntime(), QUICK).measure(model)
    assert costs["energy_mj"].unit == "mJ"
    assert costs["energy_mj"].count == 7
    assert 0 < costs["energy_mj"].median < 2000


def test_a_sensor_of_the_boards_is_read_there(model, monkeypatch):
    asked = {}

    def request(self, name, timeout_s, /, **fields):
        asked.update(fields)
        return {"samples_mj": [1.0, 2.0, 3.0], "source": "hwmon"}

    options = EnergyOptions(rails=("VDD_IN",), window_s=0.25)
    board = replace(BOARD, energy_source="hwmon", energy_options=options)
    meter = SshMeter(board, OnnxRuntime(), QUICK)
    assert meter.has_energy
    runner = type("Runner", (), {"request": request})()
    energy = meter._take_energy(runner, replace(NUMBER, median=3.0), "id")
    assert (energy.median, energy.unit, energy.count, energy.device) == (2.0, "mJ", 3, "id")
    assert asked == {"source": "hwmon", "rails": ("VDD_IN",), "interval_s": 0.005, "window_s": 0.25, "latency_ms": 3.0}
