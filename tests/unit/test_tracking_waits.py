"""That a search never waits for MLflow: slow, silent, absent or refusing stores, and what addresses mean."""

from __future__ import annotations

import inspect
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import nas
from nas.errors import ConfigError
from nas.protocols import SearchSnapshot, Tracker
from nas.testing.snapshots import make_snapshot
from nas.tracking import content
from nas.tracking.address import resolve_address
from nas.tracking.mlflow_tracker import MlflowTracker
from nas.tracking.none import NoTracker


class Recorder:
    """Stands for the writer: takes its time and notes what it was given."""

    def __init__(self, failures: int = 0) -> None:
        self.seen: list[tuple[int, bool]] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.failures = failures
        self.written: int | None = None

    def write(self, snapshot: SearchSnapshot, with_files: bool) -> tuple[str, str]:
        self.seen.append((len(snapshot.evaluations), with_files))
        self.entered.set()
        assert self.go_on.wait(60)
        if self.failures:
            self.failures -= 1
            raise OSError("database is locked")
        self.written = len(content.candidates(snapshot))
        return "1", "run"


def tracker_on(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> MlflowTracker:
    tracker = MlflowTracker(f"sqlite:///{tempfile.mkdtemp()}/mlflow.db", **settings)
    monkeypatch.setattr(tracker, "_connect", lambda: recorder)
    return tracker


def test_only_the_newest_snapshot_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    tracker = tracker_on(recorder, monkeypatch, files_every_s=1e9)
    for trials in (1, 2, 3, 4):
        tracker.update(make_snapshot(tmp_path, trials=trials))
        assert recorder.entered.wait(60)  # the first is under way while the others arrive
    recorder.go_on.set()
    assert "->" in tracker.close(60.0)
    assert recorder.seen[0] == (1, False)
    assert recorder.seen[-1] == (4, True)
    assert {trials for trials, _ in recorder.seen} == {1, 4}


def test_an_error_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(failures=2)
    recorder.go_on.set()
    tracker = tracker_on(recorder, monkeypatch)
    tracker.update(make_snapshot(tmp_path, trials=3))
    assert "->" in tracker.close(60.0)
    assert len(recorder.seen) == 3


def test_a_store_that_refuses_is_given_up_with_the_way_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(failures=100)
    recorder.go_on.set()
    tracker = tracker_on(recorder, monkeypatch, folder="elsewhere")
    tracker.update(make_snapshot(tmp_path, trials=3))
    line = tracker.close(60.0)
    assert "3 of 3 candidates are not written (OSError: database is locked)" in line
    assert line.endswith("nas search resume=synthetic folder=elsewhere")
    assert len(recorder.seen) < 10
    assert "\n" not in line


def test_a_slow_store_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    tracker = tracker_on(recorder, monkeypatch)
    tracker.update(make_snapshot(tmp_path, trials=3))
    assert recorder.entered.wait(60)
    tracker.update(make_snapshot(tmp_path, trials=4))
    # Both return although the first write is still under way, which the recorder proves: it was not let go.
    assert "the time is up" in tracker.close(0.1)
    assert not recorder.go_on.is_set()
    recorder.go_on.set()


def test_an_unreachable_server_is_no_error_of_the_search(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        tracker = MlflowTracker(f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}", request_timeout_s=1)
        tracker.update(make_snapshot(tmp_path, trials=3))
        line = tracker.close(60.0)
    assert "3 of 3 candidates are not written" in line
    assert "nas search resume=synthetic" in line
    assert "secret" not in line


@pytest.fixture
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that accepts connections and never answers."""
    called, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def accept() -> None:
            held = []
            while not over.is_set():
                try:
                    held.append(server.accept()[0])
                    called.set()
                except TimeoutError:
                    pass
            for connection in held:
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", called
        over.set()
        thread.join()


def test_a_silent_server_does_not_hold_close(tmp_path: Path, silent_server: tuple[str, threading.Event]) -> None:
    uri, called = silent_server
    tracker = MlflowTracker(uri, request_timeout_s=5)
    tracker.update(make_snapshot(tmp_path, trials=3))
    assert called.wait(60)
    assert "3 of 3 candidates are not written" in tracker.close(0.1)


def test_relative_stores_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = resolve_address("sqlite:///runs/mlflow/mlflow.db", None)
    assert address.uri == f"sqlite:///{tmp_path}/runs/mlflow/mlflow.db"
    assert address.artifacts == (tmp_path / "runs/mlflow/artifacts").as_uri()


@pytest.mark.parametrize("uri", ["runs/mlflow", "file:///tmp/mlruns", "sqlite:///", "ftp://host"])
def test_stores_that_mlflow_cannot_use_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="expected sqlite:///FOLDER"):
        MlflowTracker(uri)


def test_a_database_needs_a_place_for_files() -> None:
    with pytest.raises(ConfigError, match=r"tracking\.artifacts") as caught:
        MlflowTracker("postgresql://user:secret@host/base")
    assert "secret" not in str(caught.value)


def test_a_server_needs_no_command() -> None:
    address = resolve_address("https://mlflow.example/", None)
    assert address.command(5000) is None
    assert address.page(5000, "3") == "https://mlflow.example/#/experiments/3/runs?workflowType=machine_learning"


def test_no_tracker_is_a_tracker(tmp_path: Path) -> None:
    tracker: Tracker = NoTracker()
    tracker.update(make_snapshot(tmp_path))
    assert "tracking=mlflow" in tracker.close(0.0)


@pytest.mark.parametrize(("name", "maker"), [("mlflow", MlflowTracker), ("none", NoTracker)])
def test_yaml_names_the_arguments_of_its_class(name: str, maker: type) -> None:
    path = Path(nas.__file__).parents[1] / "conf" / "tracking" / f"{name}.yaml"
    settings = yaml.safe_load(path.read_text())
    assert settings.pop("_target_") == f"{maker.__module__}.{maker.__name__}"
    assert set(settings) == set(inspect.signature(maker).parameters) - {"folder", "gate"}
