"""The runner on a board: what it answers to requests, and what it refuses."""

import base64
import hashlib
import io
import json

import pytest

from nas.device import local_fingerprint
from nas.measure.board import RUNTIMES, BoardRunner, Box, serve
from nas.measure.wire import CHUNK_BYTES, FRAME_BYTES, FrameError, decode, encode


def board_runner(folder):
    (folder / "box").mkdir(exist_ok=True)
    return BoardRunner(Box(folder / "box", limit_bytes=1000))


def send(runner, name, data, number, sha256=None):
    digest = sha256 or hashlib.sha256(data).hexdigest()
    runner.reply({"id": number, "request": "begin", "name": name, "size": len(data), "sha256": digest})
    return runner.reply({"id": number + 1, "request": "chunk", "data": base64.b64encode(data).decode()})


def test_each_id_is_answered_at_most_once(tmp_path):
    runner = board_runner(tmp_path)
    assert send(runner, "a", b"abc", 1) == {"ok": True, "written": 3, "id": 2}
    for number in (2, 1, -5, True, None, "3", 2.5):
        reply = runner.reply({"id": number, "request": "begin", "name": "b", "size": 0, "sha256": ""})
        assert not reply["ok"]
        assert "answered already" in reply["reason"]
    assert [path.name for path in (tmp_path / "box").iterdir()] == ["a"]
    assert send(runner, "b", b"x", 3)["ok"]


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", ".a", "", "a\0b", "a..b", "x" * 65, 7, None, "a~"])
def test_paths_outside_the_folder_are_refused(tmp_path, name):
    runner = board_runner(tmp_path)
    (tmp_path / "a").write_bytes(b"secret")
    begun = runner.reply({"id": 1, "request": "begin", "name": name, "size": 1, "sha256": ""})
    loaded = runner.reply({"id": 2, "request": "load", "models": [name], "anchor": "a", "memory_loads": 1})
    assert not begun["ok"]
    assert "own folder only" in begun["reason"] + loaded["reason"]
    assert not loaded["ok"]
    assert list((tmp_path / "box").iterdir()) == []


def test_links_in_the_folder_are_not_followed(tmp_path):
    runner = board_runner(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "box/a").symlink_to(tmp_path / "secret")
    reply = runner.reply({"id": 1, "request": "infer", "model": "a", "inputs": {}})
    assert "no file 'a' was received" in reply["reason"]


def test_files_arrive_whole_or_not_at_all(tmp_path):
    runner = board_runner(tmp_path)
    assert "arrived damaged" in send(runner, "a", b"abc", 1, "0" * 64)["reason"]
    runner.reply({"id": 3, "request": "begin", "name": "b", "size": 2, "sha256": hashlib.sha256(b"abc").hexdigest()})
    assert "arrived damaged: 3 of 2" in runner.reply({"id": 4, "request": "chunk", "data": "YWJj"})["reason"]
    assert not runner.reply({"id": 5, "request": "chunk", "data": "YWJj"})["ok"]
    for number, size in enumerate((1001, -1, "2"), start=6):
        assert not runner.reply({"id": number, "request": "begin", "name": "c", "size": size, "sha256": ""})["ok"]
    assert list((tmp_path / "box").iterdir()) == []


def test_requests_that_are_none_are_refused(tmp_path):
    runner = board_runner(tmp_path)
    for number, name in enumerate(("reply", "__init__", "_box", "", None, "shell"), start=1):
        assert "unknown request" in runner.reply({"id": number, "request": name})["reason"]
    start = {"arguments": {}, "threads": 1, "affinity": [], "memory_limit_mib": 1}
    for number, fields in enumerate(({"runtime": "os:system"}, {"runtime": RUNTIMES[0], "path": "anywhere"}), start=7):
        assert (
            "none that a board is sent" in runner.reply({"id": number, "request": "start", **fields, **start})["reason"]
        )
    energy = {"source": "command", "rails": [], "interval_s": 1, "window_s": 1, "latency_ms": 1}
    assert "not read on a board" in runner.reply({"id": 10, "request": "energy", **energy})["reason"]


NO_FRAMES = [b"no json\n", b"[]\n", b'{"id":1', b"x" * (FRAME_BYTES + 2) + b"\n", b"[" * 90000 + b"\n"]


@pytest.mark.parametrize("line", NO_FRAMES)
def test_a_runner_stops_at_what_is_no_frame(tmp_path, line):
    (tmp_path / "box").mkdir()
    replies = io.BytesIO()
    good = encode({"id": 1, "request": "nothing"})
    serve(io.BytesIO(line + good), replies, tmp_path / "box")
    greeting, *rest = replies.getvalue().splitlines()
    assert json.loads(greeting)["fingerprint"]["id"] == local_fingerprint().id
    assert rest == []


def test_frames_are_bounded():
    largest = {"data": base64.b64encode(bytes(CHUNK_BYTES)).decode()}
    assert decode(encode(largest)) == largest
    with pytest.raises(FrameError, match="at most"):
        encode({"data": "x" * FRAME_BYTES})
    with pytest.raises(ValueError):
        encode({"a": float("nan")})


def test_the_board_answers_with_energy_per_run(tmp_path, monkeypatch):
    readings = iter(range(0, 1000, 20))
    source = type("Source", (), {"name": "hwmon", "read_mj": lambda self: float(next(readings))})()
    monkeypatch.setattr("nas.measure.board.energy_source", lambda name, options: source)
    runner = board_runner(tmp_path)
    runner._runner.repeat = lambda model, seconds: {"runs": 10, "elapsed_s": seconds}
    fields = {"source": "hwmon", "rails": [], "interval_s": 0.005, "window_s": 0.1, "latency_ms": 1.0}
    reply = runner.reply({"id": 1, "request": "energy", **fields})
    assert reply == {"ok": True, "samples_mj": [2.0] * 7, "source": "hwmon", "id": 1}
