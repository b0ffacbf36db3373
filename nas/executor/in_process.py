"""Evaluations in this very process: for tests and cheap jobs, without protection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.errors import CandidateError, ConfigError, MeasurementError, StoreError
from nas.protocols import Job, Outcome


class InProcessExecutor:
    """Runs each job when it is waited for; a crash of the job is a crash of the search.

    Args:
        job: evaluates one JSON-ready payload.
    """

    capacity = 1

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pending: list[tuple[int, Mapping[str, Any]]] = []
        self._submitted = 0

    def submit(self, payload: Mapping[str, Any]) -> int:
        """Keep the payload until :meth:`wait` and return its id."""
        self._submitted += 1
        self._pending.append((self._submitted, payload))
        return self._submitted

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        """Run the oldest pending job; ``timeout_s`` cannot interrupt it."""
        if not self._pending:
            return []
        job, payload = self._pending.pop(0)
        try:
            return [Outcome(job, self._job(payload))]
        except CandidateError as error:
            return [Outcome(job, None, error.kind, error.reason)]
        except MemoryError as error:
            return [Outcome(job, None, "memory", str(error) or "out of memory")]
        except (MeasurementError, ConfigError, StoreError) as error:
            return [Outcome(job, None, "infrastructure", str(error))]
        except Exception as error:
            return [Outcome(job, None, "error", f"{type(error).__name__}: {error}")]

    def close(self) -> None:
        """Drop what is pending."""
        self._pending.clear()
