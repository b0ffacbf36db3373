"""What ``nas search`` does on a table in the place of a data set: the same samplers, answers in microseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import ConfigError
from nas.search.replay import Mean, Run, problem_of, replay, summarize
from nas.search.samplers import make_sampler
from nas.search.table import Columns, Table


@dataclass(frozen=True)
class ReplayReport:
    """What the replays of one sampler came to.

    Args:
        sampler: its name.
        table: file and columns, in words.
        rows: complete rows of the table.
        seeds: replays behind each mean.
        regret: of the hypervolume, by budget in full trainings.
        accuracy: best one within the limits, by budget; empty without limits.
        oracle_accuracy: best one of the table within the limits, NaN without limits.
        notes: what the reader should know.
    """

    sampler: str
    table: str
    rows: int
    seeds: int
    regret: dict[int, Mean]
    accuracy: dict[int, Mean]
    oracle_accuracy: float
    notes: tuple[str, ...] = ()


def run_replay(config: Mapping[str, Any]) -> ReplayReport:
    """Replay a search once per seed.

    Args:
        config: resolved config of ``nas search`` with a ``replay.table``.

    Raises:
        ConfigError: a column is missing, the sampler or an option of it is unknown, or an earlier study is named.
        DataError: the file is missing or is no Parquet.
    """
    node, budget = config["replay"], int(config["budget"])
    _refuse_studies(config)
    if node["accuracy"] is None:
        raise ConfigError("replay.accuracy is missing; give the column to maximise by replay.accuracy=COLUMN")
    if not node["costs"] and not node["limits"]:
        raise ConfigError("a replay needs replay.costs=[COLUMN,...] to minimise, or +replay.limits.COLUMN=VALUE")
    columns = Columns(
        node["accuracy"], tuple(node["costs"]), node["low_fidelity"], dict(node["limits"]), tuple(node["genes"])
    )
    table = Table(Path(node["table"]), columns)
    runs: list[Run] = []
    for seed in range(int(config["seed"]), int(config["seed"]) + int(config["seeds"] or 1)):
        sampler = make_sampler(config["sampler"]["name"], seed, config["sampler"].get("options"), problem_of(table))
        runs.append(replay(table, sampler, budget, seed, float(node["low_fidelity_cost"])))
    limited = bool(columns.limits)
    return ReplayReport(
        sampler=config["sampler"]["name"],
        table=f"{Path(node['table']).name}: {', '.join([columns.accuracy, *columns.costs])}",
        rows=len(table),
        seeds=len(runs),
        regret=summarize(runs, budget, table.regret),
        accuracy=summarize(runs, budget, table.best_accuracy) if limited else {},
        oracle_accuracy=table.oracle_accuracy if limited else math.nan,
    )


def _refuse_studies(config: Mapping[str, Any]) -> None:
    """Raise where a study is named: a table's rows are no points of its space, and a replay leaves no study."""
    for key in ("start_from", "resume"):
        if config.get(key) is not None:
            raise ConfigError(
                f"{key}={config[key]} names a study, and replay.table={config['replay']['table']} replays a table from "
                f"nothing; expected one of the two. Drop {key}= for the replay, or replay.table= for the search"
            )
