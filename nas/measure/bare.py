"""One session on a board without Python, seen from this machine: which machine it is, then one run of ``nasq-run``."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.device import Fingerprint, read_fingerprint
from nas.errors import CandidateError, MeasurementError, ModelFileError
from nas.measure.child import death
from nas.measure.link import LinkCutError
from nas.measure.shell import Job, bundle, facts_command, session_command
from nas.measure.stream import ChildStream

_LINE_BYTES = 1 << 20
_MOST_BYTES = 4 << 20  # of all that a session says: a processor list of a large server is a tenth of it
_FACTS = ("isa", "kernel", "processor", "governor", "cpuinfo", "facts")
_OUTCOME = ("core", "before", "after", "err", "out", "ended", "done")


@dataclass(frozen=True)
class Ran:
    """What a run left.

    Args:
        report: what the program printed.
        stolen_s: seconds that a hypervisor took of its processor meanwhile, or None where the board does not say.
    """

    report: Mapping[str, Any]
    stolen_s: float | None


def ask_bare(ssh: Callable[[str], list[str]], where: str, timeout_s: float) -> Fingerprint:
    """Return which machine a board is; nothing is sent.

    Args:
        ssh: makes program and arguments of a line for the board's login shell.
        where: name of the board, for errors.
        timeout_s: until it has answered.

    Raises:
        LinkCutError: there is no link, or it was cut.
        MeasurementError: what answers is no POSIX system.
    """
    token = _token()
    with _Link(ssh(facts_command(token)), token, where) as link:
        return _read_facts(link, time.monotonic() + timeout_s)


def run_bare(
    ssh: Callable[[str], list[str]], where: str, timeout_s: float, job: Job, check: Callable[[Fingerprint], None]
) -> Ran:
    """Send files, run the program among them, and return what it printed.

    Args:
        ssh: as in ``ask_bare``.
        where: likewise.
        timeout_s: likewise.
        job: what is run.
        check: raises where the machine is not the expected one; nothing was sent by then.

    Raises:
        CandidateError: the program crashed, took too long or too much memory.
        ModelFileError: it refused a model.
        LinkCutError: the link was cut before everything had arrived; nothing of it is used.
        MeasurementError: the board cannot run it, or what ``check`` raised.
    """
    token = _token()
    command = ssh(session_command(token, job))
    with _Link(command, token, where) as link:
        check(_read_facts(link, time.monotonic() + timeout_s))
        data = bundle(job.files)
        # A link of 50 KiB/s still passes.
        deadline = time.monotonic() + 30.0 + len(data) / (50 * 1024)
        link.send(data, deadline)
        said = link.read(_OUTCOME, deadline + job.queue_s + job.most_s + 30.0)
    _judge(said, where)
    try:
        report = json.loads("".join(said["out"]))
        if not isinstance(report, dict):
            raise ValueError(f"a {type(report).__name__}")
    except (ValueError, RecursionError) as error:
        raise MeasurementError(f"nasq-run on {where} printed no report ({error}); is it of this version?") from error
    core = "".join(said["core"])
    before, after = (_stolen_s(said[name], core) for name in ("before", "after"))
    return Ran(report, None if before is None or after is None else after - before)


class _Link:
    """The streams of one session; leaving the context cuts it, and the script on the board cleans up."""

    def __init__(self, command: Sequence[str], token: str, where: str) -> None:
        self._token, self._where = token, where
        self._bytes = 0
        try:
            self._stream = ChildStream(command, longest_line=_LINE_BYTES)
        except OSError as error:
            raise MeasurementError(f"'{command[0]}' cannot be started ({error}); expected it installed") from error

    def __enter__(self) -> _Link:
        return self

    def __exit__(self, *reason: Any) -> None:
        self._stream.close()

    def send(self, data: bytes, deadline: float) -> None:
        """Write everything and end the input; where that fails the reason is found when the answer is read."""
        if self._stream.write(data, deadline):
            self._stream.end_input()

    def read(self, sections: Sequence[str], deadline: float) -> dict[str, list[str]]:
        """Return the lines of each section up to the last one, what stands on its own line first.

        Raises:
            LinkCutError: it ended before.
            MeasurementError: the script gave a reason, or too much was said.
        """
        found: dict[str, list[str]] = {}
        current: list[str] = []
        while sections[-1] not in found:
            line = self._line(found, deadline)
            if not line.startswith(f"{self._token} "):
                current.append(line)
                continue
            name, _, rest = line[len(self._token) + 1 :].partition(" ")
            self._refused(name, rest)
            if name in sections:
                current = found.setdefault(name, [])
                if rest:
                    current.append(rest)
        if missing := [name for name in sections if name not in found]:
            raise MeasurementError(f"{self._where} left out {', '.join(missing)}; expected a POSIX shell there")
        return found

    def _line(self, found: dict[str, list[str]], deadline: float) -> str:
        raw = self._stream.read_line(deadline)
        during = next(reversed(found), "greeting")
        if raw is None:
            raise LinkCutError(f"{self._where} said nothing more after '{during}' in time{self._said()}")
        if not raw.endswith(b"\n"):
            self._stream.status(2)
            raise LinkCutError(f"the link to {self._where} was lost after '{during}'{self._said()}")
        self._bytes += len(raw)
        if self._bytes > _MOST_BYTES:
            raise MeasurementError(f"{self._where} said more than {_MOST_BYTES} bytes; expected a report of nasq-run")
        return raw.decode(errors="replace").rstrip("\r\n")

    def _refused(self, name: str, rest: str) -> None:
        if name == "busy":
            raise MeasurementError(
                f"{self._where} is busy: another measurement kept it; try again later. Where there is none, remove "
                f"{rest} there"
            )
        if name == "refused":
            raise MeasurementError(f"{self._where} {rest}; expected a folder for files. Set TMPDIR there{self._said()}")
        if name == "damaged":
            raise LinkCutError(f"a file did not reach {self._where} as it was sent ({rest})")

    def _said(self) -> str:
        said = self._stream.tail()
        return f"; it said: {said}" if said else ""


def _token() -> str:
    return secrets.token_hex(12)


def _read_facts(link: _Link, deadline: float) -> Fingerprint:
    said = link.read(_FACTS, deadline)
    first = {name: (said[name] or [""])[0].strip() for name in ("isa", "kernel", "processor", "governor")}
    if not first["isa"] or not first["kernel"]:
        raise MeasurementError("the board did not say its machine and kernel (uname -m, uname -r); expected a Linux")
    cores = sum(line.split(":")[0].strip() == "processor" for line in said["cpuinfo"])
    return read_fingerprint(
        "\n".join(said["cpuinfo"]),
        isa=first["isa"],
        processor=lambda: first["processor"].removeprefix("unknown"),
        cores=max(cores, 1),
        governor=first["governor"],
        kernel=first["kernel"],
    )


def _stolen_s(stat: Sequence[str], core: str) -> float | None:
    """Return seconds that a hypervisor took of a processor since boot, from ``/proc/stat``; a tick is 10 ms."""
    rows = [line.split() for line in stat if line.startswith(f"cpu{core} ")]
    return next((int(row[8]) / 100 for row in rows if len(row) > 8 and row[8].isdigit()), None)


def _judge(said: Mapping[str, Sequence[str]], where: str) -> None:
    """Raise what became of the program where it did not end well."""
    status, errors = (said["ended"] or [""])[0], "\n".join(said["err"]).strip()
    if status == "late":
        raise CandidateError("timeout", f"nasq-run did not end in time on {where}; it was stopped")
    if not status.isdigit():
        raise MeasurementError(
            f"{where} did not say how nasq-run ended ('{status[:50]}'); expected a POSIX shell there"
        )
    number = int(status)
    if number == 0:
        return
    if number in (2, 126, 127):
        raise MeasurementError(
            f"{where} cannot run nasq-run (status {number}): {errors or 'no word'}. Expected the program of this "
            "version, built for the board, and a folder for temporary files whose programs may run; set TMPDIR there"
        )
    if "planned model was refused" in errors:
        raise ModelFileError(errors)
    raise death(128 - number if number > 128 else number, "nasq-run", errors)
