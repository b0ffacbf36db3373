"""Measures model files on this machine, each in a fresh process beside the anchor model."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from nas.device import Device
from nas.errors import MeasurementError
from nas.measure.anchor import write_anchor
from nas.measure.child import RunnerProcess
from nas.measure.energy import ANY, EnergySource, energy_per_run, energy_source
from nas.measure.runner import LAST_WAY
from nas.measure.settings import TimingSettings
from nas.measurement import Measurement
from nas.protocols import DeviceGate, Runtime


class Runner(Protocol):
    """A timing process that was started; the context ends it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *reason: Any) -> None: ...

    def place(self, model: Path, /) -> str:
        """Make a file available and return the name by which the process finds it."""
        ...

    def request(self, name: str, timeout_s: float, /, **fields: Any) -> dict[str, Any]:
        """Send a request and return the reply's fields, or raise what became of it."""
        ...


class LocalMeter:
    """Latency, peak memory and, where the machine counts it, energy of a model file.

    Args:
        device: with transport ``local``.
        runtime: made again in the timing process from its class and, if it is a dataclass, its fields.
        timing: settings of the protocol.
        gate: held alone while something is timed, shared while a process starts and loads.
        energy: name of a source, such as ``zeus``, or ``measured`` for the device's or whichever there is; None takes
            the device's, and if it has none, energy is absent.

    Raises:
        MeasurementError: the device is out of reach, or the energy source is not there.
    """

    transport: ClassVar[str] = "local"

    def __init__(
        self,
        device: Device,
        runtime: Runtime,
        timing: TimingSettings,
        gate: DeviceGate | None = None,
        energy: str | None = None,
    ) -> None:
        if device.transport != self.transport:
            raise MeasurementError(
                f"device '{device.name}' has transport '{device.transport}' and cannot be timed from here; expected "
                f"'{self.transport}'. Take predicted costs with cost=predicted, or run the search on the device with "
                "device=local."
            )
        self._device = device
        self._runtime = runtime
        self._timing = timing
        self._gate = gate
        self._best_anchor_ms: float | None = None
        self._runtime_version = runtime.version
        self._energy_name = device.energy_source if energy in (None, ANY) and device.energy_source else energy
        self._energy = self._open_energy()

    @property
    def has_energy(self) -> bool:
        """Whether ``measure`` gives ``energy_mj``."""
        return self._energy_name is not None

    def measure(self, model: Path) -> Mapping[str, Measurement]:
        """Return ``latency_ms``, ``memory_kib`` and, where there is a source, ``energy_mj`` (per inference).

        A file whose metadata name other timings (see :mod:`nas.runtime.variants`) has those in place of ``latency_ms``,
        interleaved with each other and the anchor; energy is then that of the last. ``memory_kib`` is the peak of
        loading the model and running it once, beyond the runtime itself; it is absent where the system does not let the
        peak be reset.

        Raises:
            CandidateError: kind ``crash``, ``timeout``, ``memory`` or ``error``.
            ModelFileError: the file is damaged or reaches outside its folder.
            MeasurementError: the timing process found itself on another machine than the device.
        """
        started_s = time.monotonic()
        with ExitStack() as stack:
            # Starting and loading on the timed core would disturb the timing of another worker.
            with self._busy():
                child = stack.enter_context(self._open())
                device, peaks, (ways,) = self._prepare(child, [model], self._timing.memory_loads)
            with self._timed():
                latencies = self._time(child, len(ways), None, device)
                energy = self._take_energy(child, latencies[-1], device) if self.has_energy else None
        costs = dict(zip(ways, latencies, strict=True))
        if peaks[0]:
            costs["memory_kib"] = self._plain(peaks[0], "KiB", device, started_s)
        return costs if energy is None else {**costs, "energy_mj": energy}

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Return the latencies of all models, timed in turns in one process, in the order given.

        Of a model that is timed in several ways the last is taken.

        Args:
            models: model files.
            rounds: blocks of each model.

        Raises:
            CandidateError, ModelFileError, MeasurementError: as ``measure``, for the first model that fails.
        """
        if not models or rounds < 1:
            raise MeasurementError(f"{len(models)} models in {rounds} rounds; expected at least 1 of each")
        with ExitStack() as stack:
            with self._busy():
                child = stack.enter_context(self._open())
                device, _, ways = self._prepare(child, models, memory_loads=0)
            with self._timed():
                readings = self._time(child, sum(map(len, ways)), rounds, device)
        ends = itertools.accumulate(len(names) for names in ways)
        return [readings[end - 1] for end in ends]

    def _open(self) -> Runner:
        return RunnerProcess()

    def _open_energy(self) -> EnergySource | None:
        return energy_source(self._energy_name, options=self._device.energy_options) if self._energy_name else None

    def _busy(self) -> AbstractContextManager[None]:
        return self._gate.training() if self._gate is not None else nullcontext()

    def _timed(self) -> AbstractContextManager[None]:
        return self._gate.timing() if self._gate is not None else nullcontext()

    def _prepare(
        self, child: Runner, models: Sequence[Path], memory_loads: int
    ) -> tuple[str, list[list[float]], list[list[str]]]:
        """Return the fingerprint id and, per model, the peaks of its loads in KiB and what is timed of it."""
        # A runtime may offer check and load_checked, so that a parse of the file is not part of the memory read.
        check: Callable[[Path], None] = getattr(self._runtime, "check", lambda model: None)
        for model in models:
            check(model)
        runtime, arguments = _recipe(self._runtime)
        timing = self._timing
        started = child.request(
            "start",
            timing.timeout_s,
            runtime=runtime,
            arguments=arguments,
            threads=self._device.threads,
            affinity=list(self._device.affinity),
            memory_limit_mib=timing.memory_limit_mib,
            path=_folder(self._runtime),
        )
        self._runtime_version = started["runtime"]
        found: str = started["fingerprint"]["id"]
        expected = self._device.fingerprint
        if expected is not None and found != expected.id:
            raise MeasurementError(
                f"device '{self._device.name}' has fingerprint {expected.id}, but the machine that answers is {found} "
                f"({started['fingerprint']['cpu']}); start a new search."
            )
        with tempfile.TemporaryDirectory(prefix="nas-anchor-") as folder:
            anchor = Path(folder) / "anchor.onnx"
            write_anchor(anchor)
            files = [child.place(model) for model in models]
            patience = timing.timeout_s * len(models)
            # A runtime that knows of one size only has nothing to say.
            told: Callable[[Path], Mapping[str, Mapping[str, int]]]
            told = getattr(self._runtime, "timed_variants", lambda model: {"latency_ms": {}})
            variants = [told(model) for model in models]
            sizes = [[dict(way) for way in ways.values()] for ways in variants]
            loaded = child.request(
                "load", patience, models=files, anchor=child.place(anchor), memory_loads=memory_loads, sizes=sizes
            )
        return found, loaded["memory_kib"], [list(ways) for ways in variants]

    def _time(self, child: Runner, models: int, rounds: int | None, device: str) -> list[Measurement]:
        reply = child.request(
            "time",
            self._timing.timeout_s * models * max(1.0, (rounds or 0) / self._timing.min_blocks),
            settings=dataclasses.asdict(self._timing),
            best_anchor_ms=self._best_anchor_ms,
            rounds=rounds,
        )
        self._best_anchor_ms = reply["best_anchor_ms"]
        return [
            Measurement(
                **reading,
                unit="ms",
                device=device,
                runtime=self._runtime_version,
                started_s=reply["started_s"],
                disturbed=bool(reply["disturbance"]),
            )
            for reading in reply["readings"][:models]
        ]

    def _take_energy(self, child: Runner, latency: Measurement, device: str) -> Measurement:
        """Read the counter around windows of back-to-back runs; idle power of the package is part of it."""
        assert self._energy is not None
        started = time.monotonic()

        def repeat(seconds: float) -> int:
            reply = child.request("repeat", self._timing.timeout_s + seconds, model=LAST_WAY, seconds=seconds)
            return int(reply["runs"])

        window_s = self._device.energy_options.window_s
        samples = energy_per_run(self._energy, repeat, latency.median, window_s)
        return self._plain(samples, "mJ", device, started)

    def _plain(self, samples: Sequence[float], unit: str, device: str, started_s: float) -> Measurement:
        p10, low, middle, high = np.percentile(samples, [10, 25, 50, 75])
        return Measurement(
            median=float(middle),
            p10=float(p10),
            spread=float((high - low) / 2),
            count=len(samples),
            warmup=0,
            unit=unit,
            device=device,
            runtime=self._runtime_version,
            started_s=started_s,
        )


def _folder(runtime: Runtime) -> str:
    """Return the folder of a runtime that is a user's own file, else nothing: packages are found anyway."""
    module = sys.modules[type(runtime).__module__]
    file = getattr(module, "__file__", None)
    return "" if "." in module.__name__ or not file else str(Path(file).resolve().parent)


def _recipe(runtime: Runtime) -> tuple[str, dict[str, Any]]:
    kind = type(runtime)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise MeasurementError(
            f"runtime {kind.__qualname__} is defined in {kind.__module__}, where the timing process cannot import it; "
            "expected a class at the top of a module that can be imported. Move it to one."
        )
    arguments: dict[str, Any] = dataclasses.asdict(runtime) if dataclasses.is_dataclass(runtime) else {}
    return f"{kind.__module__}:{kind.__qualname__}", arguments
