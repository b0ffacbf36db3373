"""What runs on a board: a supervisor that owns a folder, and the runner in it that answers frames.

The supervisor ends the runner when the link is cut, says how it died when it dies, and removes the folder. The runner
reads no path outside the folder, answers each request id at most once, and says first which machine this is. Standard
library, numpy and the runtime are all that either needs.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nas.device import EnergyOptions, local_fingerprint
from nas.errors import MeasurementError
from nas.measure import host as machine
from nas.measure.energy import ON_BOARD, energy_per_run, energy_source
from nas.measure.runner import LAST_WAY, Runner, answer
from nas.measure.wire import FRAME_BYTES, PROTOCOL, FrameError, decode, encode

RUNTIMES = ("nas.runtime.onnx_runtime:OnnxRuntime",)
FOLDER_BYTES = 2 * 1024**3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LOCK_PAUSE_S = 0.2


@dataclass
class _Incoming:
    path: Path
    stream: BinaryIO
    size: int
    sha256: str
    written: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class Box:
    """The folder that a runner may read and write, filled over the link.

    Args:
        folder: empty.
        limit_bytes: that all files together may take.
    """

    def __init__(self, folder: Path, limit_bytes: int = FOLDER_BYTES) -> None:
        self._folder = folder.resolve()
        self._left = limit_bytes
        self._writing: _Incoming | None = None

    def path(self, name: str) -> Path:
        """Return the file of a name.

        Raises:
            MeasurementError: the name is no plain one, or no file of that name was received.
        """
        path = self._folder / self._plain(name)
        if path.is_symlink() or not path.is_file():
            raise MeasurementError(f"no file '{name}' was received; expected one that was sent before")
        return path

    def begin(self, name: str, size: int, sha256: str) -> dict[str, Any]:
        """Expect a file of so many bytes with this digest.

        Raises:
            MeasurementError: the name is no plain one or taken, or the file would not fit.
        """
        path = self._folder / self._plain(name)
        if path.exists() or self._writing is not None:
            raise MeasurementError(f"file '{name}' is there already, or another one is under way; expected a new one")
        if not 0 <= size <= self._left:
            raise MeasurementError(f"file '{name}' has {size} bytes; expected at most {self._left}")
        self._writing = _Incoming(path, path.with_name(f"{name}~").open("xb"), size, sha256)
        return {}

    def chunk(self, data: str) -> dict[str, Any]:
        """Append bytes in base64 and return how many are there; the file appears when it is whole and its digest right.

        Raises:
            MeasurementError: no file was begun, or the bytes are not those announced.
        """
        if self._writing is None:
            raise MeasurementError("bytes of no file; expected 'begin' first")
        file = self._writing
        piece = base64.b64decode(data, validate=True)
        file.stream.write(piece)
        file.digest.update(piece)
        file.written += len(piece)
        if file.written < file.size:
            return {"written": file.written}
        file.stream.close()
        self._writing = None
        part = file.path.with_name(f"{file.path.name}~")
        if file.written != file.size or file.digest.hexdigest() != file.sha256:
            part.unlink()
            raise MeasurementError(
                f"file '{file.path.name}' arrived damaged: {file.written} of {file.size} bytes, "
                f"SHA-256 {file.digest.hexdigest()}"
            )
        part.rename(file.path)
        self._left -= file.size
        return {"written": file.written}

    @staticmethod
    def _plain(name: str) -> str:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
            raise MeasurementError(
                f"'{str(name)[:100]}' is no plain file name; a runner reads and writes its own folder only"
            )
        return name


class BoardRunner:
    """The requests that come over the link; each name goes through the box before the runner sees a path."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._runner = Runner()
        self._last_id = 0

    def reply(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a frame, or refuse it where its id is not above all earlier ones."""
        number, name = frame.get("id"), frame.get("request")
        if not isinstance(number, int) or isinstance(number, bool) or number <= self._last_id:
            reason = f"request id {number!r} was answered already, or is none; expected one above {self._last_id}"
            return {"id": number, "ok": False, "kind": "MeasurementError", "reason": reason}
        self._last_id = number
        methods: dict[str, Callable[..., dict[str, Any]]] = {
            "start": self._start,
            "begin": self._box.begin,
            "chunk": self._box.chunk,
            "load": self._load,
            "time": self._runner.time,
            "repeat": self._runner.repeat,
            "energy": self._energy,
            "infer": self._infer,
        }
        fields = {key: value for key, value in frame.items() if key not in ("id", "request")}
        if not isinstance(name, str) or name not in methods:
            reason = f"unknown request {str(name)[:50]!r}; have {', '.join(methods)}"
            return {"id": number, "ok": False, "kind": "MeasurementError", "reason": reason}
        return {**answer(methods[name], fields), "id": number}

    def _start(self, runtime: str, path: str = "", **fields: Any) -> dict[str, Any]:
        if runtime not in RUNTIMES or path:
            raise MeasurementError(f"runtime '{runtime}' is none that a board is sent; have {', '.join(RUNTIMES)}")
        return self._runner.start(runtime, **fields)

    def _load(
        self, models: list[str], anchor: str, memory_loads: int, sizes: list[list[dict[str, int]]]
    ) -> dict[str, Any]:
        paths = [str(self._box.path(model)) for model in models]
        return self._runner.load(paths, str(self._box.path(anchor)), memory_loads, sizes)

    def _energy(self, source: str, rails: list[str], interval_s: float, window_s: float, latency_ms: float) -> Any:
        if source not in (*ON_BOARD, "measured"):
            raise MeasurementError(f"energy source '{source}' is not read on a board; have {', '.join(ON_BOARD)}")
        counter = energy_source(source, options=EnergyOptions(tuple(rails), (), interval_s))
        samples = energy_per_run(counter, lambda s: int(self._runner.repeat(LAST_WAY, s)["runs"]), latency_ms, window_s)
        return {"samples_mj": samples, "source": counter.name}

    def _infer(self, model: str, inputs: Mapping[str, str]) -> dict[str, Any]:
        """Run once on given inputs: name to a received ``.npy`` file; outputs come back whole, so they are small."""
        import numpy as np

        file = self._box.path(model)
        arrays = {name: np.load(self._box.path(sent), allow_pickle=False) for name, sent in inputs.items()}
        session = self._runner.runtime.load_checked(file, 1)  # type: ignore[attr-defined]
        outputs = [np.ascontiguousarray(output) for output in session.run(arrays)]
        if sum(output.nbytes for output in outputs) > FRAME_BYTES // 2:
            raise MeasurementError(f"outputs of more than {FRAME_BYTES // 2} bytes do not fit into a frame")
        return {
            "outputs": [
                {"dtype": str(o.dtype), "shape": list(o.shape), "data": base64.b64encode(o.tobytes()).decode()}
                for o in outputs
            ]
        }


def serve(requests: BinaryIO, replies: BinaryIO, folder: Path) -> None:
    """Say which machine this is, then answer frame by frame until the input ends or holds none."""
    runner = BoardRunner(Box(folder))
    hello = {"hwnas": PROTOCOL, "fingerprint": local_fingerprint().to_dict(), "python": platform.python_version()}
    replies.write(encode(hello))
    replies.flush()
    while line := requests.readline(FRAME_BYTES + 1):
        try:
            reply = runner.reply(decode(line))
        except FrameError as error:
            print(f"the runner stops: {error}", file=sys.stderr)
            return
        try:
            data = encode(reply)
        except ValueError as error:  # too long, or a number that is not finite
            reason = f"the answer cannot be sent: {error}"
            data = encode({"id": reply["id"], "ok": False, "kind": "MeasurementError", "reason": reason})
        replies.write(data)
        replies.flush()


def supervise(folder: str, code: str, lifetime_s: float, queue_s: float) -> int:
    """Run the runner in ``folder`` until it ends, the link is cut or its time is up; remove the folder.

    Args:
        folder: made for this session.
        code: archive with this package.
        lifetime_s: a link that vanished without a word keeps the board no longer than this; 0 serves in this very
            process, for an emulator that cannot start another one.
        queue_s: waits so long for another session's measurement to end; below 0 it measures nothing and need not wait.

    Returns:
        Exit status.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        if lifetime_s <= 0:
            _serve_streams(Path(folder))
            return 0
        with _alone(queue_s) as granted:
            if not granted:
                reason = f"another measurement kept the board for {queue_s:g} s; try again later, or stop it"
                _say({"hwnas": PROTOCOL, "busy": reason})
                return 1
            return _watch(folder, code, lifetime_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watch(folder: str, code: str, lifetime_s: float) -> int:
    # The kernel closes the writing end when the last process of the runner is gone.
    ended, held = os.pipe()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    box = Path(folder) / "box"
    box.mkdir(mode=0o700)
    child = subprocess.Popen(
        [sys.executable, code, str(box), str(os.getpid())], env=environment, pass_fds=[held], start_new_session=True
    )
    os.close(held)
    watched = select.poll()
    watched.register(0, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    watched.register(ended, select.POLLIN)
    try:
        happened = {descriptor for descriptor, _ in watched.poll(int(lifetime_s * 1000))}
        if ended in happened:
            status = child.wait()
            if status:
                _say({"died": status})
            return 0 if status == 0 else 1
        return 1
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _say(frame: Mapping[str, Any]) -> None:
    # What the runner was writing when it died has no end; a new line keeps this frame whole.
    with contextlib.suppress(OSError):
        os.write(1, b"\n" + encode(frame))


@contextlib.contextmanager
def _alone(queue_s: float) -> Iterator[bool]:
    """Hold this user's lock on the board; yields False where somebody else kept it too long."""
    if queue_s < 0:
        yield True
        return
    folder = Path(tempfile.gettempdir()) / f"hwnas-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "board.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + queue_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline or _link_is_cut():
                    yield False
                    return
                time.sleep(_LOCK_PAUSE_S)
            else:
                yield True
                return
    finally:
        os.close(descriptor)


def _link_is_cut() -> bool:
    poll = select.poll()
    poll.register(0, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def main() -> None:
    """Serve on standard input and output; what anything else prints goes to standard error."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    machine.die_with_parent(parent)
    _serve_streams(folder)


def _serve_streams(folder: Path) -> None:
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, replies, folder)


if __name__ == "__main__":
    main()
