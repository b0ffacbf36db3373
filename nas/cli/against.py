"""``nas profile MODEL against=NAME``: the same file in two runtimes, timed in turns and compared byte by byte."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.cli import tables
from nas.config.compose import Request, resolve
from nas.config.instantiate import instantiate
from nas.device import Device
from nas.errors import ConfigError
from nas.measure import host as machine
from nas.measure.harness import Harness, Run
from nas.measure.settings import TimingSettings
from nas.measure.versus import differences, make_host, take_turns
from nas.protocols import OperatorTime, Runtime
from nas.runtime.inputs import random_inputs
from nas.runtime.openvino import openvino_inference
from nas.runtime.variants import timed_variants

OPENVINO = "openvino"


def opponent(config: Mapping[str, Any]) -> Runtime:
    """Return the runtime that ``against`` names, with the settings of its own YAML file.

    Raises:
        ConfigError: no such runtime, or the one that is profiled.
    """
    name, chosen = config["against"], config["choices"]["runtime"]
    if name == chosen:
        raise ConfigError(
            f"against={name} is the runtime that is profiled; name two, such as runtime=native against=onnxruntime."
        )
    own = Path(config["config_dir"]) if config["config_dir"] else None
    composed = resolve(Request("profile", (f"model='{name}.onnx'", f"runtime={name}"), own))
    runtime: Runtime = instantiate(composed["runtime"], path="against")
    return runtime


def compare(
    model: Path, runtimes: Mapping[str, Runtime], device: Device, settings: TimingSettings, inputs: int
) -> dict[str, Any]:
    """Return ratio with quartiles, times and differing bytes of the first runtime against the second.

    Both run in this process, in turns, beside OpenVINO where that is installed and takes the file. A file that is timed
    in several ways is compared in the last one.

    Args:
        model: ONNX file.
        runtimes: two of them, by the names that results carry.
        device: threads and processors.
        settings: of the timing.
        inputs: random ones whose outputs are compared.

    Raises:
        ModelFileError: one of the two refuses the file.
        MeasurementError: they give outputs of different shapes.
    """
    ours, theirs = runtimes
    sessions = {name: runtime.load(model, threads=device.threads) for name, runtime in runtimes.items()}
    metric, sizes = list(timed_variants(model).items())[-1]
    expected = sessions[theirs].inputs
    given = [random_inputs(expected, seed, sizes=sizes) for seed in range(inputs)]
    runs: dict[str, Run] = {
        name: (lambda session=session: session.run(given[0]))  # type: ignore[misc]
        for name, session in sessions.items()
    }
    third, why = openvino_inference(model, given[0], device.threads)
    if third is not None:
        runs[OPENVINO] = third
    # Compared first, so that a model that fails on some input does so before it is timed.
    found = differences(sessions[ours], sessions[theirs], given)
    gc.collect()
    with machine.pinned(device.affinity, device.threads) as cores:
        host, realtime = make_host(cores, settings.realtime, device.threads)
        turns = take_turns(runs, theirs, Harness(settings, host))
    ratio = turns.ratio(theirs, ours)
    return {
        f"ratio_to_{theirs}": ratio.median,
        "q25": ratio.q25,
        "q75": ratio.q75,
        "ratio_to_openvino": turns.ratio(OPENVINO, ours).median if third is not None else None,
        "openvino": why or "timed",
        "differing_bytes": found.differing_bytes,
        "compared_bytes": found.compared_bytes,
        "compared_inputs": inputs,
        "largest_difference": found.largest,
        "against": {"name": theirs, "runtime": runtimes[theirs].version},
        "metric": metric,
        "times_ms": turns.times_ms(),
        "realtime": realtime,
        "disturbance": turns.disturbance,
    }


def operators(found: Sequence[OperatorTime]) -> dict[str, Any]:
    """Return the operators of the other runtime as they are saved."""
    return {
        "against_operators_sum_us": sum(operator.median_us for operator in found),
        "against_operators": [asdict(operator) for operator in found],
    }


def lines(report: Mapping[str, Any], ours: str) -> list[str]:
    """Return what a comparison says, in words.

    Args:
        report: as ``compare`` returns it.
        ours: name of the runtime that was profiled.
    """
    theirs, times = report["against"]["name"], report["times_ms"]
    shown = [
        f"{name} {tables.number(seen['median'], 4)} ms, p10 {tables.number(seen['p10'], 4)}"
        for name, seen in times.items()
    ]
    blocks = int(times[ours]["blocks"])
    quartiles = f"quartiles {report['q25']:.3f} to {report['q75']:.3f}"
    said = [
        f"{report['metric'].removesuffix('_ms')}, timed in turns, {blocks} blocks each: {'; '.join(shown)}",
        f"{ours} is {report[f'ratio_to_{theirs}']:.3f} times as fast as {theirs} ({quartiles})",
    ]
    if report["ratio_to_openvino"] is not None:
        said.append(f"{ours} is {report['ratio_to_openvino']:.3f} times as fast as OpenVINO")
    elif OPENVINO not in (ours, theirs):
        said.append(f"not compared with OpenVINO: {report['openvino']}")
    differ = f"{report['differing_bytes']} of {report['compared_bytes']} bytes of the outputs differ"
    largest = f", by at most {report['largest_difference']:.1e} of the largest output"
    said.append(
        f"{differ} over {report['compared_inputs']} random inputs{largest if report['differing_bytes'] else ''}"
    )
    if report["disturbance"]:
        said.append(f"the machine was busy, do not trust the times: {report['disturbance']}")
    return said
