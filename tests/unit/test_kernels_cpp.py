"""The C++ tests of the kernels: every instruction set against the portable reference, bit for bit."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from nas import _kernels

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program() -> Path:
    """The test program, compiled anew where sources changed."""
    built = subprocess.run(
        ["make", "--no-print-directory", "kernels-test-x86_64"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return REPOSITORY / "build" / "kernels-test-x86_64"


@pytest.mark.parametrize("isa", _kernels.available_isas())
def test_every_kernel_equals_the_reference(program: Path, isa: str) -> None:
    ran = subprocess.run(
        [program], env={**os.environ, "NAS_FORCE_ISA": isa}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    kernels = re.findall(r"^\w+ (\S+) \S+$", ran.stdout, re.MULTILINE)
    assert set(kernels) == {isa}
    checks = re.search(r"^(\d+) checks, 0 failures$", ran.stdout, re.MULTILINE)
    assert checks is not None
    assert int(checks[1]) > 1000
