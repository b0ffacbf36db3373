"""``nas search``: runs a search, or goes on with one, under a live display."""

from __future__ import annotations

import json
import sys
from typing import Any

from nas.cli.progress import LiveProgress, print_report
from nas.config.build import run_search
from nas.config.study import find_study
from nas.objective import Objective
from nas.store import StudyStore


def run(config: dict[str, Any]) -> int:
    """Search, settle the front and export the model that ships; return 0, or 1 if the export failed.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.
    """
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
    axes = config["objective"]
    if config["resume"]:
        path = find_study(config["resume"], config["folder"]) / "store.sqlite"
        if path.is_file():
            store = StudyStore(path)
            axes = store.get("config", config)["objective"]
            store.close()
    return tuple(Objective(metric=metric, **fields) for metric, fields in axes.items())
