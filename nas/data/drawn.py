"""Splits that a user's data do not bring along, drawn from the training samples by seed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.stratify import part_sizes, stratified_parts
from nas.errors import ConfigError, DataError

_HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Shares:
    """How much of the training samples a split gets that has none of its own.

    Args:
        validation: share that the search scores on.
        test: share read once, for what ships.
        seed: of the stratified draw.
    """

    validation: float
    test: float
    seed: int

    def draw(
        self, labels: NDArray[np.int64], own: Collection[str], data: str, samples: str
    ) -> dict[str, NDArray[np.int64]]:
        """Return indices into the training samples of ``train`` and of each split that is not in ``own``.

        Args:
            labels: class indices of the training samples, shape (samples,).
            own: splits that the data bring along.
            data: what the data are called in errors.
            samples: what a sample is called in errors, in the plural.

        Raises:
            ConfigError: the shares leave nothing to train on.
            DataError: a class has so few samples that none is left to train on.
        """
        try:
            _, validation, test = part_sizes(len(labels), self.validation, self.test)
        except ValueError as error:
            raise ConfigError(f"data set {data}: {error}") from error
        held = {"validation": max(validation, 1), "test": max(test, 1)}
        held = {split: size for split, size in held.items() if split not in own}
        rest, classes = len(labels) - sum(held.values()), set(labels.tolist())
        if rest < len(classes):
            raise DataError(
                f"{len(labels)} {samples} of {data} leave {rest} to train {len(classes)} classes on; add {samples} or "
                "lower data.validation_share and data.test_share"
            )
        parts = stratified_parts(labels, (rest, *held.values()), self.seed)
        missing = len(classes - set(labels[parts[0]].tolist()))
        if missing:
            raise DataError(
                f"{missing} classes of {data} have so few {samples} that the split by seed {self.seed} left none to "
                "train on; give each class at least 5, or training, validation and test data of your own"
            )
        return dict(zip(("train", *held), parts, strict=True))

    def notes(self, own: Collection[str], source: str) -> list[str]:
        """Return where validation and test come from, for the model card.

        Args:
            own: splits that the data bring along.
            source: what each split is read from, in the plural, such as ``folders``.
        """
        drawn = [split for split in _HELD_OUT if split not in own]
        given = [split for split in _HELD_OUT if split in own]
        notes = []
        if drawn:
            notes.append(f"{' and '.join(drawn)} drawn from the training {source}, stratified by seed {self.seed}")
        if given:
            notes.append(f"{' and '.join(given)} read from {source} of their own")
        return notes
