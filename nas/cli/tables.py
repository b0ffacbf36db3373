"""What the verbs' tables have in common: where they are drawn, and how a number looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH_OF_A_PIPE = 140


def console() -> Console:
    """Return a console on standard output; where that is no terminal, lines are not broken at 80 columns."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False, soft_wrap=False)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table without a frame; the columns named in ``right`` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    return made


def facts(rows: Mapping[str, str]) -> Table:
    """Return names and values side by side."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in rows.items():
        made.add_row(name, value)
    return made


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits; what is absent is a dash, never 0."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def print_json(report: Mapping[str, Any]) -> None:
    """Print one line with one JSON object, the last of the output."""
    print(json.dumps(report), flush=True)
