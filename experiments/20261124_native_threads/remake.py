"""Remakes the experiment: nice -n -10 .venv/bin/python experiments/20261124_native_threads/remake.py.

Sessions are made and run under real-time priority where that is permitted, so that the threads of both runtimes have it
too: otherwise a thread that lost its processor to another process would be what is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(REPOSITORY / "scripts")]

import numpy as np
import onnxruntime
from bench_kernels import models
from report import table, write_between

from nas.device import local_fingerprint
from nas.runtime.inputs import random_inputs
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime

NETWORKS = (
    *("mobilenetv2_224", "mobilenetv2_96", "mobilenetv2_32", "resnet18_224", "efficientnet_lite0_224", "vit_tiny"),
    *("convnet_k3", "transformer_10"),
)
EACH = 3  # of the sampled architectures
LONGEST_S = 0.1  # of a block
PRIORITY = 50

Run = Callable[[], object]


@contextlib.contextmanager
def first() -> Iterator[bool]:
    """Give this thread, and those that it starts, real-time priority; False where that is not permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def main() -> None:
    """Time all networks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    rows, gains, leads = [], [], []
    for key in options.networks:
        for number, (row, files) in enumerate(models(key, REPOSITORY / "build" / "bench-kernels")):
            if number == EACH:
                break
            times, realtime = timed(files["U8S8"], options.blocks)
            gain, lead = ratio(times, "native 1", "native 2"), ratio(times, "default", "native 2")
            best = ratio(times, "onnxruntime 1", "native 1")
            gains.append(gain[0])
            leads.append(lead[0])
            medians = [f"{np.median(times[name]) * 1e3:.3f}" for name in times]
            rows.append([row.model, *medians, text(gain), text(best), text(lead)])
            print(rows[-1], flush=True)
    columns = [
        *("network, int8", "native, 1 thread, ms", "native, 2, ms", "ONNX Runtime, 1, ms", "default, ms"),
        *("native: 1 / 2", "1 thread: ONNX Runtime / native", "ONNX Runtime, default / native, 2"),
    ]
    print(table(columns, rows))
    if not options.save:
        return
    write_between(HERE / "README.md", "table", table(columns, rows))
    machine = local_fingerprint()
    said = f"Geometric means over {len(rows)} networks: two native threads against one {mean(gains):.2f}, against ONNX Runtime's "
    said += f"default {mean(leads):.2f}. Machine: {machine.cpu}, {machine.cores} cores, {' '.join(machine.features)}; "
    said += f"onnxruntime {onnxruntime.__version__}; {'real-time priority' if realtime else 'no real-time priority'}."
    write_between(HERE / "README.md", "mean", said)


def timed(model: Path, blocks: int) -> tuple[dict[str, list[float]], bool]:
    """Return the median seconds per block of all ways to run a file, timed in turns, and whether priority was given."""
    with first() as realtime:
        sessions = {
            "native 1": NativeRuntime().load(model),
            "native 2": NativeRuntime().load(model, threads=2),
            "onnxruntime 1": OnnxRuntime().load(model),
        }
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 4
        default = onnxruntime.InferenceSession(str(model), quiet, providers=["CPUExecutionProvider"])
    given = random_inputs(sessions["native 1"].inputs)
    runs: dict[str, Run] = {name: (lambda session=session: session.run(given)) for name, session in sessions.items()}
    runs["default"] = lambda: default.run(None, given)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(blocks + 2):
        for position in range(len(runs)):
            name = list(runs)[(position + turn) % len(runs)]
            median = block(runs[name])
            if turn >= 2:
                times[name].append(median)
    return times, realtime


def block(run: Run) -> float:
    """Return the median of some runs in seconds; rests afterwards, so that waiting threads of the runtime fall asleep."""
    times: list[float] = []
    with first():
        start = time.perf_counter()
        run()
        run()
        while len(times) < 10 or (time.perf_counter() - start < LONGEST_S / 4 and len(times) < 100):
            before = time.perf_counter()
            run()
            times.append(time.perf_counter() - before)
            if time.perf_counter() - start > LONGEST_S:
                break
        took = time.perf_counter() - start
    time.sleep(0.01 + took / 4)
    return float(np.median(times))


def ratio(times: Mapping[str, list[float]], over: str, under: str) -> tuple[float, float, float]:
    """Return median and quartiles over the blocks."""
    low, middle, high = np.percentile(np.array(times[over]) / np.array(times[under]), [25, 50, 75])
    return float(middle), float(low), float(high)


def text(found: tuple[float, float, float]) -> str:
    """Return a ratio with its quartiles."""
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def mean(values: list[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    main()
