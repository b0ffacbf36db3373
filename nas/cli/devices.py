"""``nas devices``: what this machine and the configured devices are, and what a search can have from each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape

from nas.cli import tables
from nas.config.compose import Request, resolve
from nas.config.instantiate import instantiate
from nas.config.paths import group_members
from nas.device import Device, local_fingerprint
from nas.errors import MeasurementError, NasError
from nas.measure.energy import ANY, energy_source
from nas.protocols import Runtime


def run(config: dict[str, Any]) -> int:
    """Print this machine and the configured devices; return 0, a device that cannot be made is shown with its error.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.
    """
    rows = [_row(name, node, config["measure"]) for name, node in _nodes(config).items()]
    report = {"machine": _machine(config), "devices": rows}
    if config["output"] == "json":
        tables.print_json(report)
    else:
        _print(report)
    return 0


def _nodes(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the configured devices, or only the one that was asked for by name."""
    own = Path(config["config_dir"]) if config["config_dir"] else None
    chosen = config["choices"]["device"]
    nodes = {chosen: config["device"]}
    if not any(override.startswith("device") for override in config["overrides"]):
        for name in group_members("device", own):
            if name != chosen:
                nodes[name] = resolve(Request("devices", (f"device={name}",), own))["device"]
    return nodes


def _machine(config: Mapping[str, Any]) -> dict[str, Any]:
    runtime: Runtime = instantiate(config["runtime"], path="runtime")
    return {
        **local_fingerprint().to_dict(),
        "allowed_processors": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_gib": _memory_gib(),
        "runtime": runtime.version,
        "kernels": _kernels(),
        "energy": _energy(),
    }


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _kernels() -> list[str] | None:
    """Return the ISAs that the compiled extension offers here, or None where it is not built."""
    try:
        from nas._kernels import available_isas
    except ImportError:
        return None
    return list(available_isas())


def _energy() -> dict[str, str | None]:
    """Return the energy source that was seen to count, or None and why, with what could be done."""
    try:
        return {"source": energy_source(ANY).name, "why": ""}
    except MeasurementError as error:
        return {"source": None, "why": str(error)}


def _row(name: str, node: Mapping[str, Any], measure: bool) -> dict[str, Any]:
    settings = dict(node)
    if not measure and settings.get("peaks") == "auto":
        settings["peaks"] = None
    try:
        device: Device = instantiate(settings, path=f"device {name}")
    except NasError as error:
        return {"name": name, "error": str(error)}
    return {
        "name": name,
        "isa": device.isa,
        "cores": device.cores,
        "threads": device.threads,
        "affinity": list(device.affinity),
        "transport": device.transport,
        "energy_source": device.energy_source,
        "peaks": asdict(device.peaks) if device.peaks else None,
        "key": device.key,
        "offers": _offers(device),
    }


def _offers(device: Device) -> str:
    if device.transport in ("local", "ssh"):
        energy = f", energy ({device.energy_source})" if device.energy_source else ""
        reached = f"in reach over ssh ({device.fingerprint.cpu}); " if device.fingerprint and device.reach else ""
        return f"{reached}timing: latency, peak memory{energy}"
    if device.transport == "replay":
        return "recorded measurements"
    if device.transport == "emulated":
        return "function only: outputs, no latency"
    return "estimates (cost=predicted)" if device.peaks else "nothing: neither in reach nor with peaks"


def _print(report: Mapping[str, Any]) -> None:
    machine, console = report["machine"], tables.console()
    allowed = machine["allowed_processors"]
    energy = machine["energy"]
    kernels = machine["kernels"]
    rows = {
        "processor": f"{machine['cpu']} ({machine['isa']})",
        "cores": f"{machine['cores']}" + (f", this process may use {allowed}" if allowed is not None else ""),
        "features": " ".join(machine["features"]) or "none that matter to quantized kernels",
        "memory": f"{tables.number(machine['memory_gib'])} GiB",
        "governor": machine["governor"],
        "kernel": machine["kernel"],
        "runtime": machine["runtime"],
        "native kernels": " ".join(kernels) if kernels else "not built; install hwnas again where gcc is present",
        "energy": f"{energy['source']}: counts" if energy["source"] else f"none: {energy['why']}",
        "fingerprint": machine["id"],
    }
    console.print("This machine", style="bold underline")
    console.print(tables.facts({name: escape(value) for name, value in rows.items()}))
    console.print("\nConfigured devices", style="bold underline")
    right = ("cores", "threads", "fp32 GMAC/s", "int8 GMAC/s", "GB/s", "us per op")
    table = tables.table("device", "isa", *right, "offers", right=right)
    for row in report["devices"]:
        table.add_row(*(escape(cell) for cell in _cells(row)))
    console.print(table)
    for row in report["devices"]:
        if row.get("peaks"):
            console.print(f"peaks of {row['name']}, per core: {row['peaks']['source']}", style="dim", markup=False)


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return [row["name"], *[""] * 7, row["error"]]
    peaks = row["peaks"] or {}
    figures = [tables.number(peaks.get(key)) for key in ("fp32_gmacs", "int8_gmacs", "bandwidth_gbs", "op_overhead_us")]
    return [row["name"], row["isa"], str(row["cores"]), str(row["threads"]), *figures, row["offers"]]
