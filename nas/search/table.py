"""A table of architectures with their accuracies and costs, as a space that any sampler can search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nas.architecture import Architecture, Choice
from nas.errors import ConfigError, DataError, DegenerateArchitectureError, unknown_name
from nas.objective import Objective
from nas.pareto import hypervolume
from nas.protocols import Suggester
from nas.search.candidates import Description
from nas.search.cells import cell_features, live_cell, parse_cell

Array = NDArray[np.float64]

CELL = "arch_str"
# Below this share of the combinations of its genes, random questions would hardly ever hit a row.
_LEAST_FILLED = 1e-3


@dataclass(frozen=True)
class Columns:
    """Which columns a replay reads.

    Args:
        accuracy: to maximise, percent or share.
        costs: to minimise, known to the search beforehand; may be empty if there is a limit.
        low_fidelity: accuracy after a short training, or None.
        limits: cost column to the largest value allowed.
        genes: columns that make the architecture; empty: ``arch_str``, else every column of words.
    """

    accuracy: str
    costs: tuple[str, ...] = ()
    low_fidelity: str | None = None
    limits: Mapping[str, float] | None = None
    genes: tuple[str, ...] = ()


class Table:
    """Rows that have all values asked for, each an architecture; rows that lack one are left out.

    Args:
        path: Parquet file.
        columns: which to read.

    Raises:
        DataError: the file is missing or is no Parquet.
        ConfigError: a column is missing, holds no numbers, or none of its rows is complete.
    """

    name = "table"

    def __init__(self, path: str | Path, columns: Columns) -> None:
        self.columns = columns
        names = _names(path)
        limits = dict(columns.limits or {})
        wanted = [columns.accuracy, *columns.costs, *limits, *([columns.low_fidelity] if columns.low_fidelity else [])]
        for name in wanted:
            if name not in names:
                raise unknown_name(f"column in {path}", name, names)
        genes = columns.genes or ((CELL,) if CELL in names else ())
        for name in genes:
            if name not in names:
                raise unknown_name(f"column in {path}", name, names)
        read = pq.read_table(path, columns=list(dict.fromkeys([*wanted, *(genes or names)])))
        genes = genes or _words(read, set(wanted), path)
        values = np.column_stack([_numbers(read, name, path) for name in dict.fromkeys(wanted)])
        complete: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
        if not complete.any():
            raise ConfigError(f"{path}: no row has a value in all of {', '.join(wanted)}")
        self._values = {name: values[complete, index] for index, name in enumerate(dict.fromkeys(wanted))}
        self._genomes = [genome for genome, keep in zip(_genomes(read, genes, path), complete, strict=True) if keep]
        self._described: dict[int, Description] = {}
        self._is_cell = genes == (CELL,)
        self.options = {
            gene: tuple(sorted({genome[gene] for genome in self._genomes}, key=str)) for gene in self._genomes[0]
        }
        self._rows = {tuple(genome.values()): row for row, genome in enumerate(self._genomes)}
        combinations = math.prod(map(len, self.options.values()))
        if len(self._rows) < _LEAST_FILLED * combinations:
            raise ConfigError(
                f"{path} holds {len(self._rows)} of {combinations:.3g} combinations of {', '.join(self.options)}; a "
                "replay needs one in a thousand, so that a question can be answered. Name fewer columns by replay.genes"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def suggest(self, suggester: Suggester, /) -> Architecture:
        """Ask for every gene.

        Raises:
            DegenerateArchitectureError: the table has no complete row for the answers.
        """
        choices = {gene: suggester.suggest_categorical(gene, options) for gene, options in self.options.items()}
        if tuple(choices.values()) not in self._rows:
            raise DegenerateArchitectureError(f"the table has no complete row for {choices}")
        return Architecture(self.name, choices)

    def row(self, architecture: Architecture) -> int:
        """Return the row of an architecture."""
        return self._rows[tuple(architecture.choices[gene] for gene in self.options)]

    def describe(self, architecture: Architecture) -> Description:
        """Return the costs as exactly known, and for a cell of NAS-Bench-201 what its graph tells."""
        row = self.row(architecture)
        if row not in self._described:
            self._described[row] = self._describe(row, architecture)
        return self._described[row]

    def _describe(self, row: int, architecture: Architecture) -> Description:
        limits = self.columns.limits or {}
        costs = {name: float(self._values[name][row]) for name in dict.fromkeys([*self.columns.costs, *limits])}
        operations = [str(choice) for choice in architecture.choices.values()]
        return Description(
            costs=costs,
            features=cell_features(operations) if self._is_cell else {},
            genome=live_cell(operations) if self._is_cell else architecture.choices,
            exact=costs,
            admissible=all(costs[name] <= limit for name, limit in limits.items()),
        )

    def low_fidelity(self, architecture: Architecture) -> float:
        """Return the accuracy after a short training."""
        assert self.columns.low_fidelity is not None
        return float(self._values[self.columns.low_fidelity][self.row(architecture)])

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """Accuracy and costs, the worst value of the table as reference of each."""
        accuracy = self._values[self.columns.accuracy]
        return (
            Objective(self.columns.accuracy, "maximize", reference=float(accuracy.min())),
            *(Objective(name, "minimize", reference=float(self._values[name].max())) for name in self.columns.costs),
        )

    def outcome(self, architecture: Architecture) -> list[float]:
        """Return the values of the objectives."""
        row = self.row(architecture)
        return [float(self._values[objective.metric][row]) for objective in self.objectives]

    @cached_property
    def _losses(self) -> Array:
        """Losses from 0 (best in the table) to 1 (worst), shape (rows, objectives)."""
        raw = np.column_stack([objective.sign * self._values[objective.metric] for objective in self.objectives])
        low, span = raw.min(axis=0), np.ptp(raw, axis=0)
        return np.asarray((raw - low) / np.where(span > 0, span, 1.0))

    @cached_property
    def _allowed(self) -> NDArray[np.bool_]:
        allowed = np.ones(len(self._losses), np.bool_)
        for name, limit in (self.columns.limits or {}).items():
            allowed &= self._values[name] <= limit
        return allowed

    @cached_property
    def best_hypervolume(self) -> float:
        """Hypervolume of the true front."""
        return self._volume(self._losses[self._allowed])

    def regret(self, rows: Sequence[int]) -> float:
        """Return 1 less the share of the true front's hypervolume that these rows have; objectives run from 0 to 1."""
        found = np.array(rows, dtype=np.int64)
        return 1.0 - self._volume(self._losses[found[self._allowed[found]]]) / self.best_hypervolume

    def _volume(self, losses: Array) -> float:
        return hypervolume(losses, [1.0] * losses.shape[1]) if len(losses) else 0.0

    def best_accuracy(self, rows: Sequence[int]) -> float:
        """Return the best accuracy of these rows within the limits, NaN where none is."""
        found = np.array(rows, dtype=np.int64)
        within = self._values[self.columns.accuracy][found[self._allowed[found]]]
        return float(within.max()) if len(within) else math.nan

    @cached_property
    def oracle_accuracy(self) -> float:
        """Best accuracy of the table within the limits."""
        return self.best_accuracy(range(len(self._losses)))


