"""An Arm Linux under QEMU's user mode: whether a model works there and what it computes, never how long it takes."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nas.device import Device, Emulation, Fingerprint
from nas.errors import MeasurementError
from nas.measure.archive import start_arguments
from nas.measure.child import death
from nas.measure.link import LinkedRunner
from nas.measure.programs import BARE, find_program, planned, split_outputs
from nas.protocols import Runtime

# QEMU translates the interpreter, numpy and the runtime while they start.
_START_S = 180.0
_REQUEST_S = 120.0
_MEMORY_MIB = 4096


class EmulatedDevice:
    """Runs model files on an emulated processor.

    Args:
        device: with transport ``emulated``; its runner is Python in the root, or ``nasq-run`` alone.
        runtime: that the root holds for its processor; the native one for ``nasq-run``.

    Raises:
        MeasurementError: the emulator or the root is not there.
    """

    def __init__(self, device: Device, runtime: Runtime) -> None:
        if not isinstance(device.reach, Emulation):
            raise MeasurementError(f"device '{device.name}' has no root to emulate; set device.root")
        self._device, self._runtime, self._reach = device, runtime, device.reach
        self._root = Path(self._reach.root).expanduser().resolve()
        if shutil.which(self._reach.emulator) is None:
            raise MeasurementError(f"'{self._reach.emulator}' is not installed; on Debian: apt-get install qemu-user")
        if self._reach.runner == BARE:
            if runtime.name != "native":
                raise MeasurementError(
                    f"runner={BARE} runs native programs, not '{runtime.name}'; choose runtime=native"
                )
            self._program = find_program(device.isa, self._reach.program)
        elif not self._python.exists():
            raise MeasurementError(f"{self._root} holds no {self._python.name}; make it with scripts/arm64_root.sh")

    @property
    def has_energy(self) -> bool:
        """False."""
        return False

    def measure(self, model: Path) -> NoReturn:
        """Refuse.

        Raises:
            MeasurementError: always.
        """
        raise self._refusal()

    def compare(self, models: Sequence[Path], rounds: int) -> NoReturn:
        """Refuse.

        Raises:
            MeasurementError: always.
        """
        raise self._refusal()

    def outputs(self, model: Path, inputs: Mapping[str, NDArray[Any]]) -> tuple[list[NDArray[Any]], Fingerprint | None]:
        """Return what a model computes there, and which machine the runner believes itself on; nasq-run has no belief.

        Args:
            model: file whose weights are inside.
            inputs: by name, in the order of the file.

        Raises:
            CandidateError, ModelFileError, MeasurementError: as a runner reports them.
        """
        if self._reach.runner == BARE:
            return self._program_outputs(model, list(inputs.values())), None
        kind = type(self._runtime)
        with LinkedRunner(self._command(), f"the emulated {self._reach.cpu}", _START_S) as runner:
            runner.request(
                "start",
                _START_S,
                runtime=f"{kind.__module__}:{kind.__qualname__}",
                arguments={},
                threads=1,
                affinity=[],
                memory_limit_mib=_MEMORY_MIB,
            )
            with tempfile.TemporaryDirectory(prefix="hwnas-inputs-") as folder:
                sent = {}
                for index, (name, array) in enumerate(inputs.items()):
                    file = Path(folder) / f"{index}.npy"
                    np.save(file, array, allow_pickle=False)
                    sent[name] = runner.place(file)
            reply = runner.request("infer", _REQUEST_S, model=runner.place(model), inputs=sent)
        return [_array(output) for output in reply["outputs"]], runner.fingerprint

    def _program_outputs(self, model: Path, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        plan = planned(model, {})
        with tempfile.TemporaryDirectory(prefix="hwnas-emulated-") as name:
            folder = Path(name)
            (folder / "model.nasq").write_bytes(plan)
            (folder / "inputs").write_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in inputs))
            files = ["model.nasq", "--input", "inputs", "--output", "outputs", "--blocks", "0"]
            command = [self._reach.emulator, "-cpu", self._reach.cpu, str(self._program.resolve()), *files]
            ran = subprocess.run(command, cwd=folder, capture_output=True, timeout=_REQUEST_S, check=False)
            if ran.returncode:
                raise death(ran.returncode, "nasq-run", ran.stderr[-2000:].decode(errors="replace").strip())
            return split_outputs(plan, (folder / "outputs").read_bytes())

    @property
    def _python(self) -> Path:
        return self._root / "usr/bin/python3"

    def _command(self) -> list[str]:
        home, packages = self._root / "usr", self._root / "opt/hwnas"
        # Given to the emulated process alone: the emulator itself runs in our own environment.
        settings = [f"PYTHONHOME={home}", f"PYTHONPATH={packages}"]
        given = [word for setting in settings for word in ("-E", setting)]
        emulator = [self._reach.emulator, "-L", str(self._root), "-cpu", self._reach.cpu, *given]
        return [*emulator, str(self._python), *start_arguments(0.0, -1.0)]

    def _refusal(self) -> MeasurementError:
        return MeasurementError(
            f"device '{self._device.name}' is emulated ({self._reach.emulator} -cpu {self._reach.cpu}): how long the "
            "emulator takes says nothing about the processor, so there is no latency, memory or energy. Predict costs "
            "with cost=predicted on a device such as rpi5, or time a real one with device=ssh."
        )


def _array(output: Mapping[str, Any]) -> NDArray[Any]:
    data = np.frombuffer(base64.b64decode(output["data"], validate=True), np.dtype(str(output["dtype"])))
    return data.reshape([int(size) for size in output["shape"]])
