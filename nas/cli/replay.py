"""How the replays of a search are printed: a table, then one JSON object on the last line."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas.cli.tables import console, print_json, table

if TYPE_CHECKING:
    from nas.config.replay import ReplayReport
    from nas.search.replay import Mean


def print_replay(report: ReplayReport) -> None:
    """Print regret by budget for people, and as JSON: budget to ``mean`` and ``sem``, with ``best`` under a limit."""
    limited = bool(report.accuracy)
    extra = ("best accuracy", "of") if limited else ()
    shown = table("full trainings", "regret x 1000", "standard error", *extra)
    for budget, regret in report.regret.items():
        cells = [str(budget), f"{regret.mean * 1e3:.1f}", f"{regret.sem * 1e3:.1f}"]
        if limited:
            cells += [f"{report.accuracy[budget].mean:.2f}", f"{report.oracle_accuracy:.2f}"]
        shown.add_row(*cells)
    out = console()
    out.print(f"{report.sampler} on {report.table} ({report.rows} rows, {report.seeds} seeds)")
    out.print(shown)
    for note in report.notes:
        out.print(note)
    print_json({str(budget): _json(report, budget) for budget in report.regret})


def _json(report: ReplayReport, budget: int) -> dict[str, Any]:
    found = _number(report.regret[budget])
    if report.accuracy:
        found |= {"accuracy": _number(report.accuracy[budget]), "oracle_accuracy": report.oracle_accuracy}
    return found


def _number(mean: Mean) -> dict[str, Any]:
    return {key: None if math.isnan(value) else value for key, value in asdict(mean).items()}
