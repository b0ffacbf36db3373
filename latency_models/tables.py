"""Tables of measurements, CSV or Parquet: columns, targets, and splits that put whole groups on one side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError, DataError, unknown_name

# Columns of the published tables that name the row whose measurement a row shares.
GROUP_COLUMNS = ("representative_idx", "rep360")
INDEX_COLUMN = "idx"


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Args:
        columns: name to values; a missing value is None. An Arrow column is turned into values when it is asked for.
        name: of the file, for errors.
    """

    columns: Mapping[str, Any]
    name: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def values(self, column: str) -> Sequence[Any]:
        """Return a column as it stands.

        Raises:
            ConfigError: there is none of that name, with the corrected spelling.
        """
        if column not in self.columns:
            raise unknown_name(f"column of {self.name}", column, self.columns)
        found: Any = self.columns[column]
        values: Sequence[Any] = found.to_pylist() if hasattr(found, "to_pylist") else found
        return values

    def numbers(self, column: str) -> NDArray[np.float64]:
        """Return a column, or the sum of columns joined by ``+``, as floats; what is missing is NaN.

        Raises:
            ConfigError: a column does not exist or holds something else than numbers.
        """
        if column not in self.columns and "+" in column:
            parts = [self.numbers(part.strip()) for part in column.split("+")]
            return np.asarray(np.sum(parts, axis=0), dtype=np.float64)
        try:
            return np.array([np.nan if v in (None, "") else float(v) for v in self.values(column)], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"column '{column}' of {self.name} holds no numbers: {error}.") from error


def read_table(path: str | Path) -> Table:
    """Read a CSV or a Parquet file.

    Raises:
        DataError: missing, empty or unreadable.
    """
    from pyarrow import ArrowException, csv, parquet

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; expected a table as .csv or .parquet.")
    try:
        read = parquet.read_table(path) if _is_parquet(path) else csv.read_csv(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    if read.num_rows == 0:
        raise DataError(f"{path} has no rows.")
    return Table({name: read[name] for name in read.column_names}, path.name)


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


@dataclass(frozen=True)
class Groups:
    """Which rows measure one thing, and which row speaks for each group.

    Args:
        of_row: group of each row of the table.
        speaker: group to the row that is scored: the representative where it has a target, else the first.
        measured: group to the rows that were measured.
        source: row to the row whose architecture was measured; its own, unless its value is inherited.
        dropped: rows without a positive target.
        inherited: rows that repeat the value of their group.
    """

    of_row: NDArray[np.int64]
    speaker: Mapping[int, int]
    measured: Mapping[int, tuple[int, ...]]
    source: NDArray[np.int64]
    dropped: int
    inherited: int


def group_rows(table: Table, target: NDArray[np.float64]) -> Groups:
    """Return the groups of the rows with a positive target.

    A table without a column of representatives has a group per row. Where all rows of a group carry one and the same
    value, the value was measured once, on the representative, and the group counts as that one measurement: such a
    column's rows are inherited, and a repeated value teaches nothing.
    """
    valid = np.isfinite(target) & (target > 0)
    of_row, own_row = _identity(table)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(valid):
        members.setdefault(int(of_row[row]), []).append(int(row))
    several = [rows for rows in members.values() if len(rows) > 1]
    equal = sum(len(set(target[rows])) == 1 for rows in several)
    # One odd tie is a coincidence, as among whole milliseconds; a column that inherits does so throughout.
    inherits = bool(several) and equal >= 0.99 * len(several)
    speaker, measured = {}, {}
    source = np.arange(len(target))
    for group, rows in members.items():
        speaker[group] = own_row[group] if own_row.get(group) in rows else rows[0]
        measured[group] = (speaker[group],) if inherits else tuple(rows)
        if inherits and group in own_row:
            source[rows] = own_row[group]
    inherited = sum(len(rows) - 1 for rows in several) if inherits else 0
    return Groups(of_row, speaker, measured, source, int((~valid).sum()), inherited)


def _identity(table: Table) -> tuple[NDArray[np.int64], Mapping[int, int]]:
    """Return the group of each row, and group to the row of its representative where the table has that row."""
    found = next((name for name in GROUP_COLUMNS if name in table.columns), None)
    if found is None:
        rows = np.arange(len(table))
        return rows, {int(row): int(row) for row in rows}
    labels = table.numbers(found)
    # A row without a representative stands for itself alone.
    lonely = -1 - np.arange(len(table))
    of_row = np.where(np.isfinite(labels), np.nan_to_num(labels), lonely).astype(np.int64)
    index = table.numbers(INDEX_COLUMN) if INDEX_COLUMN in table.columns else np.arange(len(table))
    return of_row, {int(label): row for row, label in enumerate(index) if np.isfinite(label)}


def split_rows(groups: Groups, train: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to learn from and rows to score on; no group has rows in both, and each group is scored once.

    Args:
        groups: as :func:`group_rows` returns them.
        train: rows to learn from; whole groups are taken in random order while they fit.
        seed: of that order.

    Raises:
        ConfigError: fewer than 10 groups would be left to score on.
    """
    order = np.random.default_rng(seed).permutation(np.array(sorted(groups.measured), dtype=np.int64))
    learned: list[int] = []
    scored: list[int] = []
    for group in order:
        rows = groups.measured[int(group)]
        if len(learned) + len(rows) <= train:
            learned += rows
        else:
            scored.append(groups.speaker[int(group)])
    if len(scored) < 10 or len(learned) < 3:
        total = sum(len(rows) for rows in groups.measured.values())
        raise ConfigError(
            f"train={train} of {total} measured rows leaves {len(learned)} to learn from and {len(scored)} to score "
            "on; expected at least 3 and 10."
        )
    return np.array(learned, dtype=np.int64), np.array(scored, dtype=np.int64)
