"""Networks of a space drawn once and scored untrained, among which any other network's scores have ranks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.accuracy.combined import DEFAULT, rank_product_within
from nas.data import Dataset
from nas.errors import CandidateError, ConfigError, DegenerateArchitectureError
from nas.protocols import DeviceGate, SearchSpace

logger = logging.getLogger(__name__)

# Ranks among 32 members cost up to .015 of Kendall's tau against ranks among all (experiments/20261124_proxies).
MEMBERS = 32
FEWEST = 8
_DRAWS = 50  # per member, before a space counts as too degenerate


@dataclass
class Population:
    """Scores of a space's networks with fresh weights, kept in a file of the study.

    Args:
        path: file, JSON.
        members: networks to draw, with seed 0 whatever the search's, so that searches of one space compare.
    """

    path: Path
    members: int = MEMBERS
    _scores: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False)

    def prepare(
        self, space: SearchSpace, dataset: Dataset, seed: int, pictures: int, gate: DeviceGate | None = None
    ) -> None:
        """Score the population unless the file is there.

        Args:
            space: to draw from.
            dataset: whose training samples the networks read.
            seed: of weights.
            pictures: samples that each network reads.
            gate: held while computing.

        Raises:
            ConfigError: too few networks of the space can be drawn or scored.
        """
        if self.path.is_file():
            return
        with gate.training() if gate is not None else nullcontext():
            rows = self._score(space, dataset, seed, pictures)
        if len(rows) < FEWEST:
            raise ConfigError(
                f"of {self.members} networks drawn from space '{space.name}' only {len(rows)} have all of "
                f"{', '.join(DEFAULT)}; expected {FEWEST} or more. Name single scores instead of 'combined'"
            )
        unfinished = self.path.with_name(f"{self.path.name}.part")
        unfinished.write_text(json.dumps({name: [row[name] for row in rows] for name in DEFAULT}))
        os.replace(unfinished, self.path)

    def combined(self, scores: Mapping[str, float]) -> float:
        """Return the geometric mean of the relative ranks of one network's default scores, between 0 and 1.

        Raises:
            CandidateError: ``degenerate`` if a score is missing.
            ConfigError: the population was not scored.
        """
        missing = [name for name in DEFAULT if name not in scores]
        if missing:
            raise CandidateError("degenerate", f"combined needs {', '.join(missing)}, which gave no score")
        product = rank_product_within(self._known(), {name: [scores[name]] for name in DEFAULT})[0]
        return float(np.exp(product / len(DEFAULT)))

    def _known(self) -> Mapping[str, list[float]]:
        if not self._scores:
            if not self.path.is_file():
                raise ConfigError(f"no scores of a population at {self.path}; nas search proxies=[combined] makes them")
            self._scores = json.loads(self.path.read_text())
        return self._scores

    def _score(self, space: SearchSpace, dataset: Dataset, seed: int, pictures: int) -> list[dict[str, float]]:
        import torch

        from nas.accuracy.zero_cost import score_all

        rng, rows, seen = np.random.default_rng(0), list[dict[str, float]](), set[str]()
        for _ in range(_DRAWS * self.members):
            if len(seen) == self.members:
                break
            try:
                architecture = space.sample(rng)
            except DegenerateArchitectureError:
                continue
            if architecture.id in seen:
                continue
            seen.add(architecture.id)
            images, labels = dataset.some("train", dataset.preprocessing(*space.input_size(architecture)), pictures)
            torch.manual_seed(seed)
            module = space.build(architecture)
            try:
                rows.append(score_all(module, torch.from_numpy(images), torch.from_numpy(labels), DEFAULT))
            except CandidateError as error:
                logger.info("a network of the population gave no score: %s", error)
        return rows
