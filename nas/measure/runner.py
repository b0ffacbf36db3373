"""The process in which models are timed: ``python -m nas.measure.runner``, one JSON object per line in, one out.

Requests, in this order: ``start`` (runtime, pinning, limits), ``load`` (models and anchor), then any of ``time`` and
``repeat``. Replies hold ``ok``; where it is false, ``kind`` and ``reason`` of a failure. It imports as little as it
can, since every candidate waits for its start.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nas.device import local_fingerprint
from nas.errors import CandidateError, NasError
from nas.measure import host as machine
from nas.measure.harness import Harness, Host, Level, Run, reading
from nas.measure.settings import TimingSettings
from nas.runtime.inputs import random_inputs

if TYPE_CHECKING:
    from nas.protocols import Runtime, Session


# Of one model, in ``repeat``: the anchor stands behind all ways in which it is timed.
LAST_WAY = -2


@dataclass
class Runner:
    """Answers requests; each method named as a request takes its fields and returns the reply's."""

    runtime: Runtime = field(init=False)
    threads: int = field(init=False, default=1)
    cores: tuple[int, ...] = field(init=False, default=())
    runs: list[Run] = field(init=False, default_factory=list)

    def start(
        self,
        runtime: str,
        arguments: Mapping[str, Any],
        threads: int,
        affinity: list[int],
        memory_limit_mib: int,
        path: str = "",
    ) -> dict[str, Any]:
        """Make the runtime (its file in folder ``path``), pin, then limit memory: imports are no candidate's fault."""
        module, _, name = runtime.partition(":")
        if path:
            sys.path.append(path)
        self.runtime = getattr(importlib.import_module(module), name)(**arguments)
        self.threads = threads
        self.cores = machine.pin(affinity, threads)
        machine.limit_memory(memory_limit_mib)
        return {
            "fingerprint": local_fingerprint().to_dict(),
            "runtime": self.runtime.version,
            "cores": self.cores,
        }

    def load(
        self, models: list[str], anchor: str, memory_loads: int, sizes: list[list[dict[str, int]]]
    ) -> dict[str, Any]:
        """Load the anchor first, so that the runtime's own code is resident before a model's memory is read.

        ``sizes`` holds for each model the sizes of its free axes, once for each way in which it is timed; memory is
        that of the first.
        """
        anchor_session = self._open(anchor)
        _inference(anchor_session)()
        memory: list[list[int]] = []
        for model, (first, *_) in zip(models, sizes, strict=True):
            peaks = []
            for _ in range(memory_loads):
                meter = machine.PeakMemory()
                meter.start()
                session = self._open(model)
                _inference(session, first)()
                peaks.append(meter.peak_kib())
                del session
            # A peak that could not be read is absent, never 0.
            memory.append([peak for peak in peaks if peak is not None])
        loaded = [self._open(model) for model in models]
        self.runs = [_inference(session, way) for session, ways in zip(loaded, sizes, strict=True) for way in ways]
        self.runs.append(_inference(anchor_session))
        return {"memory_kib": memory}

    def time(self, settings: Mapping[str, Any], best_anchor_ms: float | None, rounds: int | None) -> dict[str, Any]:
        """Time all ways of all loaded models against the anchor; see ``Harness.measure``."""
        timing = TimingSettings(**settings)
        bursts = machine.RealtimeBursts(timing.realtime, self.threads)
        host = Host(
            clock=time.perf_counter,
            pause=time.sleep,
            stolen_s=lambda: machine.stolen_s(self.cores),
            burst=bursts.burst,
        )
        level = Level(best_anchor_ms)
        runs = self.runs
        gc.collect()
        gc.disable()
        sample = Harness(timing, host, level).measure(runs[:-1], runs[-1], rounds)
        gc.enable()
        return {
            "readings": [asdict(reading(sample, index)) for index in range(len(runs))],
            "disturbance": sample.disturbance,
            "started_s": time.monotonic() - (time.perf_counter() - sample.started_s),
            "best_anchor_ms": level.best_ms,
            "realtime": bursts.permitted,
        }

    def repeat(self, model: int, seconds: float) -> dict[str, Any]:
        """Run one way of a model without pause, for an energy counter that somebody else reads."""
        run = self.runs[model]
        start = time.perf_counter()
        count = 0
        while time.perf_counter() - start < seconds:
            run()
            count += 1
        return {"runs": count, "elapsed_s": time.perf_counter() - start}

    def _open(self, model: str) -> Session:
        # Whoever asked has checked the file already where the runtime offers that in two steps.
        load: Callable[..., Session] = getattr(self.runtime, "load_checked", self.runtime.load)
        return load(Path(model), threads=self.threads)


def _inference(session: Session, sizes: Mapping[str, int] | None = None) -> Run:
    inputs = random_inputs(session.inputs, sizes=sizes)
    return lambda: session.run(inputs)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer line by line until the input ends."""
    runner = Runner()
    for line in requests:
        request = json.loads(line)
        reply = answer(getattr(runner, request.pop("request")), request)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def answer(method: Callable[..., dict[str, Any]], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply to a request: what the method returns, or why it failed."""
    try:
        return {"ok": True, **method(**fields)}
    except MemoryError:
        return {"ok": False, "kind": "memory", "reason": "out of memory"}
    except CandidateError as error:
        return {"ok": False, "kind": error.kind, "reason": error.reason}
    except NasError as error:
        return {"ok": False, "kind": type(error).__name__, "reason": str(error)}
    # Whatever a runtime raises is the candidate's failure, not the end of this process.
    except Exception as error:
        return {"ok": False, "kind": "error", "reason": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Serve on standard input and output; what anything else prints goes to standard error."""
    machine.die_with_parent(int(sys.argv[1]))
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
