import itertools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas.cli import main
from nas.config.compose import Request, resolve
from nas.config.replay import run_replay
from nas.errors import ConfigError, DataError
from nas.search.cells import OPERATIONS, cell_features, live_cell, parse_cell
from nas.search.replay import Run, checkpoints, problem_of, replay, summarize
from nas.search.samplers import SAMPLERS, make_sampler
from nas.search.table import Columns, Table

SHARED = Path(os.environ.get("NAS_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
CELLS = SHARED / "nasbench201" / "nasbench201.parquet"


@pytest.fixture
def path(tmp_path):
    """A full table over three genes, with one row that lacks its accuracy."""
    rows = []
    for kernel, width, block in itertools.product(
        ("3", "5", "7"), ("a", "b", "c", "d"), ("plain", "residual", "fused")
    ):
        size = (int(kernel) + 2 * "abcd".index(width)) * (1 + ("plain", "residual", "fused").index(block))
        accuracy = 90 * (1 - 1 / (1 + size)) + (block == "residual")
        rows.append(
            {
                "kernel": kernel,
                "width": width,
                "block": block,
                "acc": accuracy,
                "early": accuracy - 20,
                "ms": 0.1 * size,
            }
        )
    rows[-1]["acc"] = None
    path = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


COLUMNS = Columns("acc", ("ms",), None)


def test_regret_is_one_less_the_share_of_the_true_fronts_hypervolume(path):
    table = Table(path, COLUMNS)
    assert len(table) == 35
    assert table.regret(range(35)) == pytest.approx(0)
    assert table.regret([]) == 1
    values = np.array(
        [
            table.outcome(table.suggest(_Fixed(gene)))
            for gene in itertools.product(*table.options.values())
            if gene in table._rows
        ]
    )
    losses = np.column_stack([values[:, 0].max() - values[:, 0], values[:, 1] - values[:, 1].min()])
    losses /= np.ptp(losses, axis=0)
    row = 3
    own = np.prod(1 - table._losses[row])
    assert table.regret([row]) == pytest.approx(1 - own / table.best_hypervolume)
    assert sorted(map(tuple, losses.round(9))) == sorted(map(tuple, table._losses.round(9)))


class _Fixed:
    def __init__(self, answers):
        self._answers = iter(answers)

    def suggest_categorical(self, name, choices):
        return next(self._answers)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
def test_every_sampler_spends_its_budget_on_distinct_rows(path, sampler):
    table = Table(path, COLUMNS)
    run = replay(table, make_sampler(sampler, 0, None, problem_of(table)), 20, 0)
    assert len(run.rows) == len(set(run.rows)) == 20
    assert run.spent == list(range(1, 21))


def test_a_budget_beyond_the_table_ends_with_the_table(path):
    table = Table(path, COLUMNS)
    run = replay(table, make_sampler("random", 0), 1000, 0)
    assert sorted(run.rows) == list(range(35))


def test_short_trainings_cost_their_share(path):
    table = Table(path, Columns("acc", ("ms",), "early"))
    options = {"startup": 3, "screened_first": 8, "screened": 2}
    sampler = make_sampler("ehvi", 0, options, problem_of(table))
    run = replay(table, sampler, 12, 0, short_cost=0.1)
    assert sampler.short_trainings >= 8
    assert run.spent[0] == pytest.approx(1 + 0.8)
    assert run.spent[-1] <= 12
    assert len(run.rows) < 12


def test_a_limit_keeps_what_is_beyond_it_from_being_trained(path):
    table = Table(path, Columns("acc", (), None, {"ms": 1.2}))
    for sampler in ("ehvi", "random"):
        run = replay(table, make_sampler(sampler, 0, None, problem_of(table)), 6, 0)
        assert all(table._values["ms"][row] <= 1.2 for row in run.rows)
    assert table.best_accuracy(range(35)) == table.oracle_accuracy


def test_marks_double_up_to_the_budget():
    assert checkpoints(100) == [25, 50, 100]
    assert checkpoints(60) == [25, 50, 60]
    assert checkpoints(10) == [10]


def test_means_come_with_their_standard_error():
    runs = [Run([0, 1], [1.0, 2.0]), Run([2, 3], [1.5, 2.5])]
    found = summarize(runs, 2, len)
    assert found[2].mean == pytest.approx(1.5)
    assert found[2].sem == pytest.approx(0.5)


def test_cells_are_read_and_dead_edges_seen():
    cell = parse_cell("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
    assert cell == ("nor_conv_3x3", "none", "none", "skip_connect", "none", "avg_pool_3x3")
    assert set(live_cell(cell).values()) == {"none", "skip_connect"}
    assert cell_features(cell)["paths"] == 1
    assert cell_features(cell)["residual"] == 1
    assert cell_features(("nor_conv_3x3",) * 6)["depth"] == 3
    assert len(OPERATIONS) ** 6 == 15625
    with pytest.raises(ValueError, match="six edges"):
        parse_cell("|none~0|")


def test_wrong_tables_are_refused_with_the_mend(path, tmp_path):
    with pytest.raises(DataError, match="is not a file"):
        Table(tmp_path / "none.parquet", COLUMNS)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        Table(tmp_path / "text.parquet", COLUMNS)
    with pytest.raises(ConfigError, match="Did you mean 'early'"):
        Table(path, Columns("erly", ("ms",)))
    with pytest.raises(ConfigError, match="expected numbers"):
        Table(path, Columns("block", ("ms",)))
    lonely = tmp_path / "lonely.parquet"
    pq.write_table(pa.table({"acc": [1.0, 2.0], "ms": [1.0, 2.0]}), lonely)
    with pytest.raises(ConfigError, match=r"replay\.genes"):
        Table(lonely, COLUMNS)


def test_the_last_line_of_the_command_is_json(path, capsys):
    words = [
        f"replay.table={path}",
        "replay.accuracy=acc",
        "replay.costs=[ms]",
        "budget=8",
        "seeds=2",
        "sampler.options.startup=3",
    ]
    assert main(["search", "experiment=nasbench201_replay", *words]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert set(found) == {"8"}
    assert set(found["8"]) == {"mean", "sem"}
    assert main(["search", "experiment=nasbench201_replay", *words[1:]]) == 2
    assert "replay.table is missing" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["start_from", "resume"])
def test_a_replay_refuses_an_earlier_study(path, tmp_path, key):
    words = ("space=toy", f"replay.table={path}", "replay.accuracy=acc", "replay.costs=[ms]", f"folder={tmp_path}")
    config = resolve(Request("search", words))
    with pytest.raises(ConfigError, match=rf"{key}=earlier names a study.*table.parquet.*Drop {key}="):
        run_replay({**config, key: "earlier"})


@pytest.mark.skipif(not CELLS.is_file(), reason=f"{CELLS} is missing")
def test_on_nas_bench_201_known_costs_beat_random_draws_by_far():
    table = Table(CELLS, Columns("accuracy_cifar100_test_pct", ("latency_pixel3_ms", "latency_eyeriss_ms")))
    assert len(table) == 15625
    regrets = [
        table.regret(replay(table, make_sampler(name, 0, None, problem_of(table)), 30, 0).rows)
        for name in ("ehvi", "random")
    ]
    assert regrets[0] < 0.06 < regrets[1]
