"""This machine's end of the link to a runner that was started elsewhere: over ssh, or under an emulator."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nas.device import Fingerprint, fingerprint_from_dict
from nas.errors import CandidateError, MeasurementError
from nas.measure.archive import runner_archive
from nas.measure.child import death, fields_of
from nas.measure.stream import ChildStream
from nas.measure.wire import CHUNK_BYTES, FRAME_BYTES, PROTOCOL, FrameError, decode, encode

# A login shell may greet before the runner speaks.
_NOISE_LINES = 200


class LinkCutError(MeasurementError):
    """The link ended before the answer was whole; nothing of it is used, and a new session may have more luck."""


class LinkedRunner:
    """A runner behind a link; leaving the context cuts it, and the other end cleans up.

    Args:
        command: program and arguments whose standard streams are the link.
        where: name of the device, for errors.
        hello_timeout_s: until the runner says which machine it is on.

    Attributes:
        fingerprint: of the machine behind the link, the first thing it said.
        python: version of its interpreter.

    Raises:
        LinkCutError: there is no link, or no runner answers.
        MeasurementError: what answers is no runner of this version, or the device is busy.
    """

    def __init__(self, command: Sequence[str], where: str, hello_timeout_s: float) -> None:
        self._where = where
        self._id = 0
        self._placed: dict[tuple[Path, str], str] = {}
        try:
            self._stream = ChildStream(command, longest_line=FRAME_BYTES)
        except OSError as error:
            raise MeasurementError(f"'{command[0]}' cannot be started ({error}); expected it installed") from error
        try:
            self.fingerprint, self.python = self._hello(time.monotonic() + hello_timeout_s, hello_timeout_s)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def pid(self) -> int:
        """Process id of this machine's end."""
        return self._stream.pid

    def place(self, file: Path) -> str:
        """Send a file and return its name in the runner's folder; equal bytes are sent once.

        Raises:
            LinkCutError: the link was cut.
            MeasurementError: the file did not arrive as it was sent.
        """
        data = file.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"{sha256[:32]}.bin"
        if name in self._placed.values():
            return name
        self.request("begin", self._patience_s(0), name=name, size=len(data), sha256=sha256)
        for start in range(0, max(len(data), 1), CHUNK_BYTES):
            chunk = base64.b64encode(data[start : start + CHUNK_BYTES]).decode()
            self.request("chunk", self._patience_s(len(chunk)), data=chunk)
        self._placed[(file, sha256)] = name
        return name

    def request(self, name: str, timeout_s: float, /, **fields: Any) -> dict[str, Any]:
        """Send a request and return the reply's fields.

        Raises:
            CandidateError: kind ``crash``, ``timeout``, ``memory`` or ``error``.
            ModelFileError: the runtime refused the file.
            LinkCutError: the link was cut before the answer was whole.
            MeasurementError: the request makes no sense for this model.
        """
        deadline = time.monotonic() + timeout_s
        self._id += 1
        self._stream.write(encode({"id": self._id, "request": name, **fields}), deadline)
        frame = self._frame(name, deadline)
        if frame is None:
            self._stream.kill()
            raise CandidateError("timeout", f"no answer to '{name}' from {self._where} within {timeout_s:g} s")
        if frame.get("id") != self._id or not isinstance(frame.get("ok"), bool):
            raise self._cut(name, f"it answered {str(frame)[:200]}, which is no answer to request {self._id}")
        if not frame["ok"] and not {"kind", "reason"} <= frame.keys():
            raise self._cut(name, "it reported a failure without a reason")
        return {key: value for key, value in fields_of(frame).items() if key != "id"}

    def _frame(self, request: str, deadline: float) -> dict[str, Any] | None:
        """Return the next frame, or None when the time is up; a frame that is not whole is a cut link."""
        line = b"\n"
        while line == b"\n":
            read = self._stream.read_line(deadline)
            if read is None:
                return None
            line = read
        if not line:
            raise self._cut(request, "it was closed")
        try:
            frame = decode(line)
        except FrameError as error:
            raise self._cut(request, str(error)) from error
        if "died" in frame:
            self._stream.status(2)  # whatever it said arrives before ssh ends
            raise death(int(frame["died"]), request, self._stream.tail())
        return frame

    def _hello(self, deadline: float, timeout_s: float) -> tuple[Fingerprint, str]:
        self._stream.write(runner_archive(), deadline)
        for _ in range(_NOISE_LINES):
            line = self._stream.read_line(deadline)
            if line is None:
                self._stream.kill()
                raise LinkCutError(f"{self._where} did not answer within {timeout_s:g} s{self._said()}")
            if not line:
                raise self._cut("hello", "it was closed")
            try:
                frame = decode(line)
            except FrameError:
                continue
            if "hwnas" in frame:
                return self._checked(frame)
        raise MeasurementError(
            f"{self._where} printed {_NOISE_LINES} lines and no greeting of a runner; expected a login shell that "
            "keeps quiet when no terminal is there"
        )

    def _checked(self, hello: dict[str, Any]) -> tuple[Fingerprint, str]:
        if hello["hwnas"] != PROTOCOL:
            raise MeasurementError(f"{self._where} speaks protocol {hello['hwnas']}; expected {PROTOCOL}")
        if "busy" in hello:
            raise MeasurementError(f"{self._where} is busy: {hello['busy']}")
        try:
            return fingerprint_from_dict(hello["fingerprint"]), str(hello["python"])
        except (KeyError, TypeError, ValueError) as error:
            raise MeasurementError(f"{self._where} did not say which machine it is ({error})") from error

    def _cut(self, request: str, what: str) -> LinkCutError:
        self._stream.status(2)
        said = self._said()
        self._stream.kill()
        return LinkCutError(f"the link to {self._where} was lost during '{request}': {what}{said}")

    def _said(self) -> str:
        said = self._stream.tail()
        return f"; it said: {said}" if said else ""

    @staticmethod
    def _patience_s(length: int) -> float:
        """Return seconds for a transfer: a link of 50 KiB/s still passes."""
        return 30.0 + length / (50 * 1024)
