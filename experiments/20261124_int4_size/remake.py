"""Remakes the experiment: python experiments/20261124_int4_size/remake.py --data FOLDER.

Trains what is not trained yet. Timings want a machine at rest; everything else does not care.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np
import onnxruntime
from networks import NETWORKS, trained
from report import table, write_between
from trained import Trained

from nas.accuracy.answers import answer_each
from nas.accuracy.scoring import score_split
from nas.architecture import Precision
from nas.device import local_fingerprint
from nas.measure import host as machine
from nas.measure.harness import Harness, Run
from nas.measure.settings import TimingSettings
from nas.measure.versus import make_host, take_turns
from nas.protocols import Runtime
from nas.runtime.file_parts import file_parts
from nas.runtime.inputs import random_inputs
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.program_file import write_program

SMALLER = 0.85  # the bar: weights smaller than fp32 by this share
LOOKED_AT = 1000  # validation inputs on which blocks are compared
LOADS = 8  # of all files in orders that change, since where memory lies shifts the time of a load
ROUNDS = 20  # blocks of each per load
RUNTIMES: dict[str, Runtime] = {"native": NativeRuntime(), "onnxruntime": OnnxRuntime()}


@dataclass(frozen=True)
class Block:
    """What becomes of the network where one block has weights of 4 bits and all others of 8.

    Args:
        name: of the block.
        saved: bytes.
        error: mean squared difference of the logits from those of int8, as a share of their variance.
    """

    name: str
    saved: int
    error: float


def stored(path: Path) -> int:
    """Return the bytes of all numbers of a file."""
    return file_parts(path).numbers


def blocks_of(network: Trained) -> list[Block]:
    """Try each block in 4 bits on validation inputs."""
    runtime = OnnxRuntime()
    samples, _ = network.dataset.some("validation", network.encoding, LOOKED_AT)
    int8 = network.quantized("int8", dict.fromkeys(network.blocks, Precision.INT8))
    reference = answer_each(runtime.load(int8), samples)
    found = []
    for name in network.blocks:
        precision = {**dict.fromkeys(network.blocks, Precision.INT8), name: Precision.INT4}
        path = network.quantized(f"only_{name}", precision)
        change = answer_each(runtime.load(path), samples) - reference
        found.append(Block(name, stored(int8) - stored(path), float(np.square(change).mean() / reference.var())))
    return found


def mix(network: Trained, blocks: list[Block]) -> dict[str, Precision]:
    """Return int4 with those blocks back in 8 bits whose bytes buy most, as long as the bar on the size is held.

    Decided on validation inputs; the test inputs are not seen.
    """
    full = stored(network.fp32)
    used = stored(network.quantized("int4", dict.fromkeys(network.blocks, Precision.INT4)))
    precision = dict.fromkeys(network.blocks, Precision.INT4)
    for block in sorted(blocks, key=lambda block: -block.error / block.saved):
        if used + block.saved <= (1 - SMALLER) * full:
            precision[block.name] = Precision.INT8
            used += block.saved
    return precision


def compare_times(files: dict[str, Path], runtime: Runtime) -> dict[str, tuple[float, float, float, float]]:
    """Time all files in turns; return per file the median in ms, and its ratio to int8 with quartiles."""
    ratios: dict[str, list[float]] = {name: [] for name in files}
    times: dict[str, list[float]] = {name: [] for name in files}
    names = list(files)
    for load in range(LOADS):
        turned = names[load % len(names) :] + names[: load % len(names)]
        sessions = {name: runtime.load(files[name]) for name in turned}
        given = random_inputs(sessions["int8"].inputs)
        runs: dict[str, Run] = {name: partial(session.run, given) for name, session in sessions.items()}
        with machine.pinned((), 1) as cores:
            host, _ = make_host(cores, realtime=True)
            turns = take_turns(runs, "int8", Harness(TimingSettings(tries=3), host), rounds=ROUNDS)
        blocks = {name: turns.sample.block_medians(index) for index, name in enumerate(turns.names)}
        for name in files:
            ratios[name].extend(blocks[name] / blocks["int8"])
            times[name].extend(blocks[name])
    result = {}
    for name in files:
        low, middle, high = np.percentile(ratios[name], [25, 50, 75])
        result[name] = (float(np.median(times[name])), float(middle), float(low), float(high))
    return result


def rows_of(network: Trained, files: dict[str, Path]) -> list[list[str]]:
    """Return a row per precision."""
    quantized = {name: path for name, path in files.items() if name != "fp32"}
    clocks = {name: compare_times(quantized, runtime) for name, runtime in RUNTIMES.items()}
    full, rows = file_parts(files["fp32"]), []
    scores = {name: score(network, path, RUNTIMES["onnxruntime"]) for name, path in files.items()}
    for name, path in files.items():
        parts = file_parts(path)
        program = path.with_suffix(".nasq")
        write_program(path, program)
        planned = file_parts(program)
        timed = [show(clocks[clock][name]) if name in quantized else "-" for clock in RUNTIMES]
        rows.append(
            [
                name,
                f"{parts.numbers:,}",
                f"{1 - parts.numbers / full.numbers:.2%}",
                f"{parts.file:,}",
                f"{parts.rest:,}",
                f"{planned.file:,}",
                f"{planned.rest:,}",
                f"{scores[name]:.2%}",
                f"{100 * (scores[name] - scores['fp32']):+.2f}",
                f"{score(network, path, RUNTIMES['native']):.2%}" if name in quantized else "-",
                *timed,
            ]
        )
        print(rows[-1], flush=True)
    return rows


def score(network: Trained, path: Path, runtime: Runtime) -> float:
    """Return the share of right answers on the whole test set."""
    return score_split(runtime.load(path), network.dataset, "test", network.encoding)


def show(timed: tuple[float, float, float, float]) -> str:
    """Return a time and its ratio to int8."""
    median, ratio, low, high = timed
    return f"{median:.4f}, {ratio:.3f} ({low:.3f} to {high:.3f})"


def blocks_table(blocks: list[Block], precision: dict[str, Precision]) -> str:
    """Return a row per block."""
    rows = [[b.name, f"{b.saved:,}", f"{b.error:.1e}", f"{precision[b.name]}"] for b in blocks]
    return table(["block", "bytes saved by int4", "squared error of the logits, int4 alone", "in `mixed`"], rows)


def describe(network: Trained) -> str:
    """Return one line on the network."""
    sizes = {name: len(split) for name, split in network.dataset.splits.items()}
    return (
        f"{network.report['parameters']:,} parameters, {network.report['epochs_run']} epochs on {sizes['train']:,} "
        f"{network.dataset.task.unit}; {sizes['validation']:,} to validate, {sizes['test']:,} to test."
    )


def main() -> None:
    """Train, mix, score, time, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10 and clinc150")
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    readme = HERE / "README.md"
    columns = [
        *("weights", "bytes of weights", "smaller than fp32", "model.onnx", "of it no weights"),
        *("model.nasq", "of it no weights", "top-1, test", "points to fp32", "top-1, native"),
        *("native, ms, over int8 (quartiles)", "ONNX Runtime, ms, over int8 (quartiles)"),
    ]
    for name in arguments.names:
        network = trained(name, arguments.data)
        blocks = blocks_of(network)
        precision = mix(network, blocks)
        files = {
            "fp32": network.fp32,
            "int8": network.quantized("int8", dict.fromkeys(network.blocks, Precision.INT8)),
            "int4": network.quantized("int4", dict.fromkeys(network.blocks, Precision.INT4)),
            "mixed": network.quantized("mixed", precision),
        }
        write_between(readme, name, f"{describe(network)}\n\n{table(columns, rows_of(network, files))}")
        write_between(readme, f"{name}-blocks", blocks_table(blocks, precision))
    here = local_fingerprint()
    features = " ".join(here.features)
    write_between(readme, "machine", f"Machine: {here.cpu}, {features}; onnxruntime {onnxruntime.__version__}.")


if __name__ == "__main__":
    main()
