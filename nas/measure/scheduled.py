"""A runtime that runs each file the way that was found fastest here, and remembers it for this device."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.device import local_fingerprint
from nas.measure.peaks import cache_folder
from nas.measure.schedule import Schedule, Scheduler, floating
from nas.protocols import OperatorTime, Runtime, Session
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime

_MOST_REMEMBERED = 2000
_FORM = 1


@dataclass(frozen=True)
class ScheduledRuntime:
    """ONNX Runtime or the native runtime, whichever runs a file faster without changing what it says.

    The first time that a file is met it is timed every way (see :class:`nas.measure.schedule.Scheduler`), for some
    seconds. The decision is remembered per file, device, versions and settings in the user's cache folder.

    Args:
        tolerance: largest difference from ONNX Runtime's outputs that is allowed, as a share of the largest output.
        least_gain: another way than ONNX Runtime with the file as it is must be faster by this share.
        rounds: blocks of each way that are timed.
        spinning: as of :class:`nas.runtime.onnx_runtime.OnnxRuntime`.
        cache: JSON file of decisions; None takes one per device in the user's cache folder.
    """

    tolerance: float = 0.05
    least_gain: float = 0.02
    rounds: int = 15
    spinning: bool | None = None
    cache: str | None = None

    @property
    def name(self) -> str:
        """``auto``."""
        return "auto"

    @property
    def version(self) -> str:
        """The versions that are chosen from, in one word."""
        return "auto-" + "-or-".join(runtime.version for runtime in self._runtimes().values())

    def check(self, model: Path) -> None:
        """Refuse a damaged file, and decide how one thread runs it unless that is known.

        Raises:
            ModelFileError: with the reason.
        """
        self.schedule(model)

    def timed_variants(self, model: Path) -> Mapping[str, Mapping[str, int]]:
        """Return what is timed of a file and at which sizes; see :func:`nas.runtime.variants.timed_variants`."""
        from nas.runtime.variants import timed_variants

        return timed_variants(model)

    def schedule(self, model: Path, threads: int = 1) -> Schedule:
        """Return the decision for a file, remembered or made now.

        Args:
            model: ONNX file.
            threads: most that may be used.

        Raises:
            ModelFileError: ONNX Runtime refuses the file.
        """
        runtimes = self._runtimes()
        key = self._key(model, threads)
        if (known := self._remembered().get(key)) is not None:
            return known
        decided = Scheduler(runtimes, threads, self.tolerance, self.least_gain, rounds=self.rounds).schedule(model)
        self._remember(key, decided)
        return decided

    def load(self, model: Path, threads: int = 1) -> Session:
        """Load a file the way that was decided.

        Raises:
            ModelFileError: missing, corrupted, or with external data outside its folder.
        """
        route = self.schedule(model, threads).route
        runtime = self._runtimes()[route.runtime]
        if not route.floats:
            return runtime.load(model, threads=route.threads)
        with floating(model) as version:
            # Both runtimes read the whole file while they load it.
            return runtime.load(version(route.floats), threads=route.threads)

    def profile(self, model: Path, runs: int = 50, threads: int = 1) -> list[OperatorTime]:
        """Return the time per operator of the way that was decided, slowest first.

        Raises:
            ModelFileError: as ``load``.
            MeasurementError: nothing was timed.
        """
        route = self.schedule(model, threads).route
        with ExitStack() as stack:
            file = stack.enter_context(floating(model))(route.floats) if route.floats else model
            return self._runtimes()[route.runtime].profile(file, runs=runs, threads=route.threads)

    def _runtimes(self) -> Mapping[str, Runtime]:
        return {"onnxruntime": OnnxRuntime(self.spinning), "native": NativeRuntime()}

    def _file(self) -> Path:
        return Path(self.cache) if self.cache else cache_folder() / f"schedules-{local_fingerprint().id}.json"

    def _key(self, model: Path, threads: int) -> str:
        digest = hashlib.sha256()
        try:
            digest.update(model.read_bytes())
        except OSError:
            OnnxRuntime().check(model)  # says what is wrong with the file
            raise
        settings: Sequence[Any] = (self.version, threads, self.tolerance, self.least_gain, self.rounds, self.spinning)
        digest.update(json.dumps([_FORM, *settings, local_fingerprint().id]).encode())
        return digest.hexdigest()[:32]

    def _remembered(self) -> dict[str, Schedule]:
        try:
            kept = json.loads(self._file().read_text())
            return {key: Schedule.from_dict(value) for key, value in kept.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Decisions can be made again; a damaged file is replaced by the next one.
            return {}

    def _remember(self, key: str, decided: Schedule) -> None:
        kept = {**self._remembered(), key: decided}
        recent = dict(list(kept.items())[-_MOST_REMEMBERED:])
        path = self._file()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps({name: value.to_dict() for name, value in recent.items()}))
        partial.replace(path)
