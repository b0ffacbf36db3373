"""A lock per device that lets training steps run side by side, but never beside a timing."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileGate:
    """Readers-writer lock on two files, kept by the kernel, so that a killed holder releases it.

    Training steps share it, a timing holds it alone. A timing that waits blocks new steps at the turnstile,
    so that a stream of steps cannot starve it; the wait is one training step.

    Args:
        device: key of the device; every process on this machine that names the same one shares the lock.
        folder: where the lock files lie; by default one per user in the temporary folder.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir()) / f"hwnas-{os.getuid()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = "".join(letter if letter.isalnum() else "_" for letter in device)
        self._turnstile = folder / f"{name}.turnstile"
        self._room = folder / f"{name}.room"

    @contextmanager
    def training(self) -> Iterator[None]:
        """Hold a share for one step; waits while somebody times or waits to."""
        with _locked(self._turnstile, fcntl.LOCK_SH):
            room = _lock(self._room, fcntl.LOCK_SH)
        try:
            yield
        finally:
            os.close(room)

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Hold the device alone; waits until the steps under way are done."""
        with _locked(self._turnstile, fcntl.LOCK_EX), _locked(self._room, fcntl.LOCK_EX):
            yield


def _lock(path: Path, mode: int) -> int:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, mode)
    return descriptor


@contextmanager
def _locked(path: Path, mode: int) -> Iterator[None]:
    descriptor = _lock(path, mode)
    try:
        yield
    finally:
        os.close(descriptor)
