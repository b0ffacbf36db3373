"""``nas predict``: the latency of an ONNX file on a device, with an interval and its share per kernel; nothing runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape

from nas.cli import tables
from nas.config.instantiate import instantiate
from nas.config.models import latency_model, newest_model, read_card
from nas.cost_protocols import ExplainingModel, LatencyModel, PredictedPart
from nas.device import Device
from nas.errors import ModelFileError, closest
from nas.graph import Graph
from nas.protocols import Runtime
from nas.runtime.onnx_graph import graph_from_onnx

_Z_90 = 1.645  # half width of a normal 90 % interval, in standard deviations


def run(config: dict[str, Any]) -> int:
    """Predict and print; return 0.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.

    Raises:
        ModelFileError: the file is missing, damaged, or has free sizes besides the batch.
        ConfigError: no model, or one of another device's kind.
    """
    file = Path(config["file"])
    if not file.is_file():
        near = closest(file.name, [path.name for path in file.parent.glob("*.onnx")])
        hint = f" Did you mean '{near}'?" if near else ""
        raise ModelFileError(f"{file} is not a file; expected an ONNX file.{hint}")
    runtime: Runtime = instantiate(config["runtime"], path="runtime")
    device: Device = instantiate(config["device"], path="device")
    folder = Path(config["model"]) if config["model"] else newest_model(Path(config["folder"]), device, runtime)
    model = latency_model(str(folder) if folder else config["cost"]["model"], runtime, "model")
    report = _report(file, graph_from_onnx(file), model, device, runtime)
    report["model"] = str(folder) if folder else model.name
    if folder:
        report["card"] = _said(read_card(folder), runtime)
    else:
        report["doubts"].insert(0, f"nothing was fitted for device '{device.name}': nas fit does that on the device")
    if config["output"] == "json":
        tables.print_json(report)
    else:
        _print(report, config["top"])
    return 0


def _report(file: Path, graph: Graph, model: LatencyModel, device: Device, runtime: Runtime) -> dict[str, Any]:
    begun = time.perf_counter()
    estimate = model.predict(graph, device)
    took_ms = (time.perf_counter() - begun) * 1000
    if not graph.ops:
        raise ModelFileError(f"{file} has no operator; expected a network.")
    parts: list[PredictedPart] = []
    doubts: list[str] = []
    if isinstance(model, ExplainingModel):
        parts, doubts = model.parts(graph, device), model.doubts(graph, device)
    low = max(estimate.mean - _Z_90 * estimate.std, 0.0) if math.isfinite(estimate.std) else None
    high = estimate.mean + _Z_90 * estimate.std if math.isfinite(estimate.std) else None
    return {
        "file": str(file),
        "device": device.name,
        "runtime": runtime.version,
        "latency_ms": estimate.to_dict(),
        "interval_90_ms": [low, high],
        "macs": graph.macs,
        "doubts": doubts,
        "unknown": sorted({part.kind for part in parts if not part.known}),
        "parts": [asdict(part) for part in parts],
        "predict_ms": took_ms,
    }


def _said(card: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    found = card.get("models", {}).get(runtime.name, {})
    kept = ("spaces", "precisions", "device", "made", "runtimes")
    return {**{name: card.get(name) for name in kept}, "scores": found.get("scores"), "n_train": found.get("n_train")}


def _print(report: Mapping[str, Any], top: int) -> None:
    console = tables.console()
    console.print(
        escape(f"{report['file']} in {report['runtime']} on {report['device']}, {report['macs']:,} MACs"), style="bold"
    )
    estimate, (low, high) = report["latency_ms"], report["interval_90_ms"]
    interval = "no interval" if low is None else f"90 % interval {tables.number(low)} to {tables.number(high)} ms"
    mean = f"{tables.number(estimate['mean'])} ms {estimate['kind']} by {report['model']}"
    console.print(f"latency: {mean}, {interval}", markup=False)
    for doubt in report["doubts"]:
        console.print(f"  {doubt}", markup=False)
    parts = sorted(report["parts"], key=lambda part: -part["latency_ms"])
    if parts:
        right = ("time us", "share")
        table = tables.table("kernel", "kind", *right, right=right)
        for part in parts[:top]:
            share = part["latency_ms"] / max(estimate["mean"], 1e-12)
            kind = part["kind"] if part["known"] else f"{part['kind']} (unknown)"
            table.add_row(escape(part["name"]), escape(kind), tables.number(part["latency_ms"] * 1000), f"{share:.1%}")
        console.print(table)
        if len(parts) > top:
            console.print(f"and {len(parts) - top} more; top={len(parts)} shows all", style="dim")
