"""``nas fit``: times untrained networks on a device, fits latency models to them, and says how good they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from nas.cli import tables
from nas.config.fit import fit_device

_COLUMNS = ("kendall", "spearman", "within_5_pct", "within_10_pct", "mape", "coverage_90")


def run(config: dict[str, Any]) -> int:
    """Fit, print and save; return 0.

    Args:
        config: as ``nas.config.compose.resolve`` returns it; ``parts`` holds one such config per combination of
            spaces and runtimes.

    Raises:
        ConfigError: the device is out of reach.
        MeasurementError: too little could be timed.
    """
    report = fit_device(config.get("parts") or [config], lambda line: print(line, file=sys.stderr, flush=True))
    if config["output"] == "json":
        tables.print_json(report)
    else:
        _print(report)
        print(f"saved: {report['saved']}")
        print(f"use it: nas search cost=predicted cost.model={report['saved']}")
    return 0


def _print(report: Mapping[str, Any]) -> None:
    console = tables.console()
    for runtime, found in report["models"].items():
        console.print(f"{report['runtimes'][runtime]} on {report['device']}", style="bold", markup=False)
        shown = tables.table("predicted by", *_COLUMNS, right=_COLUMNS)
        for name, scores in {"model": found["scores"], **found["baseline"]}.items():
            shown.add_row(name, *(tables.number(scores[column], 3) for column in _COLUMNS))
        console.print(shown)
        console.print(
            f"{found['n_train']} networks learned from, {found['n_test']} held out; chosen: {found['chosen']}; "
            f"one prediction takes {found['predict_ms']:.1f} ms",
            style="dim",
            markup=False,
        )
