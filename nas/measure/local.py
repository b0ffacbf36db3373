"""Measures model files on this machine, each in a fresh process beside the anchor model."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from nas.device import Device
from nas.errors import MeasurementError
from nas.measure.anchor import write_anchor
from nas.measure.child import RunnerProcess
from nas.measure.energy import ANY, EnergySource, energy_source
from nas.measure.settings import TimingSettings
from nas.measurement import Measurement
from nas.protocols import DeviceGate, Runtime

ENERGY_WINDOWS = 7
ENERGY_WINDOW_S = 0.5


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

    def __init__(
        self,
        device: Device,
        runtime: Runtime,
        timing: TimingSettings,
        gate: DeviceGate | None = None,
        energy: str | None = None,
    ) -> None:
        if device.transport != "local":
            raise MeasurementError(
                f"device '{device.name}' has transport '{device.transport}' and cannot be timed from here; expected "
                "'local'. Take predicted costs with cost=predicted, or run the search on the device with device=local."
            )
        self._device = device
        self._runtime = runtime
        self._timing = timing
        self._gate = gate
        self._best_anchor_ms: float | None = None
        name = device.energy_source if energy in (None, ANY) and device.energy_source else energy
        self._energy: EnergySource | None = energy_source(name) if name else None

    @property
    def has_energy(self) -> bool:
        """Whether ``measure`` gives ``energy_mj``."""
        return self._energy is not None

    def measure(self, model: Path) -> Mapping[str, Measurement]:
        """Return ``latency_ms``, ``memory_kib`` and, where there is a source, ``energy_mj`` (per inference).

        ``memory_kib`` is the peak of loading the model and running it once, beyond the runtime itself; it is absent
        where the system does not let the peak be reset.

        Raises:
            CandidateError: kind ``crash``, ``timeout``, ``memory`` or ``error``.
            ModelFileError: the file is damaged or reaches outside its folder.
            MeasurementError: the timing process found itself on another machine than the device.
        """
        started_s = time.monotonic()
        with ExitStack() as stack:
            # Starting and loading on the timed core would disturb the timing of another worker.
            with self._busy():
                child = stack.enter_context(RunnerProcess())
                device, peaks = self._prepare(child, [model], self._timing.memory_loads)
            with self._timed():
                latency = self._time(child, 1, None, device)[0]
                energy = self._take_energy(child, latency, device) if self._energy else None
        costs = {"latency_ms": latency}
        if peaks[0]:
            costs["memory_kib"] = self._plain(peaks[0], "KiB", device, started_s)
        return costs if energy is None else {**costs, "energy_mj": energy}

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Return the latencies of all models, timed in turns in one process, in the order given.

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
                child = stack.enter_context(RunnerProcess())
                device, _ = self._prepare(child, models, memory_loads=0)
            with self._timed():
                return self._time(child, len(models), rounds, device)

    def _busy(self) -> AbstractContextManager[None]:
        return self._gate.training() if self._gate is not None else nullcontext()

    def _timed(self) -> AbstractContextManager[None]:
        return self._gate.timing() if self._gate is not None else nullcontext()

    def _prepare(
        self, child: RunnerProcess, models: Sequence[Path], memory_loads: int
    ) -> tuple[str, list[list[float]]]:
        """Return the fingerprint id and, per model, the peaks of its loads in KiB."""
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
        found = started["fingerprint"]["id"]
        expected = self._device.fingerprint
        if expected is not None and found != expected.id:
            raise MeasurementError(
                f"device '{self._device.name}' has fingerprint {expected.id}, but this machine is {found} "
                f"({started['fingerprint']['cpu']}); start a new search here."
            )
        with tempfile.TemporaryDirectory(prefix="nas-anchor-") as folder:
            anchor = Path(folder) / "anchor.onnx"
            write_anchor(anchor)
            files = [str(model.resolve()) for model in models]
            patience = timing.timeout_s * len(models)
            loaded = child.request("load", patience, models=files, anchor=str(anchor), memory_loads=memory_loads)
        return found, loaded["memory_kib"]

    def _time(self, child: RunnerProcess, models: int, rounds: int | None, device: str) -> list[Measurement]:
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
                runtime=self._runtime.version,
                started_s=reply["started_s"],
                disturbed=bool(reply["disturbance"]),
            )
            for reading in reply["readings"][:models]
        ]

    def _take_energy(self, child: RunnerProcess, latency: Measurement, device: str) -> Measurement:
        """Read the counter around windows of back-to-back runs; idle power of the package is part of it."""
        assert self._energy is not None
        started = time.monotonic()
        seconds = max(ENERGY_WINDOW_S, 5 * latency.median / 1000)
        samples = []
        for _ in range(ENERGY_WINDOWS):
            before = self._energy.read_mj()
            window = child.request("repeat", self._timing.timeout_s + seconds, model=0, seconds=seconds)
            samples.append((self._energy.read_mj() - before) / window["runs"])
        if not min(samples) > 0:
            raise MeasurementError(
                f"energy source '{self._energy.name}' stood still while the model ran; expected a rising counter. "
                "Take the labelled estimate with energy=modelled."
            )
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
            runtime=self._runtime.version,
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
