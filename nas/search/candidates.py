"""Architectures that a sampler may propose: drawn, edited, described by what is known of them, and encoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture, Choice
from nas.errors import DegenerateArchitectureError
from nas.objective import Objective
from nas.protocols import Suggester
from nas.suggest import EditingSuggester, RandomSuggester, ReplayingSuggester

Array = NDArray[np.float64]

_ATTEMPTS = 20
_TINY = 1e-6
_STALE = 4  # encoded rows per row asked for, beyond which what is no longer asked for is forgotten


@dataclass(frozen=True)
class Description:
    """What is known of an architecture before anything is trained.

    Args:
        costs: cheap figures, positive where they can be, such as ``macs`` and ``predicted_latency_ms``.
        features: of its graph.
        genome: choices by name, those of the architecture unless it has a more telling form.
        exact: metric to value of the objectives that are known exactly.
        admissible: False for what would be refused before training.
    """

    costs: Mapping[str, float]
    features: Mapping[str, float] = field(default_factory=dict)
    genome: Mapping[str, Choice] = field(default_factory=dict)
    exact: Mapping[str, float] = field(default_factory=dict)
    admissible: bool = True


@dataclass(frozen=True)
class Problem:
    """What a sampler of our own must know besides the trials.

    Args:
        suggest: asks a suggester for every choice, as a search space does.
        describe: what is known of an architecture; the same at every call.
        objectives: axes, in the order of a trial's values.
        short: accuracy after a short training, run when it is asked for, or None.
        start: architectures described before the first proposal.
        fresh: architectures described for each further proposal.
        capacity: described architectures that are kept at a time.
    """

    suggest: Callable[[Suggester], Architecture]
    describe: Callable[[Architecture], Description]
    objectives: tuple[Objective, ...]
    short: Callable[[Architecture], float] | None = None
    start: int = 256
    fresh: int = 16
    capacity: int = 1500


@dataclass(frozen=True)
class Candidate:
    """A described architecture.

    Args:
        architecture: the genotype.
        answers: to the space's questions, by name.
        description: what is known of it.
    """

    architecture: Architecture
    answers: Mapping[str, Choice]
    description: Description


class Pool:
    """Candidates by architecture id, with the ways to find more.

    Args:
        problem: space and knowledge.
        rng: draws and edits.
    """

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self._problem, self._rng = problem, rng
        self.members: dict[str, Candidate] = {}

    def of(self, answers: Mapping[str, Choice]) -> Candidate | None:
        """Return the candidate that these answers make, described if it is new; None if they make none."""
        return self._add(ReplayingSuggester(answers, self._rng))

    def draw(self, count: int) -> None:
        """Add up to ``count`` random ones."""
        for _ in range(count):
            self._add(RandomSuggester(self._rng))

    def edit(self, parents: Iterable[Candidate], count: int) -> None:
        """Add up to ``count`` that differ from one of the parents by one answer, parents taken in turns."""
        listed = list(parents)
        if not listed:
            return
        start = int(self._rng.integers(len(listed)))
        for index in range(count):
            parent = listed[(start + index) % len(listed)]
            names = list(parent.answers)
            edited = names[int(self._rng.integers(len(names)))]
            self._add(EditingSuggester(parent.answers, edited, self._rng))

    def trim(self, worth: Mapping[str, float], keep: set[str]) -> None:
        """Drop the least worthy beyond the capacity; those in ``keep`` and those without a worth stay."""
        excess = len(self.members) - self._problem.capacity
        if excess <= 0:
            return
        droppable = sorted((value, name) for name, value in worth.items() if name not in keep)
        for _, name in droppable[:excess]:
            self.members.pop(name, None)

    def _add(self, suggester: RandomSuggester) -> Candidate | None:
        for _ in range(_ATTEMPTS):
            try:
                architecture = self._problem.suggest(suggester)
            except DegenerateArchitectureError:
                suggester.answers.clear()
                continue
            known = self.members.get(architecture.id)
            if known is None:
                known = Candidate(architecture, dict(suggester.answers), self._problem.describe(architecture))
                self.members[architecture.id] = known
            return known
        return None


class Encoder:
    """Turns candidates into rows: genome, features and logarithms of costs, each a group of standardised columns.

    A number in the genome is one column, a word is one column per word; what an architecture does not have is the
    mean of what others have. Columns appear as candidates bring new names.
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str], int] = {}
        self._index: dict[str, int] = {}
        self._matrix = np.empty((0, 0))

    def encode(self, candidates: Sequence[Candidate]) -> tuple[Array, tuple[NDArray[np.int64], ...]]:
        """Return rows of shape (candidates, columns), and the columns of genome, features and costs.

        Columns are standardised over the rows; words keep their 0 and 1, doubled.
        """
        if len(self._index) > _STALE * len(candidates):
            self._index.clear()
        for candidate in candidates:
            if candidate.architecture.id not in self._index:
                self._write(candidate)
        rows = self._matrix[[self._index[candidate.architecture.id] for candidate in candidates], : len(self._columns)]
        kinds = np.array([kind for kind, _ in self._columns])
        words = kinds == "word"
        rows[:, words] = 2.0 * np.nan_to_num(rows[:, words])
        scaled = ~words
        with np.errstate(invalid="ignore"):
            counts = np.maximum((~np.isnan(rows[:, scaled])).sum(axis=0), 1)
            centre = np.nansum(rows[:, scaled], axis=0) / counts
            spread = np.sqrt(np.nansum((rows[:, scaled] - centre) ** 2, axis=0) / counts)
        rows[:, scaled] = np.nan_to_num((rows[:, scaled] - centre) / np.where(spread > _TINY, spread, 1.0))
        groups = (("word", "number"), ("feature",), ("cost",))
        return rows, tuple(np.flatnonzero(np.isin(kinds, group)) for group in groups)

    def _write(self, candidate: Candidate) -> None:
        entry = [
            (self._columns.setdefault((kind, name), len(self._columns)), value)
            for kind, name, value in _facts(candidate)
        ]
        index = self._index[candidate.architecture.id] = len(self._index)
        height, width = self._matrix.shape
        if index >= height or len(self._columns) > width:
            larger = np.full((max(2 * height, index + 1, 256), max(len(self._columns) + 16, width)), np.nan)
            larger[:height, :width] = self._matrix
            self._matrix = larger
        self._matrix[index] = np.nan
        columns, values = zip(*entry, strict=True)
        self._matrix[index, list(columns)] = values


def _facts(candidate: Candidate) -> Iterable[tuple[str, str, float]]:
    architecture, known = candidate.architecture, candidate.description
    genome = known.genome or {
        **architecture.choices,
        **{f"precision.{block}": str(precision) for block, precision in architecture.precision.items()},
    }
    for name, choice in genome.items():
        if isinstance(choice, str):
            yield "word", f"{name}={choice}", 1.0
        else:
            yield "number", name, math.copysign(math.log1p(abs(choice)), choice)
    for name, value in known.features.items():
        yield "feature", name, float(value)
    for name, value in known.costs.items():
        yield "cost", name, math.log(max(float(value), 0.0) + _TINY)
