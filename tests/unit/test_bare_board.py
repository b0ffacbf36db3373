"""The shell's script of a board without Python, run by this machine's own shell in place of ssh."""

import subprocess
import time
from pathlib import Path

import pytest

from nas.config.compose import Request, resolve
from nas.device import Device, SshLink, local_fingerprint
from nas.errors import CandidateError, ConfigError, MeasurementError, ModelFileError
from nas.measure import bare, shell
from nas.measure.bare import ask_bare, run_bare
from nas.measure.bare_meter import BareMeter, _sample
from nas.measure.link import LinkCutError
from nas.measure.programs import find_program, machine_of
from nas.measure.settings import TimingSettings
from nas.measure.shell import Job, bundle, cksum
from nas.measure.ssh import check_link
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime

REPORT = '{\\"turns_us\\": [[[1.5]], [[3.0]]], \\"started_s\\": 1.0, \\"elapsed_s\\": 0.5, \\"isa\\": \\"portable\\"}'
LINK = SshLink("board", runner="nasq-run", tries=1)
BOARD = Device("board", "x86_64", 1, transport="ssh", reach=LINK)
TOOLS = ("sh", "cat", "mkdir", "rm", "uname", "id", "dd", "wc", "chmod", "env", "sleep")


def compiled(folder, body):
    """A program of this processor in place of nasq-run."""
    source = f"#include <stdio.h>\n#include <unistd.h>\nint main(int count, char** words) {{ {body} }}\n"
    target = folder / "program"
    subprocess.run(["gcc", "-x", "c", "-", "-o", target], input=source, text=True, check=True)
    return target.read_bytes()


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Runs a line as a board's login shell does, with a folder of its own for temporary files."""
    (tmp_path / "tmp").mkdir()

    def line(text, tools=None):
        path = f"PATH={tools}" if tools else "PATH=/usr/bin:/bin"
        # In a session of its own: what ends this end of the link does not end the board's.
        return ["setsid", "--wait", "env", "-i", path, f"TMPDIR={tmp_path / 'tmp'}", "sh", "-c", text]

    return line


def job(program, *, most_s=20, queue_s=0, **files):
    return Job({"nasq-run": program, **files}, ["model.nasq"], queue_s, most_s, 4096)


def run(board, given, check=lambda found: None):
    return run_bare(board, "board", 10.0, given, check)


def left(tmp_path):
    """What is still there after five seconds."""
    for _ in range(100):
        if not (kept := [path.name for path in (tmp_path / "tmp").iterdir()]):
            break
        time.sleep(0.05)
    return kept


def test_it_says_the_machine_as_python_does(board):
    assert ask_bare(board, "board", 10.0) == local_fingerprint()


def test_files_arrive_whole_and_the_report_comes_back(board, tmp_path):
    content = bytes(range(256)) * 48 + b"end"
    check = (
        'FILE* file = fopen(words[1], "rb"); long sum = 0, size = 0;'
        " for (int c; (c = fgetc(file)) != EOF; ++size) sum += c;"
        ' printf("{\\"sum\\": %ld, \\"size\\": %ld, \\"last\\": \\"%s\\"}\\n", sum, size, words[count - 2]); return 0;'
    )
    ran = run(board, job(compiled(tmp_path, check), **{"model.nasq": content}))
    assert ran.report == {"sum": sum(content), "size": len(content), "last": "--core"}
    assert ran.stolen_s is None or ran.stolen_s >= 0
    assert left(tmp_path) == []


@pytest.mark.parametrize("sums", [("sha256sum",), ("openssl",), ("cksum",)])
def test_it_uses_what_the_board_has_to_check_files(board, tmp_path, sums):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (*TOOLS, *sums):
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=False)
        if not found.stdout:
            pytest.skip(f"{name} is not installed here")
        (tools / name).symlink_to(found.stdout.strip())
    program = compiled(tmp_path, f'puts("{REPORT}"); return 0;')
    ran = run_bare(lambda text: board(text, tools), "board", 10.0, job(program), lambda found: None)
    assert ran.report["isa"] == "portable"


@pytest.mark.parametrize("sums", [b"", b"x"])
def test_posix_checksum(tmp_path, sums):
    content = sums * 5000
    told = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout.split()
    assert [cksum(content), len(content)] == [int(told[0]), int(told[1])]


