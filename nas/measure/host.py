"""What the timing protocol asks of Linux: pinning, real-time bursts, stolen time, peak memory; others do without."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REALTIME_PRIORITY = 50
_THREADS = Path("/proc/self/task")
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def pin(cores: Sequence[int], threads: int) -> tuple[int, ...]:
    """Pin this process and return the processors it may use.

    Args:
        cores: wanted ones; empty takes the last allowed processor for one thread, and leaves more threads unpinned.
        threads: that will be timed.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    allowed = os.sched_getaffinity(0)
    wanted = set(cores) & allowed or ({max(allowed)} if threads == 1 else allowed)
    os.sched_setaffinity(0, wanted)
    return tuple(sorted(wanted))


@contextlib.contextmanager
def pinned(cores: Sequence[int], threads: int) -> Iterator[tuple[int, ...]]:
    """Pin this process as ``pin`` does for as long as the context lasts, and give the processors."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        yield pin(cores, threads)
    finally:
        if before:
            os.sched_setaffinity(0, before)


@dataclass
class RealtimeBursts:
    """Raises what is timed above all others for the length of a block, where the kernel permits it (root).

    The kernel stops real-time threads that take 95 % of a second; a rest of a tenth after every ``rest_after_s`` of
    bursts stays clear of that.

    Args:
        wanted: False never asks.
        threads: that are timed; for more than one all threads of this process are raised, since those of a runtime work
            beside this one and would lose their processor to others.
        rest_after_s: seconds of bursts between two rests.
    """

    wanted: bool
    threads: int = 1
    rest_after_s: float = 0.4
    permitted: bool = field(init=False, default=False)
    _since_rest_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.permitted = self.wanted and self._enter()
        if self.permitted:
            self._leave()

    @contextlib.contextmanager
    def burst(self) -> Iterator[None]:
        """Hold real-time priority; does nothing where it is not permitted."""
        if not self.permitted:
            yield
            return
        start = time.perf_counter()
        self._enter()
        try:
            yield
        finally:
            self._leave()
            self._since_rest_s += time.perf_counter() - start
            if self._since_rest_s > self.rest_after_s:
                time.sleep(self._since_rest_s / 10)
                self._since_rest_s = 0.0

    def _enter(self) -> bool:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
        except (AttributeError, OSError):
            return False
        self._set_others(os.SCHED_FIFO, REALTIME_PRIORITY)
        return True

    def _leave(self) -> None:
        self._set_others(os.SCHED_OTHER, 0)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    def _set_others(self, policy: int, priority: int) -> None:
        if self.threads == 1 or not _THREADS.is_dir():
            return
        for thread in _THREADS.iterdir():
            # One that has ended meanwhile needs no priority.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


def stolen_s(cores: Sequence[int], stat: Path = Path("/proc/stat")) -> float | None:
    """Return the seconds that a hypervisor took from these processors since boot, the most of any; None if unknown."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    names = {f"cpu{core}" for core in cores}
    fields = [line.split() for line in lines]
    ticks = [int(columns[8]) for columns in fields if columns and columns[0] in names and len(columns) > 8]
    return max(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when the one that started it ends, even by kill -9."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that asked for a measurement is gone")


def limit_memory(extra_mib: int) -> None:
    """Allow the address space to grow by so much from now on; core files are not written."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if pages:
        limit = pages * resource.getpagesize() + extra_mib * 1024**2
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@dataclass
class PeakMemory:
    """Peak of the resident memory beyond that at the start, as the kernel counts it: within about 0.5 MiB."""

    _before_kib: int | None = field(init=False, default=None)

    def start(self) -> None:
        """Give free memory back to the system and reset the kernel's peak."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._before_kib = None
        else:
            self._before_kib = _resident_kib("VmRSS")

    def peak_kib(self) -> int | None:
        """Return KiB since ``start``, or None where the kernel's peak could not be reset."""
        peak = _resident_kib("VmHWM")
        return None if peak is None or self._before_kib is None else peak - self._before_kib


def _resident_kib(name: str) -> int | None:
    """Return a line of the process's status, or None where the system keeps none."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return None