def _names(path: str | Path) -> list[str]:
    if not Path(path).is_file():
        raise DataError(f"replay.table={path} is not a file; expected a Parquet file with a row per architecture")
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"replay.table={path} cannot be read as Parquet: {error}") from error


def _numbers(read: pa.Table, name: str, path: str | Path) -> Array:
    try:
        column = read[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"column '{name}' of {path} holds {read[name].type}; expected numbers") from error
    return np.array(column.to_numpy(), dtype=np.float64)


def _words(read: pa.Table, numbers: set[str], path: str | Path) -> tuple[str, ...]:
    found = tuple(
        name
        for name in read.column_names
        if name not in numbers and (pa.types.is_string(read[name].type) or pa.types.is_large_string(read[name].type))
    )
    if not found:
        raise ConfigError(
            f"{path} has neither a column '{CELL}' nor one of words; name its genes by replay.genes=[...]"
        )
    return found


def _genomes(read: pa.Table, genes: Sequence[str], path: str | Path) -> list[dict[str, Choice]]:
    if tuple(genes) != (CELL,):
        return [dict(row) for row in read.select(list(genes)).to_pylist()]
    try:
        cells = [parse_cell(str(text)) for text in read[CELL].to_pylist()]
    except ValueError as error:
        raise DataError(f"column '{CELL}' of {path}: {error}") from error
    return [{f"edge{edge}": operation for edge, operation in enumerate(cell)} for cell in cells]
