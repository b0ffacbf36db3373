"""``nas profile``: times any ONNX file on this machine, as a whole and per operator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape

from nas.cli import against, tables
from nas.config.instantiate import instantiate
from nas.device import Device, local_fingerprint
from nas.errors import ConfigError, ModelFileError, closest
from nas.executor.gate import FileGate
from nas.measure.local import LocalMeter
from nas.measure.schedule import Schedule
from nas.measure.scheduled import ScheduledRuntime
from nas.measurement import Measurement
from nas.protocols import OperatorTime, Runtime


def run(config: dict[str, Any]) -> int:
    """Profile, print and save; return 0.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.

    Raises:
        ConfigError: the device is out of reach, or the result cannot be saved.
        ModelFileError: the file is missing, damaged, or reaches outside its folder.
    """
    model = Path(config["model"])
    if not model.is_file():
        raise ModelFileError(f"{model} is not a file; expected an ONNX file. {_nearby(model)}")
    runtime: Runtime = instantiate(config["runtime"], path="runtime")
    device = _device(config)
    target = Path(config["save"]) if config["save"] else model.with_suffix(".profile.json")
    other = against.opponent(config) if config["against"] else None
    costs = _meter(config, device, runtime).measure(model) if config["latency"] else {}
    with _gate().timing():
        operators = runtime.profile(model, runs=config["runs"], threads=device.threads)
        compared = _compare(config, model, {config["choices"]["runtime"]: runtime}, other, device)
    report = {**_report(model, runtime, device, costs, operators, config["runs"]), **compared}
    if isinstance(runtime, ScheduledRuntime):
        report["schedule"] = runtime.schedule(model, device.threads).to_dict()
    _save(report, target)
    if config["output"] == "json":
        tables.print_json({**report, "saved": str(target)})
    else:
        _print(report, config["top"])
        if compared:
            _print_against(report, config["choices"]["runtime"], config["top"])
        if "schedule" in report:
            _print_routes(Schedule.from_dict(report["schedule"]))
        print(f"saved: {target}")
    return 0


def _compare(
    config: Mapping[str, Any], model: Path, ours: Mapping[str, Runtime], other: Runtime | None, device: Device
) -> dict[str, Any]:
    if other is None:
        return {}
    settings = instantiate(_timing(config), path="cost.timing")
    both = {**ours, config["against"]: other}
    compared = against.compare(model, both, device, settings, config["inputs"])
    return {**compared, **against.operators(other.profile(model, runs=config["runs"], threads=device.threads))}


def _nearby(model: Path) -> str:
    found = sorted(path.name for path in model.parent.glob("*.onnx")) if model.parent.is_dir() else []
    guess = closest(model.name, found)
    hint = f" Did you mean '{guess}'?" if guess else ""
    return f"{model.parent}/ has {', '.join(found[:5]) or 'none'}.{hint}"


def _device(config: Mapping[str, Any]) -> Device:
    # Peaks are of no use here, and measuring them takes a second.
    device: Device = instantiate({**config["device"], "peaks": None}, path="device")
    if device.transport != "local":
        raise ConfigError(
            f"device '{device.name}' is out of reach (transport {device.transport}), and a profile is measured; "
            "use device=local on the device itself."
        )
    return device


def _meter(config: Mapping[str, Any], device: Device, runtime: Runtime) -> LocalMeter:
    return LocalMeter(device, runtime, instantiate(_timing(config), path="cost.timing"), _gate())


def _timing(config: Mapping[str, Any]) -> Any:
    node = config["cost"].get("timing")
    if node is None:
        raise ConfigError(
            "cost has no timing settings, which timing the model needs; use cost=measured, latency=false."
        )
    return node


def _gate() -> FileGate:
    """Return the lock that keeps searches on this machine from training meanwhile."""
    return FileGate(local_fingerprint().id)


def _report(
    model: Path,
    runtime: Runtime,
    device: Device,
    costs: Mapping[str, Measurement],
    operators: Sequence[OperatorTime],
    runs: int,
) -> dict[str, Any]:
    return {
        "model": str(model),
        "size_kib": model.stat().st_size / 1024,
        "runtime": runtime.version,
        "device": {
            "name": device.name,
            "threads": device.threads,
            "fingerprint": device.fingerprint.to_dict() if device.fingerprint else None,
        },
        "costs": {metric: measurement.to_dict() for metric, measurement in costs.items()},
        "operator_runs": runs,
        "operators_sum_us": sum(operator.median_us for operator in operators),
        "operators": [asdict(operator) for operator in operators],
    }


def _save(report: Mapping[str, Any], target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the profile cannot be saved as {target}: {error.strerror}. Name another file by save=."
        ) from error


def _print(report: Mapping[str, Any], top: int) -> None:
    console, device = tables.console(), report["device"]
    threads = f"{device['threads']} thread" + ("s" if device["threads"] != 1 else "")
    cpu = device["fingerprint"]["cpu"] if device["fingerprint"] else device["name"]
    console.print(escape(f"{report['model']} in {report['runtime']} on {cpu}, {threads}"), style="bold")
    for metric, reading in report["costs"].items():
        console.print(_cost_line(metric, reading), markup=False)
    _print_operators(report["operators"], report["operators_sum_us"], report["operator_runs"], top)


def _print_against(report: Mapping[str, Any], ours: str, top: int) -> None:
    console = tables.console()
    console.print(escape(f"\nthe same file in {report['against']['runtime']}"), style="bold")
    _print_operators(report["against_operators"], report["against_operators_sum_us"], report["operator_runs"], top)
    console.print()
    for line in against.lines(report, ours):
        console.print(line, markup=False)


def _print_routes(schedule: Schedule) -> None:
    console = tables.console()
    right = ("ms", "times as fast", "differs by")
    table = tables.table("way to run it", *right, "refused because", right=right)
    for index, timed in enumerate(schedule.routes):
        time = "-" if timed.median_ms is None else tables.number(timed.median_ms, 4)
        speedup = f"{timed.speedup:.2f}" if timed.speedup else "-"
        style = "bold" if index == schedule.chosen else None
        table.add_row(timed.route.text, time, speedup, f"{timed.difference:.1e}", escape(timed.reason), style=style)
    console.print(table)
    console.print(f"taken and remembered for this device: {schedule.route.text}", markup=False)
    if schedule.disturbance:
        console.print(f"the machine was busy, do not trust the times: {schedule.disturbance}", markup=False)


def _print_operators(operators: Sequence[Mapping[str, Any]], sum_us: float, runs: int, top: int) -> None:
    console = tables.console()
    right = ("time us", "share", "sum")
    table = tables.table("operator", "kind", *right, "output", "type", right=right)
    running = 0.0
    for operator in operators[:top]:
        running += operator["share"]
        shape = "x".join(map(str, operator["output_shape"])) or "-"
        figures = (tables.number(operator["median_us"]), f"{operator['share']:.1%}", f"{running:.1%}")
        name, kind, dtype = (escape(operator[key] or "-") for key in ("name", "kind", "dtype"))
        table.add_row(name, kind, *figures, shape, dtype)
    console.print(table)
    if len(operators) > top:
        console.print(f"and {len(operators) - top} more operators; top={len(operators)} shows all", style="dim")
    total = f"{tables.number(sum_us)} us in {len(operators)} operators"
    console.print(f"{total}, medians over {runs} runs; profiling itself costs time", style="dim")


def _cost_line(metric: str, reading: Mapping[str, Any]) -> str:
    name, unit = metric.rsplit("_", 1)[0], reading["unit"]
    figures = f"{tables.number(reading['median'])} {unit}, p10 {tables.number(reading['p10'])}"
    spread = f"spread ±{tables.number(reading['spread'], 2)} over {reading['count']} samples"
    noise = "; the machine was busy, do not trust it" if reading["disturbed"] else ""
    return f"{name}: median {figures}, {spread}{noise}"
