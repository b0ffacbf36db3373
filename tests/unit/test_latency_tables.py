"""Tables of measurements: reading, groups that no split tears apart, and what counts as one measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from latency_models.tables import Table, group_rows, read_table, split_rows
from nas.errors import ConfigError, DataError


def _grouped(values: list[float | None], groups: list[int]) -> Table:
    return Table({"idx": list(range(len(groups))), "representative_idx": groups, "ms": values}, "t")


def test_csv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,ms\nx,1.5\ny,\n")
    parquet.write_table(pa.table({"a": ["x", "y"], "ms": [1.5, None]}), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        numbers = read_table(tmp_path / name).numbers("ms")
        assert numbers[0] == 1.5
        assert np.isnan(numbers[1])


def test_sum_of_columns() -> None:
    table = Table({"a": [1, 2], "b": [10.0, None]}, "t")
    total = table.numbers("a+b")
    assert total[0] == 11
    assert np.isnan(total[1])


def test_wrong_names_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'latency_ms'"):
        Table({"latency_ms": [1]}, "t").numbers("latncy_ms")
    with pytest.raises(ConfigError, match="holds no numbers"):
        Table({"a": ["x"]}, "t").numbers("a")
    with pytest.raises(DataError, match="is not a file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "broken.parquet")


def test_rows_without_a_positive_target_are_dropped_and_counted() -> None:
    target = np.array([1.0, 0.0, -1.0, np.nan, 2.0])
    groups = group_rows(Table({"x": [0] * 5}, "t"), target)
    assert groups.dropped == 3
    assert sorted(groups.speaker.values()) == [0, 4]


def test_inherited_values_count_once_and_point_at_what_was_measured() -> None:
    groups = group_rows(_grouped([3.0, 3.0, 3.0, 5.0], [1, 1, 1, 3]), np.array([3.0, 3.0, 3.0, 5.0]))
    assert groups.measured == {1: (1,), 3: (3,)}
    assert groups.source.tolist() == [1, 1, 1, 3]
    assert groups.inherited == 2


def test_values_of_their_own_all_count() -> None:
    groups = group_rows(_grouped([3.0, 3.1, 2.9, 5.0], [1, 1, 1, 3]), np.array([3.0, 3.1, 2.9, 5.0]))
    assert groups.measured[1] == (0, 1, 2)
    assert groups.speaker[1] == 1
    assert groups.source.tolist() == [0, 1, 2, 3]
    assert groups.inherited == 0


def test_a_representative_without_a_value_is_replaced() -> None:
    target = np.array([3.0, np.nan, 2.9])
    groups = group_rows(_grouped([3.0, None, 2.9], [1, 1, 1]), target)
    assert groups.speaker == {1: 0}


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 60, 300)
    target = rng.uniform(1, 2, 300)
    groups = group_rows(_grouped(target.tolist(), labels.tolist()), target)
    learn, test = split_rows(groups, 100, seed)
    assert len(learn) <= 100
    assert not set(labels[learn]) & set(labels[test])
    assert len(set(labels[test])) == len(test)
    assert {*labels[learn], *labels[test]} == set(labels)


def test_too_few_rows_to_score_on() -> None:
    target = np.ones(20) + np.arange(20)
    with pytest.raises(ConfigError, match="leaves 15 to learn from and 5 to score on"):
        split_rows(group_rows(Table({"x": [0] * 20}, "t"), target), 15, 0)
