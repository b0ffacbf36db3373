"""Damages ONNX models and loads them into the native runtime: each has to run or to be refused by an error of ours.

Usage: scripts/fuzz_planner.py FOLDER SECONDS [SEED]      FOLDER holds models, as scripts/fuzz_models.py writes them
What is done to a file is decided by SEED and its number alone; with a NUMBER behind SEED the outcomes from there on are
printed. A child process does the work under a limit of memory and of seconds per file, so that crashes, hangs and huge
allocations are findings too. Exit status 1 where there were any.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

_MEMORY = 3 * 2**30
# Of a processor for one file, and of the clock, which on a busy machine are many more.
_CPU_SECONDS, _SECONDS = 20.0, 200


def outcome(blob: bytes, path: Path) -> str:
    """Return ``ran``, the class of our error, or the traceback of what must not happen."""
    from nas.errors import NasError
    from nas.runtime.inputs import random_inputs
    from nas.runtime.native import NativeRuntime

    path.write_bytes(blob)
    try:
        session = NativeRuntime().load(path)
        session.run(random_inputs(session.inputs))
    except NasError as error:
        return f"refused by {type(error).__name__}"
    except BaseException:
        return f"FAULT {traceback.format_exc()}"
    return "ran"


def work(folder: Path, first: int, seconds: float, seed: str) -> None:
    """Try files from number ``first`` on, printing each number before and its outcome behind, a JSON line each."""
    import warnings

    warnings.simplefilter("ignore")
    from onnx_damage import damaged

    from nas.runtime.plan.model import known_operators

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    models = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}
    operators = [*known_operators(), "ReduceMax", "Tile", "Cast", "Pad", "Expand", "If", "Loop", "ConvTranspose"]
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as work_folder:
        number = first
        while time.monotonic() < until:
            random = Random(f"{seed}-{number}")
            name = random.choice(list(models))
            print(json.dumps([number, name]), flush=True)
            signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS)
            signal.alarm(_SECONDS)
            said = outcome(damaged(models[name], random, operators), Path(work_folder, "model.onnx"))
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
            signal.alarm(0)
            print(json.dumps([number, name, said]), flush=True)
            number += 1


def main(folder: Path, seconds: float, seed: str) -> int:
    """Run workers until the time is up and report."""
    until, first = time.monotonic() + seconds, 0
    outcomes: Counter[str] = Counter()
    faults: dict[str, list[int]] = {}
    while (left := until - time.monotonic()) > 0:
        command = [sys.executable, __file__, str(folder), str(left), seed, str(first)]
        worker = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in worker.stdout.splitlines()]
        for number, name, *said in lines:
            first = number + 1
            if said:
                kind = f"{name}: {said[0].split(maxsplit=1)[0] if said[0].startswith('FAULT') else said[0]}"
                outcomes[kind] += 1
                if said[0].startswith("FAULT"):
                    faults.setdefault(said[0], []).append(number)
        if worker.returncode != 0:
            ended = f"the process ended with {worker.returncode}: {worker.stderr[-2000:]}"
            faults.setdefault(ended, []).append(first - 1)
            if not lines:
                break
    for kind, count in sorted(outcomes.items()):
        print(f"{kind}: {count}")
    for fault, numbers in faults.items():
        print(f"--- files {numbers[:5]} of seed {seed}, {len(numbers)} in all:\n{fault}")
    print(f"{sum(outcomes.values())} files, {sum(map(len, faults.values()))} faults of {len(faults)} kinds")
    return 1 if faults else 0


if __name__ == "__main__":
    given = sys.argv[1:]
    where, how_long, chosen = Path(given[0]), float(given[1]), given[2] if len(given) > 2 else "0"
    if len(given) > 3:
        work(where, int(given[3]), how_long, chosen)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        sys.exit(main(where, how_long, chosen))
