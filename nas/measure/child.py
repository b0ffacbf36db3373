"""Starts the runner, talks to it under a deadline, and turns its death into a reason."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nas.errors import CandidateError, MeasurementError, ModelFileError
from nas.measure.stream import ChildStream

_OUT_OF_MEMORY = (
    *("bad_alloc", "bad allocation", "MemoryError", "failed to allocate memory", "Cannot allocate memory"),
    "more memory than there is",  # our own runtime and nasq-run
)
_ERRORS = {"ModelFileError": ModelFileError, "MeasurementError": MeasurementError}


class RunnerProcess:
    """A runner in a process group of its own; leaving the context kills the whole group."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            # The runner finds modules where this process found them, whichever folder it was started from.
            "PYTHONPATH": os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path),
            # numpy's own threads would cost start-up time and memory.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-P", "-m", "nas.measure.runner", str(os.getpid())]
        self._stream = ChildStream(command, environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def pid(self) -> int:
        """Process id, which is also that of its group."""
        return self._stream.pid

    def place(self, model: Path) -> str:
        """Return the name by which the runner finds a file: its absolute path."""
        return str(model.resolve())

    def request(self, name: str, timeout_s: float, /, **fields: Any) -> dict[str, Any]:
        """Send a request and return the reply's fields.

        Raises:
            CandidateError: kind ``crash``, ``timeout``, ``memory`` or ``error``.
            ModelFileError: the runtime refused the file.
            MeasurementError: the request makes no sense for this model.
        """
        deadline = time.monotonic() + timeout_s
        # Where nothing could be written the reason is found when the reply is read.
        self._stream.write(json.dumps({"request": name, **fields}).encode() + b"\n", deadline)
        line = self._stream.read_line(deadline)
        if line is None:
            self._stream.kill()
            raise CandidateError("timeout", f"no answer to '{name}' within {timeout_s:g} s; the process was killed")
        if not line:
            raise self._death(name)
        return fields_of(json.loads(line))

    def _death(self, request: str) -> CandidateError:
        status = self._stream.status(5)
        if status is None:
            self._stream.kill()
            return CandidateError("crash", f"the process closed its output during '{request}' and was killed")
        return death(status, request, self._stream.tail())


def fields_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a runner answered, or raise the failure that it reports.

    Raises:
        CandidateError, ModelFileError, MeasurementError: as the runner says.
    """
    if reply["ok"]:
        return {key: value for key, value in reply.items() if key != "ok"}
    kind, reason = str(reply["kind"]), str(reply["reason"])
    if kind in _ERRORS:
        raise _ERRORS[kind](reason)
    if kind == "error" and any(sign.lower() in reason.lower() for sign in _OUT_OF_MEMORY):
        kind = "memory"
    raise CandidateError(kind, reason)


def death(status: int, request: str, said: str) -> CandidateError:
    """Return why a runner ended.

    Args:
        status: exit status, negative for a signal.
        request: that was not answered.
        said: end of its standard error.
    """
    heard = f"; it said: {said}" if said else ""
    if any(sign in said for sign in _OUT_OF_MEMORY):
        return CandidateError("memory", f"the process ran out of memory during '{request}'{heard}")
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", which is what the kernel sends when the machine runs out of memory" if name == "SIGKILL" else ""
        return CandidateError("crash", f"the process died of {name}{hint} during '{request}'{heard}")
    return CandidateError("crash", f"the process ended with status {status} during '{request}'{heard}")
