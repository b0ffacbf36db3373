"""Compares the native runtime with ONNX Runtime and, where installed, OpenVINO: ``make bench-kernels [ARGS="..."]``.

Per model everything is timed in turns in this one process, pinned, one thread, batch 1: blocks of 10 runs, at least 20
of them, bursts under real-time priority where permitted, samples redone while the machine is busy (see
``nas.measure.harness``). A ratio is the median over the blocks of (the other's block median / the native one's), with
its quartiles. The opponent is the fastest of ONNX Runtime's variants of the same network: U8S8 per channel, and dynamic
int8 where the network has attention; for a language model's next token, 4-bit weights with and without fused attention.
What the native runtime cannot run is printed with the reason.

``aarch64_instructions`` is no time: the instructions of an inference on ARM, ours over ONNX Runtime's (see
``arm_instructions.py``).

The table and all readings are saved under ``experiments/20261124_native_kernels/`` with the machine's fingerprint; the
last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arm_instructions import CPU, count
from bench_decoder import WORDS, FusedDecoder, prompted, write_decoder

from nas.architecture import Precision
from nas.data import Task
from nas.device import local_fingerprint
from nas.errors import NasError
from nas.measure import host as machine
from nas.measure.harness import Harness, Run
from nas.measure.settings import TimingSettings
from nas.measure.versus import Difference, differences, make_host, take_turns
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_fp32
from nas.runtime.inputs import random_inputs
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.openvino import openvino_inference
from nas.testing.zoo import ZOO, write_zoo_model
from search_spaces.convnet import ConvNet
from search_spaces.transformer import Transformer

REPOSITORY = Path(__file__).parents[1]
EXPERIMENT = REPOSITORY / "experiments" / "20261124_native_kernels"
SAMPLED = {"convnet_k3": 10, "convnet_k57": 10, "transformer_10": 10}
# Instructions of one inference on ARM, counted under QEMU; see arm_instructions.py.
COUNTED = {"aarch64_instructions": "mobilenetv2_96"}
DECODER = "decoder_token"
KEYS = (*ZOO, *SAMPLED, DECODER, *COUNTED)


@dataclass
class Row:
    """One model."""

    key: str
    model: str
    reason: str = ""
    onnxruntime: str = ""
    native: str = ""
    ms: dict[str, dict[str, float]] = field(default_factory=dict)
    ratios: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    differing_bytes: int | None = None
    compared_bytes: int = 0
    largest_difference: float = 0.0
    disturbance: str = ""
    instructions: dict[str, list[float]] = field(default_factory=dict)


def main() -> None:
    """Run the models that were asked for; save and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("keys", nargs="*", metavar="KEY", help=f"default: all of {', '.join(KEYS)}")
    parser.add_argument("--inputs", type=int, default=100, help="random inputs whose outputs are compared, per key")
    parser.add_argument("--seconds", type=float, default=2.0, help="longest try of one model")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if unknown := set(options.keys) - set(KEYS):
        parser.error(f"unknown key {', '.join(sorted(unknown))}; expected some of {', '.join(KEYS)}")
    torch.set_num_threads(1)
    cores = machine.pin((), 1)
    host, realtime = make_host(cores, realtime=True)
    rows: list[Row] = []
    for key in options.keys or KEYS:
        for row, files in models(key, REPOSITORY / "build" / "bench-kernels"):
            # A level of its own per model: here ONNX Runtime's time is the anchor.
            harness = Harness(TimingSettings(max_seconds=options.seconds, tries=5), host)
            if key in COUNTED and files:
                fill_counts(row, files["U8S8"])
            elif key == DECODER:
                fill_decoder(row, files, harness, options.inputs)
            elif files:
                fill(row, files, harness, max(1, options.inputs // SAMPLED.get(key, 1)))
            rows.append(row)
            print(line(row), flush=True)
    summary = {
        key: summarize([row for row in rows if row.key == key]) for key in dict.fromkeys(row.key for row in rows)
    }
    if options.save and not options.keys:
        save(rows, summary, realtime)
    print(table(summary))
    print(json.dumps(summary))


def models(key: str, folder: Path) -> Iterator[tuple[Row, dict[str, Path]]]:
    """Yield every model of a key with its files by variant, written where they are missing."""
    if key == DECODER:
        whole, fused = write_decoder(folder)
        yield Row(key, key), {"int4": whole, "int4 fused attention": fused}
    elif key in ZOO or key in COUNTED:
        model = COUNTED.get(key, key)
        fp32, quantized = folder / f"{model}_fp32.onnx", folder / f"{model}_u8s8.onnx"
        if not quantized.exists():
            write_zoo_model(model, folder)
        yield Row(key, key), variants(fp32, quantized)
    else:
        for index in range(SAMPLED[key]):
            fp32, quantized = sampled(key, index, folder)
            yield Row(key, f"{key}_{index}"), variants(fp32, quantized)


def sampled(key: str, index: int, folder: Path) -> tuple[Path, Path]:
    """Write architecture ``index`` of those that the space draws with seed 0, in int8 throughout."""
    task = Task("image_classification", 3, 10)
    space: ConvNet | Transformer
    if key == "transformer_10":
        space = Transformer(task, [32], precisions=["int8"])
    else:
        kernels, dense = ([3], [3]) if key == "convnet_k3" else ([5, 7], [5])
        space = ConvNet(task, [32], kernels=kernels, dense_kernels=dense, precisions=["int8"])
    rng = np.random.default_rng(0)
    architecture = [space.sample(rng) for _ in range(index + 1)][-1]
    fp32, quantized = folder / f"{key}_{index}_fp32.onnx", folder / f"{key}_{index}_u8s8.onnx"
    if not quantized.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(index)
        pictures = np.random.default_rng(index).standard_normal((16, 3, 32, 32), dtype=np.float32)
        export_fp32(space.build(architecture), fp32, 3, 32, 32)
        quantize_static(fp32, quantized, pictures, architecture.precision, Precision.INT8)
    return fp32, quantized


def variants(fp32: Path, quantized: Path) -> dict[str, Path]:
    """Return ONNX Runtime's variants of a network; a dynamic one is written where there is attention."""
    import onnx

    files = {"U8S8": quantized}
    operators = {node.op_type for node in onnx.load(str(fp32), load_external_data=False).graph.node}
    if "Softmax" in operators:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        dynamic = fp32.with_name(fp32.name.replace("_fp32", "_dynamic"))
        if not dynamic.exists():
            quantize_dynamic(fp32, dynamic, weight_type=QuantType.QInt8)
        files["dynamic"] = dynamic
    # Last, since the native runtime plans the first that it takes; on small networks float may be the fastest.
    files["fp32"] = fp32
    return files


def fill(row: Row, files: Mapping[str, Path], harness: Harness, inputs: int) -> None:
    """Time a model on all runtimes and compare outputs."""
    sessions = {name: OnnxRuntime().load(path) for name, path in files.items()}
    given = random_inputs(sessions["U8S8"].inputs)
    runs = {name: (lambda session=session: session.run(given)) for name, session in sessions.items()}
    row.onnxruntime = fastest(runs, harness)
    others: dict[str, Run] = {}
    native = load_native(row, files)
    if native is not None:
        session = native
        others["native"] = lambda: session.run(given)
    openvino, why = openvino_inference(files["U8S8"], given)
    if openvino is not None:
        others["openvino"] = openvino
    elif why.startswith("OpenVINO refuses"):
        print(why, file=sys.stderr)
    fill_times(row, {**others, "onnxruntime": runs[row.onnxruntime]}, harness)
    if native is not None:
        compare(row, native, sessions[row.native], inputs)


def fill_times(row: Row, runs: Mapping[str, Run], harness: Harness) -> None:
    """Time all in turns, ONNX Runtime being the anchor, and note times and ratios."""
    turns = take_turns(runs, "onnxruntime", harness)
    row.disturbance = turns.disturbance
    row.ms = turns.times_ms()
    if "native" in runs:
        for name in set(row.ms) - {"native"}:
            ratio = turns.ratio(name, "native")
            row.ratios[name] = (ratio.median, ratio.q25, ratio.q75)


def fill_decoder(row: Row, files: Mapping[str, Path], harness: Harness, inputs: int) -> None:
    """Time one token after 128 on both runtimes and compare what they say."""
    native, reference = NativeRuntime().load(files["int4"]), OnnxRuntime().load(files["int4"])
    row.native = "int4"
    ours, theirs = prompted(native), prompted(reference)
    fused = FusedDecoder(files["int4 fused attention"], theirs)
    token = np.zeros((1, 1), np.int64)
    runs: dict[str, Run] = {
        "int4 fused attention": fused.run,
        "int4": lambda: reference.run({"input": token, **theirs}),
    }
    row.onnxruntime = fastest(runs, harness)
    ran: Run = lambda: native.run({"input": token, **ours})  # noqa: E731
    fill_times(row, {"native": ran, "onnxruntime": runs[row.onnxruntime]}, harness)
    found = Difference()
    for number in range(inputs):
        given = np.full((1, 1), (number * 37) % WORDS)
        found.add(native.run({"input": given, **theirs})[0], fused.say(int(given[0, 0])))
    note_difference(row, found)


def fill_counts(row: Row, model: Path) -> None:
    """Count instructions on ARM; fewer are better, so the ratio is ours over ONNX Runtime's."""
    try:
        counts = count(model)
    except NasError as error:
        row.reason = str(error)
        return
    row.instructions = {"native": counts.native, "onnxruntime": counts.onnxruntime}
    shares = [ours / theirs for ours, theirs in zip(counts.native, counts.onnxruntime, strict=True)]
    low, middle, high = np.percentile(shares, [25, 50, 75])
    row.ratios["onnxruntime"] = (float(middle), float(low), float(high))
    row.differing_bytes = counts.difference.differing_bytes
    row.compared_bytes = counts.difference.compared_bytes
    row.largest_difference = counts.difference.largest


def fastest(runs: Mapping[str, Run], harness: Harness) -> str:
    """Return the name of the one with the smallest median, timed in turns."""
    if len(runs) == 1:
        return next(iter(runs))
    sample = harness.measure([*runs.values()], next(iter(runs.values())), rounds=7)
    return min(runs, key=lambda name: float(np.median(sample.block_medians(list(runs).index(name)))))


def load_native(row: Row, files: Mapping[str, Path]) -> Any:
    """Load the first variant that the native runtime takes; without one the row says why."""
    reasons = []
    for name, path in files.items():
        try:
            session = NativeRuntime().load(path)
        except NasError as error:
            reasons.append(f"{name}: {str(error).partition(': ')[2].partition(' It knows')[0]}")
        else:
            row.native = name
            return session
    row.reason = "; ".join(reasons)
    return None


def compare(row: Row, native: Any, reference: Any, inputs: int) -> None:
    """Count the bytes in which outputs differ from ONNX Runtime's on the same file."""
    note_difference(row, differences(native, reference, (random_inputs(reference.inputs, s) for s in range(inputs))))


def note_difference(row: Row, found: Difference) -> None:
    """Keep in what the outputs differ."""
    row.differing_bytes, row.compared_bytes = found.differing_bytes, found.compared_bytes
    row.largest_difference = found.largest


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the last line says of a key; several models count with their geometric means."""
    reasons = [f"{row.model}: {row.reason}" for row in rows if row.reason]
    if reasons:
        return {
            **dict.fromkeys(("ratio_to_onnxruntime", "q25", "q75", "ratio_to_openvino", "differing_bytes")),
            "reason": reasons[0],
            "onnxruntime_ms": geometric([row.ms["onnxruntime"]["median"] for row in rows if row.ms]),
        }
    ratios = [row.ratios["onnxruntime"] for row in rows]
    openvino = [row.ratios["openvino"][0] for row in rows if "openvino" in row.ratios]
    return {
        "ratio_to_onnxruntime": geometric([ratio[0] for ratio in ratios]),
        "q25": geometric([ratio[1] for ratio in ratios]),
        "q75": geometric([ratio[2] for ratio in ratios]),
        "ratio_to_openvino": geometric(openvino) if len(openvino) == len(rows) else None,
        "differing_bytes": sum(row.differing_bytes or 0 for row in rows),
        "compared_bytes": sum(row.compared_bytes for row in rows),
        "largest_difference": max(row.largest_difference for row in rows),
        "native_ms": geometric([row.ms["native"]["median"] for row in rows if row.ms]),
        "onnxruntime_ms": geometric([row.ms["onnxruntime"]["median"] for row in rows if row.ms]),
        "against": ", ".join(sorted({row.onnxruntime for row in rows})),
        "disturbed": sum(bool(row.disturbance) for row in rows),
        **{
            f"{name}_instructions": float(np.median(counts))
            for row in rows
            for name, counts in row.instructions.items()
        },
    }


def geometric(values: Sequence[float]) -> float | None:
    """Return the geometric mean to four digits, or None of nothing."""
    if not values:
        return None
    return float(f"{math.exp(sum(math.log(value) for value in values) / len(values)):.4g}")


def line(row: Row) -> str:
    """Return a model as one line of progress."""
    times = ", ".join(f"{name} {seen['median']:.3f} ms" for name, seen in row.ms.items())
    ratios = ", ".join(f"{ratio[0]:.2f} x {name}" for name, ratio in row.ratios.items())
    mark = f" ! {row.disturbance}" if row.disturbance else ""
    counts = ", ".join(f"{name} {np.median(seen):,.0f} instructions" for name, seen in row.instructions.items())
    return f"{row.model}: {times or counts or 'nothing timed'}; {ratios or row.reason}{mark}"


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the summary as a Markdown table."""
    columns = (
        "model",
        "native, ms",
        "ONNX Runtime, ms (variant)",
        "ratio (quartiles)",
        "to OpenVINO",
        "differing bytes",
    )
    lines = [f"| {' | '.join(columns)} | note |", "|---" * 7 + "|"]
    for key, seen in summary.items():
        ort = "-" if seen["onnxruntime_ms"] is None else f"{seen['onnxruntime_ms']:.3f}"
        if seen["ratio_to_onnxruntime"] is None:
            lines.append(f"| {key} | - | {ort} | - | - | - | {seen['reason']} |")
            continue
        ratio = f"{seen['ratio_to_onnxruntime']:.2f} ({seen['q25']:.2f} to {seen['q75']:.2f})"
        openvino = "-" if seen["ratio_to_openvino"] is None else f"{seen['ratio_to_openvino']:.2f}"
        differ = f"{seen['differing_bytes']} of {seen['compared_bytes']}"
        note = f"{seen['disturbed']} disturbed" if seen["disturbed"] else ""
        if "native_instructions" in seen:
            ours, theirs = seen["native_instructions"] / 1e6, seen["onnxruntime_instructions"] / 1e6
            note = f"{ours:.2f} over {theirs:.2f} million instructions (QEMU, {CPU}), so less is better"
            lines.append(f"| {key} | - | - | {ratio} | - | {differ} | {note} |")
            continue
        if seen["differing_bytes"]:
            note = f"largest difference {seen['largest_difference']:.1e} of the largest output; {note}".rstrip("; ")
        against = f"{ort} ({seen['against']})"
        lines.append(f"| {key} | {seen['native_ms']:.3f} | {against} | {ratio} | {openvino} | {differ} | {note} |")
    return "\n".join(lines)


def save(rows: Sequence[Row], summary: Mapping[str, Any], realtime: bool) -> None:
    """Write all readings and the table beside the experiment's README."""
    import onnxruntime

    fingerprint = local_fingerprint()
    record = {
        "fingerprint": fingerprint.to_dict(),
        "date": time.strftime("%Y-%m-%d"),
        "onnxruntime": onnxruntime.__version__,
        "native": NativeRuntime().version,
        "realtime": realtime,
        "summary": summary,
        "models": [vars(row) for row in rows],
    }
    EXPERIMENT.mkdir(parents=True, exist_ok=True)
    (EXPERIMENT / f"{fingerprint.id}.json").write_text(json.dumps(record, indent=1) + "\n")
    heading = f"{fingerprint.cpu} ({fingerprint.id}), {record['date']}, ONNX Runtime {record['onnxruntime']}\n\n"
    (EXPERIMENT / f"{fingerprint.id}.md").write_text(heading + table(summary) + "\n")


if __name__ == "__main__":
    main()
