"""Evaluations in spawned workers with a deadline, a memory limit and a warm standby."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from nas.errors import NasError
from nas.executor.worker import Factory, worker_main
from nas.protocols import Outcome

_START_ATTEMPTS = 3
_START_LIMIT_S = 180.0


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    job: int | None = None
    deadline_s: float = float("inf")


class SpawnedExecutor:
    """Keeps ``workers`` busy and one more warm, so that a crash costs the next candidate no start-up.

    Processes are spawned, never forked: a fork of a process with torch's or ONNX Runtime's threads deadlocks.

    Args:
        factory: importable callable that makes the job inside each worker.
        config: JSON-ready argument of ``factory``.
        workers: jobs under way at once.
        memory_limit_mib: address space that a candidate may add, or None for no limit.
        timeout_s: wall-clock limit of one job, after which its process group is killed.
        log: file that takes what the workers print, or None.
        standby: spare warm workers.
    """

    def __init__(
        self,
        factory: Factory,
        config: Mapping[str, Any],
        workers: int = 1,
        memory_limit_mib: int | None = 4096,
        timeout_s: float = 600.0,
        log: Path | None = None,
        standby: int = 1,
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._factory, self._config = factory, config
        self._memory_limit_mib, self._timeout_s, self._log = memory_limit_mib, timeout_s, log
        self._capacity, self._standby = workers, standby
        self._queue: list[tuple[int, Mapping[str, Any]]] = []
        self._done: list[Outcome] = []
        self._submitted = 0
        self._failed_starts = 0
        self._workers: list[_Worker] = []
        self._refill()

    @property
    def capacity(self) -> int:
        """How many jobs can be under way."""
        return self._capacity

    def submit(self, payload: Mapping[str, Any]) -> int:
        """Queue a job for the next free worker and return its id."""
        self._submitted += 1
        self._queue.append((self._submitted, payload))
        self._dispatch()
        return self._submitted

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        """Return the jobs that ended, at least one unless the time ran out or none is under way.

        Raises:
            NasError: workers cannot be started, with what the last one said.
        """
        give_up = time.monotonic() + (float("inf") if timeout_s is None else timeout_s)
        while not self._done and (self._queue or any(worker.job for worker in self._workers)):
            left = give_up - time.monotonic()
            if left <= 0:
                break
            self._poll(left)
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Kill all workers with their children and drop what is queued."""
        self._queue.clear()
        for worker in self._workers:
            self._kill(worker)
        self._workers.clear()

    def _poll(self, left_s: float) -> None:
        soonest = min((worker.deadline_s for worker in self._workers), default=float("inf"))
        pause = min(left_s, max(0.0, soonest - time.monotonic()), 60.0)
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout=pause):
            self._read(by_connection[connection])  # type: ignore[index]
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline_s <= now]:
            if worker.ready:
                self._retire(worker, "timeout", f"no result within {self._timeout_s:g} s; killed")
            else:
                self._kill(worker)
                self._died(worker)
        self._refill()
        self._dispatch()

    def _read(self, worker: _Worker) -> None:
        try:
            frame = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            self._died(worker)
            return
        except ValueError:
            self._retire(worker, "crash", "the worker sent a frame that is no JSON")
            return
        if worker.ready and (("result" not in frame and "kind" not in frame) or worker.job is None):
            self._retire(worker, "crash", "the worker sent a frame out of turn")
        elif frame.get("ready"):
            worker.ready, self._failed_starts = True, 0
            worker.deadline_s = float("inf")
        elif "fatal" in frame:
            self.close()
            raise NasError(f"a worker could not start: {frame['fatal'].strip()}")
        else:
            job, worker.job, worker.deadline_s = worker.job, None, float("inf")
            assert job is not None
            self._done.append(Outcome(job, frame.get("result"), frame.get("kind", ""), frame.get("reason", "")))
            # After an allocation failed, what is left of the address space is unknown: a fresh worker goes on.
            if frame.get("kind") == "memory":
                self._retire(worker, "", "")

    def _died(self, worker: _Worker) -> None:
        worker.process.join(5.0)
        code = worker.process.exitcode
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _START_ATTEMPTS:
                self.close()
                where = f"; see {self._log}" if self._log else ""
                raise NasError(f"{_START_ATTEMPTS} workers in a row died while starting (exit code {code}){where}")
        if code is not None and code < 0:
            kind, reason = "crash", f"the worker died of {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                reason += " (possibly the kernel's out-of-memory killer)"
        else:
            kind, reason = "crash", f"the worker exited with code {code}"
        self._retire(worker, kind, reason)

    def _retire(self, worker: _Worker, kind: str, reason: str) -> None:
        if worker.job is not None:
            self._done.append(Outcome(worker.job, None, kind, reason))
        self._kill(worker)
        self._workers.remove(worker)

    @staticmethod
    def _kill(worker: _Worker) -> None:
        pid = worker.process.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid is not None:
                os.killpg(pid, signal.SIGKILL)
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join(5.0)
        if not worker.connection.closed:
            worker.connection.close()

    def _refill(self) -> None:
        while len(self._workers) < self._capacity + self._standby:
            here, there = self._context.Pipe()
            log = str(self._log) if self._log else None
            arguments = (there, self._factory, self._config, self._memory_limit_mib, log)
            process = self._context.Process(target=worker_main, args=arguments, daemon=True)
            # A worker that is still importing must not answer Ctrl-C with a traceback: it inherits the mask.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            there.close()
            self._workers.append(_Worker(process, here, deadline_s=time.monotonic() + _START_LIMIT_S))

    def _dispatch(self) -> None:
        busy = sum(worker.job is not None for worker in self._workers)
        for worker in self._workers:
            if not self._queue or busy >= self._capacity:
                return
            if worker.ready and worker.job is None:
                job, payload = self._queue.pop(0)
                try:
                    worker.connection.send_bytes(json.dumps(payload).encode())
                except (BrokenPipeError, OSError):
                    self._queue.insert(0, (job, payload))
                    continue
                worker.job, worker.deadline_s = job, time.monotonic() + self._timeout_s
                busy += 1
