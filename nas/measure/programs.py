"""What ``nasq-run`` needs on a board: the program built for its processor, and models planned on this machine."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nas
from nas.errors import ConfigError, MeasurementError, unknown_name

# What runs on a board: Python, which is sent as source, or the program of that name.
RUNNERS = ("python", "nasq-run")
BARE = RUNNERS[1]
# Of the ELF header (System V ABI): e_machine to what uname says.
_MACHINES = {62: "x86_64", 183: "aarch64", 40: "arm", 3: "i686", 243: "riscv64"}


def check_runner(runner: str, program: str | None) -> None:
    """Refuse settings of a device that make no sense.

    Raises:
        ConfigError: an unknown runner, or a program that nothing would run.
    """
    if runner not in RUNNERS:
        raise unknown_name("runner", runner, RUNNERS)
    if program is not None and runner != BARE:
        raise ConfigError(f"device.program={program} with runner={runner}; expected device.runner={BARE}")


def find_program(isa: str, given: str | None) -> Path:
    """Return the program for a board, after a look at whom it was built for.

    Args:
        isa: of the board, as its ``uname -m`` says.
        given: file that a user named, or None for the one that ``make nasq-run`` or ``make nasq-run-aarch64`` builds.

    Raises:
        MeasurementError: there is none, or it is for another processor.
    """
    package = Path(nas.__file__).resolve().parent
    built = f"nasq-run-{isa}"
    places = [Path(given).expanduser()] if given else [package / "lib" / built, package.parent / "build" / built]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        target = "nasq-run" if isa == "x86_64" else f"nasq-run-{isa}"
        raise MeasurementError(
            f"{' and '.join(map(str, places))}: no such file; expected nasq-run for the board's {isa}. "
            f"Build it by 'make {target}', or name one by device.program=FILE"
        )
    made_for = machine_of(found)
    if made_for != isa:
        raise MeasurementError(
            f"{found} is built for {made_for or 'no processor (it is no ELF program)'}, and the board says {isa}; "
            "expected one for the board, named by device.program=FILE"
        )
    return found


def machine_of(program: Path) -> str | None:
    """Return for which machine a program was built, or None where it is no ELF file."""
    with program.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    (number,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])
    return _MACHINES.get(number, f"ELF machine {number}")


def planned(model: Path, sizes: Mapping[str, int]) -> bytes:
    """Return the program of a model at one way of timing it.

    Args:
        model: checked.
        sizes: of its free axes, 1 where one is missing.

    Raises:
        ModelFileError: an operator is not known, by name.
        MeasurementError: a language model with a cache, which the program does not fill as far as ``sizes`` say.
    """
    from nas.runtime.model_file import check_model_file
    from nas.runtime.plan.cache import find_cache
    from nas.runtime.plan.model import plan

    checked = check_model_file(model)
    if find_cache(checked.graph) is not None:
        raise MeasurementError(
            f"{model} is a language model with a cache, which nasq-run times at a full cache only; expected a board "
            "with Python (device.runner=python) for it"
        )
    return plan(model, checked, sizes).to_bytes()


def split_outputs(plan: bytes, said: bytes) -> list[NDArray[Any]]:
    """Return the outputs of a plan from their raw bytes, one behind the other.

    Raises:
        MeasurementError: they are of another length.
    """
    from nas import _kernels

    found, at = [], 0
    for shape, named in _kernels.Program(plan).outputs:
        dtype = "float32" if named == "float" else named
        size = np.dtype(dtype).itemsize * math.prod(shape)
        found.append((said[at : at + size], dtype, shape))
        at += size
    if at != len(said):
        raise MeasurementError(f"nasq-run wrote {len(said)} bytes of outputs; expected {at}")
    return [np.frombuffer(data, dtype).reshape(shape) for data, dtype, shape in found]


@lru_cache(maxsize=1)
def planned_anchor() -> bytes:
    """Return the program of the anchor."""
    import tempfile

    from nas.measure.anchor import write_anchor

    with tempfile.TemporaryDirectory(prefix="nas-anchor-") as folder:
        write_anchor(Path(folder) / "anchor.onnx")
        return planned(Path(folder) / "anchor.onnx", {})
