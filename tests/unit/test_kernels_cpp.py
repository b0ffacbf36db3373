"""The C++ tests of the kernels: every instruction set against the portable reference, bit for bit."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nas import _kernels

REPOSITORY = Path(__file__).parents[2]
FAMILIES = {"attention", "bytes", "conv", "conv_f32", "depthwise", "elementwise", "gemm", "int4", "norm"}
# Processors that QEMU imitates, with the levels that they have.
ARM_PROCESSORS = {
    "max": {"portable", "neon", "neondot", "neoni8mm"},
    "neoverse-n1": {"portable", "neon", "neondot"},
    "cortex-a53": {"portable", "neon"},
}
# The gemm that a level runs: its own, or the best of a lower level.
GEMM = {
    "portable": "portable",
    "avx2": "avx2",
    "avx_vnni": "avxvnni",
    "avx512vl_vnni": "avx512vlvnni",
    "avx512": "avx2",
    "avx512_vnni": "avx512vnni",
    "neon": "neon",
    "neondot": "neondot",
    "neoni8mm": "neoni8mm",
}
# The product with 4-bit weights likewise.
INT4 = GEMM | {"neoni8mm": "neondot"}


def _built(target: str) -> Path:
    """The test program, compiled anew where sources changed."""
    command = ["make", "--no-print-directory", target]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return REPOSITORY / "build" / target


def _ran(command: list[str], forced: str = "") -> dict[tuple[str, str], str]:
    """Run the program and return which kernel ran per family and level; any failed check fails the test."""
    environment = {**os.environ, "NAS_FORCE_ISA": forced}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    checks = re.search(r"^(\d+) checks, 0 failures$", ran.stdout, re.MULTILINE)
    assert checks is not None
    assert int(checks[1]) > 10_000
    found = re.findall(r"^(\w+) (\w+) (\w+)$", ran.stdout, re.MULTILINE)
    return {(family, level): kernel for family, level, kernel in found}


def _assert_kernels(ran: dict[tuple[str, str], str], levels: set[str]) -> None:
    assert set(ran) == {(family, level) for family in FAMILIES for level in levels}
    for level in levels:
        assert ran["gemm", level].endswith(f"_{GEMM[level]}")
        assert ran["int4", level].endswith(f"_{INT4[level]}")
        # Convolutions have kernels for the same levels.
        assert ran["conv", level].endswith(f"_{GEMM[level]}")
        assert ran["depthwise", level].endswith(f"_{GEMM[level]}")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the target is for x86_64")
def test_every_kernel_equals_the_reference() -> None:
    program = _built("kernels-test-x86_64")
    levels = set(_kernels.available_isas())
    _assert_kernels(_ran([str(program)]), levels)
    for level in levels:
        _assert_kernels(_ran([str(program)], forced=level), {level})


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the target is for x86_64")
def test_no_kernel_reads_or_writes_beyond_its_buffers() -> None:
    program = REPOSITORY / "build" / "kernels-test-sanitized"
    if os.environ.get("CI") == "true":
        _built(program.name)
    if not program.is_file():
        pytest.skip("make kernels-test-sanitized builds it in a minute or two; CI=true builds it here")
    _assert_kernels(_ran([str(program)]), set(_kernels.available_isas()))


@pytest.mark.parametrize("processor", ARM_PROCESSORS)
def test_every_arm_kernel_equals_the_reference(processor: str) -> None:
    for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(tool) is None:
            message = f"{tool} is missing; scripts/install_test_tools.sh installs it"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
    program = _built("kernels-test-aarch64")
    _assert_kernels(_ran(["qemu-aarch64", "-cpu", processor, str(program)]), ARM_PROCESSORS[processor])
