"""Remakes the experiment: python experiments/20261124_scheduler/remake.py.

Needs both cores to itself for some minutes: ONNX Runtime's default is a thread per core, and one that waits for a
core that is busy with something else is slow for a reason of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(REPOSITORY / "scripts")]

import onnxruntime
from bench_kernels import SAMPLED, models
from report import table, write_between

from nas.device import local_fingerprint
from nas.measure import host as machine
from nas.measure.harness import Harness, Run
from nas.measure.schedule import Scheduler, floating
from nas.measure.settings import TimingSettings
from nas.measure.versus import make_host, take_turns
from nas.runtime.inputs import random_inputs
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime

NETWORKS = (
    "mobilenetv2_224",
    "mobilenetv2_96",
    "mobilenetv2_32",
    "resnet18_224",
    "efficientnet_lite0_224",
    "vit_tiny",
    "deit_small",
)
EACH = 3  # of the sampled architectures


def main() -> None:
    """Decide for each network, time the decision against ONNX Runtime as a user gets it, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(machine.os.sched_getaffinity(0)))
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS, *SAMPLED])
    threads = parser.parse_args().threads
    runtimes = {"onnxruntime": OnnxRuntime(spinning=True), "native": NativeRuntime()}
    rows, ratios = [], []
    for key in parser.parse_args().networks:
        for number, (row, files) in enumerate(models(key, REPOSITORY / "build" / "bench-kernels")):
            if number == EACH:
                break
            name, model = row.model, files["U8S8"]
            decided = Scheduler(runtimes, threads).schedule(model)
            ratio, low, high, default_ms, ours_ms, busy = against_default(model, runtimes, decided.route, threads)
            ratios.append(ratio)
            others = [timed for timed in decided.routes if timed.route.floats and not timed.reason]
            in_float = max((timed.speedup for timed in others), default=None)
            rows.append(
                [
                    name,
                    decided.route.text,
                    f"{default_ms:.3f}",
                    f"{ours_ms:.3f}",
                    f"{ratio:.2f} ({low:.2f} to {high:.2f})" + (" !" if busy else ""),
                    f"{decided.routes[decided.chosen].difference:.1e}",
                    "refused" if in_float is None else f"{in_float:.2f}",
                ]
            )
            print(rows[-1], flush=True)
    columns = [
        "network, int8",
        "way taken",
        "default, ms",
        "taken, ms",
        "times as fast (quartiles)",
        "outputs differ by",
        "best way with parts in float, times as fast as int8 in ONNX Runtime",
    ]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"geometric mean over {len(ratios)} networks: {mean:.2f}")
    readme = HERE / "README.md"
    write_between(readme, "table", table(columns, rows))
    print_machine = local_fingerprint()
    features = " ".join(print_machine.features)
    write_between(
        readme,
        "mean",
        f"Geometric mean over {len(ratios)} networks: **{mean:.2f}**, slowest {min(ratios):.2f}. Machine: "
        f"{print_machine.cpu}, {threads} cores, {features}; onnxruntime {onnxruntime.__version__}.",
    )


def against_default(
    model: Path, runtimes: dict[str, OnnxRuntime | NativeRuntime], route: object, threads: int
) -> tuple[float, float, float, float, float, str]:
    """Return ratio, quartiles, both medians in ms and what disturbed, of a session with default options and the route."""
    from nas.measure.schedule import Route

    assert isinstance(route, Route)
    default = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    with floating(model) as version:
        session = runtimes[route.runtime].load(version(route.floats), threads=route.threads)
    given = random_inputs(session.inputs)
    runs: dict[str, Run] = {"default": lambda: default.run(None, given), "taken": lambda: session.run(given)}
    with machine.pinned((), threads) as cores:
        host, _ = make_host(cores, True, threads)
        settings = TimingSettings(max_anchor_spread=0.1, tries=5)
        turns = take_turns(runs, "default", Harness(settings, host), rounds=40)
    ratio, times = turns.ratio("default", "taken"), turns.times_ms()
    medians = times["default"]["median"], times["taken"]["median"]
    return ratio.median, ratio.q25, ratio.q75, *medians, turns.disturbance


if __name__ == "__main__":
    main()
