"""``nas search``: runs a search, or goes on with one, under a live display."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from nas.cli import tables
from nas.cli.progress import LiveProgress, print_report
from nas.cli.replay import print_replay
from nas.config.build import run_search
from nas.config.replay import run_replay
from nas.config.report import summary
from nas.config.study import find_study
from nas.errors import ConfigError
from nas.objective import Objective
from nas.store import StudyStore
from nas.targets import expanded
from nas.tracking.compare import compare_line


def run(config: dict[str, Any]) -> int:
    """Search, settle the front and export the model that ships; return 0, or 1 if the export failed.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.
    """
    if config["replay"]["table"] is not None:
        print_replay(run_replay(config))
        return 0
    if config["seeds"] is not None:
        raise ConfigError(
            "replay.table is missing; give replay.table=FILE.parquet (seeds= is for replays; a search takes seed=)"
        )
    with LiveProgress(_objectives(config), config["progress"]) as progress:
        report = run_search(config, [progress])
    if config["output"] == "json":
        if report.failed:
            print(f"nas: {report.reason}", file=sys.stderr)
        print(json.dumps(report.to_dict()), flush=True)
    else:
        print_report(report)
    return 1 if report.failed else 0


def _objectives(config: dict[str, Any]) -> tuple[Objective, ...]:
    """Return the axes to show: those of the study that goes on, or those of this config."""
    axes, devices = config["objective"], config["devices"]
    if config["resume"]:
        path = find_study(config["resume"], config["folder"]) / "store.sqlite"
        if path.is_file():
            store = StudyStore(path)
            stored = store.get("config", config)
            axes, devices = stored["objective"], stored.get("devices") or {}
            store.close()
    plain = [Objective(metric=metric, **fields) for metric, fields in axes.items()]
    return expanded(plain, list(devices)[1:])


def compare(configs: Sequence[Mapping[str, Any]]) -> None:
    """Print the searches of a multirun side by side, and the line that opens them on one page; on standard error.

    Args:
        configs: of the jobs, as they were run; one whose study has no store, since it was refused, is left out.
    """
    folders = [Path(config["folder"]) / str(config["study"]) for config in configs]
    stores = [StudyStore(folder / "store.sqlite") for folder in folders if (folder / "store.sqlite").is_file()]
    stores = [store for store in stores if store.get("objectives") is not None]
    if len(stores) < 2:
        return
    floor = configs[0].get("accuracy_floor")
    columns = ("search", "hypervolume", "members", "best accuracy", "fastest above the floor", "minutes")
    table = tables.table(*columns, right=columns[1:])
    for store in stores:
        found = summary(store, floor)
        fastest = tables.number(found["fastest_above_floor_ms"])
        table.add_row(
            str(store.get("study")),
            tables.number(found["hypervolume"], 4),
            str(found["members"]),
            tables.number(found["best_accuracy"], 4),
            "no floor" if floor is None else f"{fastest} ms",
            f"{store.get('elapsed_s', 0.0) / 60:.1f}",
        )
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140, highlight=False)
    console.print(table)
    line = compare_line([store.get("tracking", "") for store in stores])
    if line:
        console.print(f"MLflow, side by side: {line}", soft_wrap=True, markup=False)
