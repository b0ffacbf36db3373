"""Starts the runner, talks to it under a deadline, and turns its death into a reason."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nas.errors import CandidateError, MeasurementError, ModelFileError

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "MemoryError", "failed to allocate memory", "Cannot allocate memory")
_ERRORS = {"ModelFileError": ModelFileError, "MeasurementError": MeasurementError}
_REASON_BYTES = 2000


class RunnerProcess:
    """A runner in a process group of its own; leaving the context kills the whole group."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._pending = b""
        environment = {
            **os.environ,
            # The runner finds modules where this process found them, whichever folder it was started from.
            "PYTHONPATH": os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path),
            # numpy's own threads would cost start-up time and memory.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nas.measure.runner", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Process id, which is also that of its group."""
        return self._process.pid

    def request(self, name: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Send a request and return the reply's fields.

        Raises:
            CandidateError: kind ``crash``, ``timeout``, ``memory`` or ``error``.
            ModelFileError: the runtime refused the file.
            MeasurementError: the request makes no sense for this model.
        """
        deadline = time.monotonic() + timeout_s
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the reason is found when the reply is read
            self._process.stdin.write(json.dumps({"request": name, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        line = self._read_line(deadline)
        if line is None:
            self._kill()
            raise CandidateError("timeout", f"no answer to '{name}' within {timeout_s:g} s; the process was killed")
        if not line:
            raise self._death(name)
        reply: dict[str, Any] = json.loads(line)
        if reply.pop("ok"):
            return reply
        kind, reason = reply["kind"], reply["reason"]
        if kind in _ERRORS:
            raise _ERRORS[kind](reason)
        if kind == "error" and any(sign.lower() in reason.lower() for sign in _OUT_OF_MEMORY):
            kind = "memory"
        raise CandidateError(kind, reason)

    def _read_line(self, deadline: float) -> bytes | None:
        """Return a line, nothing at the end of the stream, or None when the time is up."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return b""
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _death(self, request: str) -> CandidateError:
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._kill()
            return CandidateError("crash", f"the process closed its output during '{request}' and was killed")
        said = self._tail()
        heard = f"; it said: {said}" if said else ""
        if any(sign in said for sign in _OUT_OF_MEMORY):
            return CandidateError("memory", f"the process ran out of memory during '{request}'{heard}")
        if status < 0:
            name = signal.Signals(-status).name
            hint = ", which is what the kernel sends when the machine runs out of memory" if name == "SIGKILL" else ""
            return CandidateError("crash", f"the process died of {name}{hint} during '{request}'{heard}")
        return CandidateError("crash", f"the process ended with status {status} during '{request}'{heard}")

    def _tail(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _REASON_BYTES))
        return self._errors.read().decode(errors="replace").strip()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
