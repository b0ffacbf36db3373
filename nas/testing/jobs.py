"""Jobs that misbehave on purpose, importable by spawned workers, so that a user's executor can be tested too."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from nas.errors import CandidateError, NasError
from nas.protocols import Job


def make_misbehaving_job(config: Mapping[str, Any]) -> Job:
    """Return a job that does what its payload's ``do`` says.

    ``echo`` returns the payload with the worker's process id, ``segfault`` reads address 0, ``allocate`` asks for
    ``mib`` of memory and touches it, ``hang`` sleeps for an hour, ``nan`` raises the
    error of a diverged training, ``raise`` any other, ``exit`` leaves the process, ``kill`` sends itself SIGKILL.

    Args:
        config: ``fatal`` with a text makes the worker unable to start; ``die`` makes it exit while starting.
    """
    if "fatal" in config:
        raise NasError(config["fatal"])
    if config.get("die"):
        os._exit(3)
    return misbehave


def misbehave(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Do what ``payload['do']`` says; see :func:`make_misbehaving_job`."""
    deed = payload["do"]
    if deed == "segfault":
        ctypes.string_at(0)
    elif deed == "allocate":
        block = bytearray(int(payload["mib"]) * 2**20)
        return {"pid": os.getpid(), "bytes": len(block)}
    elif deed == "hang":
        time.sleep(3600)
    elif deed == "nan":
        raise CandidateError("nan", "the loss is NaN in epoch 1")
    elif deed == "raise":
        raise ValueError("a bug in the candidate")
    elif deed == "exit":
        os._exit(int(payload.get("code", 7)))
    elif deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "print":
        print("noise on standard output", flush=True)
    return {**payload, "pid": os.getpid()}
