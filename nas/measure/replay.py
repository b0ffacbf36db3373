"""Measurements taken earlier and played back, so that a search can be tested or repeated without its device.

The file is JSON: the device's fingerprint, and per model (SHA-256 of the file, or id of the architecture) what was
measured. ``Recorder`` writes one while another meter measures.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nas.device import Device, Fingerprint, Recording, fingerprint_from_dict
from nas.errors import MeasurementError
from nas.measurement import Measurement, number_from_dict

VERSION = 1


class Meter(Protocol):
    """Measures one model, or several in turns."""

    @property
    def has_energy(self) -> bool:
        """Whether ``measure`` gives ``energy_mj``."""
        ...

    def measure(self, model: Path, /) -> Mapping[str, Measurement]:
        """Return the costs of a model file."""
        ...

    def compare(self, models: Sequence[Path], rounds: int, /) -> list[Measurement]:
        """Return the latencies of all models, in order."""
        ...


class ReplayMeter:
    """Answers from a recording; what was not recorded is an error, never a guess.

    Args:
        device: with transport ``replay``.

    Raises:
        MeasurementError: the file is missing or no recording.
    """

    def __init__(self, device: Device) -> None:
        if not isinstance(device.reach, Recording):
            raise MeasurementError(f"device '{device.name}' has no recording; set device.recording")
        self._file = Path(device.reach.file)
        self._models = _read(self._file)["models"]

    @property
    def has_energy(self) -> bool:
        """Whether every recorded model has ``energy_mj``."""
        return bool(self._models) and all("energy_mj" in costs for costs in self._models.values())

    def measure(self, model: Path) -> Mapping[str, Measurement]:
        """Return what was recorded for these bytes, or for the architecture whose folder the file lies in.

        Raises:
            MeasurementError: neither was recorded, or what was is no measurement.
        """
        digest = digest_of(model)
        costs = self._models.get(digest) or self._models.get(model.resolve().parent.name)
        if costs is None:
            raise MeasurementError(
                f"{self._file} holds no measurement of {model} (SHA-256 {digest}), nor of architecture "
                f"'{model.resolve().parent.name}'; record it on the device by device.record=FILE"
            )
        # A copy of this file, such as the exported one, is this architecture's too.
        self._models[digest] = costs
        try:
            numbers = {metric: number_from_dict(fields) for metric, fields in costs.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise MeasurementError(f"{self._file}: the entry of {model} is no measurement ({error})") from error
        return {metric: number for metric, number in numbers.items() if isinstance(number, Measurement)}

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Return the recorded latencies; ``rounds`` changes nothing.

        Raises:
            MeasurementError: a model was not recorded.
        """
        return [self.measure(model)["latency_ms"] for model in models]


class Recorder:
    """Passes everything on to another meter and notes in a file what it measured.

    Args:
        meter: that measures.
        device: whose fingerprint the recording bears.
        file: to write; one that exists is continued if it is of the same device.

    Raises:
        MeasurementError: the file is no recording, or one of another device.
    """

    def __init__(self, meter: Meter, device: Device, file: Path) -> None:
        self._meter, self._file = meter, file
        self._fingerprint = device.fingerprint
        if file.exists() and recorded_fingerprint(file) != device.fingerprint:
            raise MeasurementError(f"{file} is a recording of another device than '{device.name}'; name a new file")

    @property
    def has_energy(self) -> bool:
        """Whether the other meter gives energy."""
        return self._meter.has_energy

    def measure(self, model: Path) -> Mapping[str, Measurement]:
        """Measure and note it under the digest of the file and the name of its folder."""
        costs = self._meter.measure(model)
        noted = {metric: number.to_dict() for metric, number in costs.items()}
        self._note({digest_of(model): noted, model.resolve().parent.name: noted})
        return costs

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Pass on; latencies timed in turns are not noted, since each depends on its company."""
        return self._meter.compare(models, rounds)

    def _note(self, entries: Mapping[str, Any]) -> None:
        fingerprint = self._fingerprint.to_dict() if self._fingerprint else None
        draft = self._file.with_name(f".{self._file.name}.draft")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # The workers of a search note in turns, each with all that the others have noted.
        with self._file.with_name(f".{self._file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = _read(self._file)["models"] if self._file.exists() else {}
            content = {"version": VERSION, "fingerprint": fingerprint, "models": {**kept, **entries}}
            draft.write_text(json.dumps(content, indent=1) + "\n")
            os.replace(draft, self._file)


def digest_of(model: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        MeasurementError: it cannot be read.
    """
    try:
        return hashlib.sha256(model.read_bytes()).hexdigest()
    except OSError as error:
        raise MeasurementError(f"{model}: {error.strerror}; expected a model file") from error


def recorded_fingerprint(file: Path) -> Fingerprint | None:
    """Return whose measurements a recording holds, or None where it does not say.

    Raises:
        MeasurementError: the file is missing or no recording.
    """
    found = _read(file)["fingerprint"]
    if found is None:
        return None
    try:
        return fingerprint_from_dict(found)
    except (ValueError, AttributeError) as error:
        raise MeasurementError(f"{file}: {error}; record it again") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise MeasurementError(f"{file}: no recording ({error}); expected what device.record=FILE wrote") from error
    right = isinstance(content, dict) and content.get("version") == VERSION and isinstance(content.get("models"), dict)
    if not right or "fingerprint" not in content:
        raise MeasurementError(f"{file}: expected version {VERSION}, fingerprint and models; record it again")
    return content
