"""``nas score-latency``: scores cost models on a table of measurements, architectures held out whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.cli import tables
from nas.config.instantiate import instantiate
from nas.cost_protocols import TableScorer

_COLUMNS = ("spearman", "kendall", "within_5_pct", "within_10_pct", "mape", "coverage_90")


def run(config: dict[str, Any]) -> int:
    """Score and print; the last line is one JSON object; return 0.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.

    Raises:
        ConfigError: a column or a space is unknown, or too few rows are left to score on.
        DataError: the table cannot be read.
    """
    scorer: TableScorer = instantiate(config["scorer"], path="scorer")
    names = ("table", "target", "train", "seeds", "latency", "transfer_from")
    report = scorer.score(space=config["encoding"], **{name: config[name] for name in names})
    if config["output"] == "text":
        _print(report)
    tables.print_json(report)
    return 0


def _print(report: Mapping[str, Any]) -> None:
    shown = tables.table("predicted by", *_COLUMNS, right=_COLUMNS)
    for name, scores in {"model": report, **report["baseline"]}.items():
        shown.add_row(name, *(tables.number(scores.get(column), 4) for column in _COLUMNS))
    tables.console().print(shown)
