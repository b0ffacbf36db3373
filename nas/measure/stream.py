"""A child process that is spoken to by lines, every read and write under a deadline."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

_TAIL_BYTES = 2000
_READ_BYTES = 1 << 16


class ChildStream:
    """A child in a process group of its own; what it writes to standard error is kept for the reason of its death.

    Args:
        command: program and arguments.
        environment: of the child, or None for this process's own.
        longest_line: bytes after which a line is given up, or None.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, longest_line: int | None = None
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._pending = b""
        self._longest = longest_line
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=None if environment is None else dict(environment),
                start_new_session=True,
                bufsize=0,
            )
        except OSError:
            self._errors.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        # A child that does not read must not hold us beyond the deadline.
        os.set_blocking(self._in.fileno(), False)

    @property
    def pid(self) -> int:
        """Process id, which is also that of its group."""
        return self._process.pid

    def write(self, data: bytes, deadline: float) -> bool:
        """Write all of it; False when the child closed its input, or the monotonic clock passed ``deadline``."""
        rest = memoryview(data)
        while rest:
            _, ready, _ = select.select([], [self._in], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return False
            try:
                rest = rest[os.write(self._in.fileno(), rest) :]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True

    def end_input(self) -> None:
        """Close the child's standard input: there is nothing more to read."""
        with contextlib.suppress(OSError):
            self._in.close()

    def read_line(self, deadline: float) -> bytes | None:
        """Return a line with its end, nothing at the end of the stream, or None when the time is up.

        A line longer than ``longest_line`` comes back cut, without its end.
        """
        while b"\n" not in self._pending:
            if self._longest is not None and len(self._pending) > self._longest:
                return self._pending[: self._longest]
            ready, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            chunk = os.read(self._out.fileno(), _READ_BYTES)
            if not chunk:
                return b""
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line + b"\n"

    def status(self, patience_s: float) -> int | None:
        """Return the exit status, negative for a signal, or None where the child has not ended by then."""
        try:
            return self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def tail(self) -> str:
        """Return the last 2,000 bytes of its standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TAIL_BYTES))
        return self._errors.read().decode(errors="replace").strip()

    def kill(self) -> None:
        """End the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._in, self._out):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def close(self) -> None:
        """End the group and forget what it said."""
        self.kill()
        self._errors.close()
