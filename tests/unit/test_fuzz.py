"""Damaged files are errors: ONNX models in the planner, planned programs in the kernels, for a bounded time each.

Longer runs by hand: scripts/fuzz_planner.py FOLDER SECONDS SEED, and build/kernels-fuzz SECONDS SEED FOLDER/*.nasq.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import onnx
import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "scripts"
SECONDS = 20
KINDS = {"convnet", "convnet_mixed", "convnet_int4", "transformer", "transformer_long", "qlinear"}
KINDS |= {"decoder", "decoder_int4", "decoder_fp32"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of every kind, with its program."""
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, str(SCRIPTS / "fuzz_models.py"), str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert {path.stem for path in folder.glob("*.nasq")} == KINDS
    return folder


@pytest.mark.timeout(300)
def test_damaged_models_run_or_are_refused_by_our_errors(models: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "fuzz_planner.py"), str(models), str(SECONDS), "0"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    counts = {(kind, said): int(count) for kind, said, count in re.findall(r"^(\w+): (.*): (\d+)$", ran.stdout, re.M)}
    # Both ends were met, or the damage was too little or too much to say anything.
    assert sum(count for (_, said), count in counts.items() if said == "ran") > 0, ran.stdout
    assert sum(count for (_, said), count in counts.items() if "ModelFileError" in said) > 0, ran.stdout


@pytest.mark.timeout(900)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="sanitizers are run on x86_64")
def test_damaged_programs_are_errors_and_read_nothing_out_of_bounds(models: Path) -> None:
    program = REPOSITORY / "build" / "kernels-fuzz"
    if os.environ.get("CI") == "true":
        command = ["make", "--no-print-directory", "kernels-fuzz"]
        made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
    if not program.is_file():
        pytest.skip("make kernels-fuzz builds it in a minute or two; CI=true builds it here")
    planned = sorted(map(str, models.glob("*.nasq")))
    ran = subprocess.run([str(program), str(SECONDS), "0", *planned], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-6000:]
    counts = re.findall(r": (\d+) refused when read, (\d+) .* fit, \d+ too large, (\d+) ran$", ran.stdout, re.M)
    assert len(counts) == len(KINDS)
    for refused, unfit, finished in counts:
        assert min(int(refused), int(unfit), int(finished)) > 0, ran.stdout


def test_a_seed_decides_the_damage(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from onnx_damage import CHANGES, damaged

    blob = (models / "transformer.onnx").read_bytes()
    first, again = (damaged(blob, Random("0-5"), ["Add", "Conv"]) for _ in range(2))
    assert first == again
    assert first != blob
    # Every kind of change changes something, on one of the kinds of models at least.
    for change in CHANGES:
        changed = 0
        for path in models.glob("*.onnx"):
            for seed in range(20):
                model = onnx.load(path)
                before = model.SerializePartialToString()
                try:
                    change(model, Random(seed), ["Add", "Conv"])
                except (IndexError, OverflowError, TypeError, ValueError):
                    continue
                changed += model.SerializePartialToString() != before
        assert changed > 0, change.__name__
