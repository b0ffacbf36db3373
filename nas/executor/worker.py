"""The loop of a spawned worker: build the job once, then answer payloads with JSON until told to stop."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nas.errors import CandidateError, ConfigError, MeasurementError, NasError, StoreError
from nas.protocols import Job

Factory = Callable[[Mapping[str, Any]], Job]

_PR_SET_PDEATHSIG = 1
_ALLOCATION_WORDS = ("can't allocate memory", "cannot allocate memory", "bad_alloc", "not enough memory")


def worker_main(
    connection: Connection, factory: Factory, config: Mapping[str, Any], memory_limit_mib: int | None, log: str | None
) -> None:
    """Serve one connection.

    Frames are JSON, so that nothing a candidate sends back is ever unpickled. The first frame says ``ready``, or
    ``fatal`` with the reason why the job could not be built.

    Args:
        connection: two-way pipe to the driver.
        factory: makes the job from ``config``; imported by name in this process.
        config: JSON-ready.
        memory_limit_mib: address space that a candidate may add to what the warm worker has, or None.
        log: file that takes standard output and error, or None to inherit them.
    """
    _die_with_parent()
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if log is not None:
        _redirect(Path(log))
    try:
        job = factory(config)
    except NasError as error:
        _send(connection, {"fatal": str(error)})
        return
    except Exception:
        _send(connection, {"fatal": traceback.format_exc(limit=-3)})
        return
    if memory_limit_mib is not None:
        _limit_address_space(memory_limit_mib)
    _send(connection, {"ready": True})
    while True:
        try:
            payload = json.loads(connection.recv_bytes())
        except EOFError:
            return
        _send(connection, _answer(job, payload))


def _answer(job: Job, payload: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"result": job(payload)}
    except CandidateError as error:
        return {"kind": error.kind, "reason": error.reason}
    except MemoryError as error:
        return {"kind": "memory", "reason": str(error) or "the candidate reached its memory limit"}
    except (MeasurementError, ConfigError, StoreError) as error:
        return {"kind": "infrastructure", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return {"kind": "infrastructure", "reason": str(error)}
        text = f"{type(error).__name__}: {error}"
        short = any(words in text.lower() for words in _ALLOCATION_WORDS)
        return {"kind": "memory" if short else "error", "reason": text[:2000]}


def _send(connection: Connection, frame: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        connection.send_bytes(json.dumps(frame).encode())


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent, so that kill -9 of a search leaves no trainer behind."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _redirect(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _limit_address_space(extra_mib: int) -> None:
    status = Path("/proc/self/statm")
    used = int(status.read_text().split()[0]) * resource.getpagesize() if status.is_file() else 0
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + extra_mib * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