def test_a_damaged_file_is_never_run(board, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    program = compiled(tmp_path, f'fopen("{ran}", "w"); return 0;')
    monkeypatch.setattr(bare, "bundle", lambda files: bundle(files)[:-5000] + bytes(5000))
    with pytest.raises(LinkCutError, match="nasq-run"):
        run(board, job(program))
    assert not ran.exists()
    assert left(tmp_path) == []


def test_a_crash_is_told_from_a_lost_link(board, tmp_path):
    with pytest.raises(CandidateError, match=r"died of SIG(ILL|TRAP)") as crashed:
        run(board, job(compiled(tmp_path, "__builtin_trap();")))
    assert crashed.value.kind == "crash"
    refused = 'fputs("nasq-run: the planned model was refused: it is cut off\\n", stderr); return 1;'
    with pytest.raises(ModelFileError, match="it is cut off"):
        run(board, job(compiled(tmp_path, refused)))
    with pytest.raises(MeasurementError, match=r"cannot run nasq-run \(status 2\): usage"):
        run(board, job(compiled(tmp_path, 'fputs("usage", stderr); return 2;')))
    with pytest.raises(MeasurementError, match="printed no report"):
        run(board, job(compiled(tmp_path, 'puts("[1]"); return 0;')))
    assert left(tmp_path) == []


def test_a_program_that_does_not_end_is_stopped(board, tmp_path):
    with pytest.raises(CandidateError, match="did not end in time") as late:
        run(board, job(compiled(tmp_path, "for (;;) pause();"), most_s=1))
    assert late.value.kind == "timeout"
    assert left(tmp_path) == []


def test_a_program_that_never_stops_printing_fills_no_disk(board, tmp_path):
    with pytest.raises(CandidateError, match="SIGXFSZ"):
        run(board, job(compiled(tmp_path, 'for (;;) puts("more");')))


def test_another_machine_gets_nothing(board, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(bare, "bundle", sent.append)

    def refuse(found):
        raise MeasurementError(f"it is {found.id}")

    with pytest.raises(MeasurementError, match=local_fingerprint().id):
        run(board, job(b"program"), refuse)
    assert sent == []


def test_sessions_take_turns(board, tmp_path):
    turn = tmp_path / "tmp" / f"hwnas-turn-{subprocess.check_output(['id', '-u'], text=True).strip()}"
    turn.mkdir()
    (turn / "pid").write_text("1\n")
    program = compiled(tmp_path, f'puts("{REPORT}"); return 0;')
    with pytest.raises(MeasurementError, match=f"busy.*remove {turn}"):
        run(board, job(program))
    gone = subprocess.Popen(["true"])
    gone.wait()
    (turn / "pid").write_text(f"{gone.pid}\n")  # whoever held it died
    assert run(board, job(program, queue_s=5)).report["isa"] == "portable"
    assert left(tmp_path) == []


def test_a_program_for_another_processor_is_refused_by_name(tmp_path):
    program = tmp_path / "nasq-run"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44))
    assert machine_of(program) == "aarch64"
    assert find_program("aarch64", str(program)) == program
    with pytest.raises(MeasurementError, match=r"nasq-run is built for aarch64, and the board says x86_64"):
        find_program("x86_64", str(program))
    program.write_text("#!/bin/sh\n")
    with pytest.raises(MeasurementError, match="no ELF program"):
        find_program("x86_64", str(program))
    with pytest.raises(MeasurementError, match=r"no such file.*make nasq-run-riscv64"):
        find_program("riscv64", None)


def test_what_such_a_board_does_not_do_is_refused_with_the_reason():
    timing = TimingSettings()
    with pytest.raises(MeasurementError, match=r"native runtime alone, and runtime is 'onnxruntime'.*runtime=native"):
        BareMeter(BOARD, OnnxRuntime(), timing)
    with pytest.raises(MeasurementError, match="energy source 'hwmon' is not read"):
        BareMeter(BOARD, NativeRuntime(), timing, "hwmon")
    with pytest.raises(MeasurementError, match="one thread"):
        BareMeter(Device("board", "x86_64", 4, threads=4, transport="ssh", reach=LINK), NativeRuntime(), timing)
    with pytest.raises(ConfigError, match="unknown runner 'nasqrun'"):
        check_link(SshLink("board", runner="nasqrun"))
    with pytest.raises(ConfigError, match=r"expected device.runner=nasq-run"):
        check_link(SshLink("board", program="nasq-run"))


def test_a_report_of_something_else_is_no_timing():
    good = {"turns_us": [[[1.5, 2.5]], [[3.0]]], "started_s": 1.0, "elapsed_s": 0.5}
    sample = _sample(bare.Ran(good, 0.01), 2, 5, "board")
    assert sample.blocks_ms == [[[0.0015, 0.0025]], [[0.003]]]
    for wrong in ({"turns_us": [[[1.5]]]}, {"turns_us": [[[1.5]], [[0]]]}, {"turns_us": [[], []]}, {"elapsed_s": "1"}):
        with pytest.raises(MeasurementError, match="is no timing of 2 models"):
            _sample(bare.Ran({**good, **wrong}, None), 2, 5, "board")


def test_the_runtime_follows_from_the_runner():
    board = ("device=ssh", "device.host=board", "device.runner=nasq-run")
    assert resolve(Request("search", board))["choices"]["runtime"] == "native"
    assert resolve(Request("search", (*board, "runtime=onnxruntime")))["choices"]["runtime"] == "onnxruntime"
    assert resolve(Request("search", board[:2]))["choices"]["runtime"] == "onnxruntime"
    several = ("devices={desk: local, board: ssh}", "devices.board.host=board", "devices.board.runner=nasq-run")
    assert resolve(Request("search", several))["choices"]["runtime"] == "native"


def test_the_script_survives_a_login_shell_that_quotes_by_its_own_rules():
    assert not set("'\\") & set(shell._FACTS + shell._SESSION)
    assert Path(shell.__file__).stat().st_size < 16_000  # a line of ssh's has room for it and 100 models
