"""Remakes the experiment: python experiments/20261124_native_top1/remake.py --data FOLDER.

Trains what is not trained yet; nothing is timed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np
import onnxruntime
from networks import NETWORKS, trained
from numpy.typing import NDArray
from report import table, write_between
from trained import Trained

from nas.accuracy.answers import Comparison, answer_each, compare_answers, continue_each
from nas.architecture import Precision
from nas.device import local_fingerprint
from nas.protocols import Runtime
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime

ANSWERS = 1000
WINDOWS, PROMPT = 10, 29  # of 128 tokens: a prompt and 99 tokens one by one give 100 answers each
PRECISIONS = {"fp32": None, "int8": Precision.INT8, "int4": Precision.INT4}


def logits(network: Trained, path: Path, runtime: Runtime) -> NDArray[np.floating]:
    """Return 1,000 answers on test inputs; a language model continues ten passages with its cache."""
    session = runtime.load(path)
    if network.dataset.task.kind == "language_model":
        windows, _ = network.dataset.some("test", network.encoding, WINDOWS)
        return continue_each(session, windows, PROMPT)
    samples, _ = network.dataset.some("test", network.encoding, ANSWERS)
    return answer_each(session, samples)


def targets(network: Trained) -> NDArray[np.int64]:
    """Return what would have been right."""
    if network.dataset.task.kind == "language_model":
        _, following = network.dataset.some("test", network.encoding, WINDOWS)
        return cast(NDArray[np.int64], following[:, PROMPT - 1 :].reshape(-1))
    return network.dataset.some("test", network.encoding, ANSWERS)[1]


def row(name: str, kind: str, right: NDArray[np.int64], said: dict[str, NDArray[np.floating]]) -> list[str]:
    """Compare native with ONNX Runtime on the same file, and both with fp32."""
    found: Comparison = compare_answers(said["native"], said["onnxruntime"])
    to_float = [compare_answers(said[runtime], said["fp32"]).equal for runtime in ("native", "onnxruntime")]
    correct = [int((said[runtime].argmax(axis=1) == right).sum()) for runtime in ("native", "onnxruntime")]
    others = found.margins[~found.same]
    return [
        name,
        kind,
        f"{found.equal} of {found.answers}",
        f"{found.gap(100):.2e}",
        f"{found.gap(99):.2e}",
        f"{found.gap(50):.2e}",
        f"{others.max():.1e}" if len(others) else "-",
        f"{correct[0]} / {correct[1]}",
        f"{to_float[0]} / {to_float[1]}" if kind != "fp32" else "-",
    ]


def main() -> None:
    """Train, quantize, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10, clinc150 and tiny_shakespeare")
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    runtimes: dict[str, Runtime] = {"native": NativeRuntime(), "onnxruntime": OnnxRuntime()}
    rows, described = [], []
    for name in arguments.names:
        network = trained(name, arguments.data)
        right = targets(network)
        full = logits(network, network.fp32, runtimes["onnxruntime"])
        for kind, precision in PRECISIONS.items():
            path = network.fp32
            if precision is not None:
                path = network.quantized(kind, dict.fromkeys(network.blocks, precision))
            said = {name: logits(network, path, runtime) for name, runtime in runtimes.items()}
            rows.append(row(name, kind, right, {**said, "fp32": full}))
            print(rows[-1], flush=True)
        report = network.report
        metric, value = "accuracy", f"{report['accuracy_fp32']:.1%}"
        if network.dataset.task.kind == "language_model":
            metric, value = "perplexity", f"{report['perplexity_fp32']:.1f}"
        described.append([name, f"{report['parameters']:,}", report["epochs_run"], f"{metric} {value}"])
    columns = [
        *("network", "weights", "same top-1", "largest gap", "99 %", "median"),
        *("largest margin where top-1 differs", "right: native / ONNX Runtime", "top-1 of fp32: native / ONNX Runtime"),
    ]
    here, readme = local_fingerprint(), HERE / "README.md"
    write_between(readme, "table", table(columns, rows))
    write_between(readme, "networks", table(["network", "parameters", "epochs", "on validation, fp32"], described))
    features = " ".join(here.features)
    write_between(
        readme,
        "machine",
        f"Machine: {here.cpu}, {features}; {NativeRuntime().version.rpartition('-')[2]} kernels, onnxruntime "
        f"{onnxruntime.__version__}.",
    )


if __name__ == "__main__":
    main()
