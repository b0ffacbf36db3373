"""The fitted parameters that ship with the package: which files serve a device, and the cards that they carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.encodings import encoder
from latency_models.graph import GraphRegressor
from latency_models.tables import Table
from nas.errors import DataError

Array = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parent / "shipped"


@dataclass(frozen=True)
class Entry:
    """One fitted model on disk.

    Args:
        path: without suffix, as ``stored`` takes it.
        kind: ``graph`` on choices, ``calibration`` of a roofline, ``energy``, or a card alone, ``validation``.
        card: on what it was fitted, how good it is, and its licence.
    """

    path: Path
    kind: str
    card: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the file, as estimates name it."""
        return self.path.name

    def predict(self, table: Table) -> tuple[Array, Array]:
        """Return mean and deviation for the architectures of a table, in the unit of the card; of kind ``graph`` only.

        Args:
            table: with the genotype column of the card's space.
        """
        model, card = GraphRegressor.load(self.path)
        blocks = encoder(str(card["space"]))(table).blocks
        return model.predict({name: blocks[name] for name in card["blocks"]})


@dataclass(frozen=True)
class Library:
    """A folder of fitted models, read card by card; arrays are read when a model is used."""

    entries: tuple[Entry, ...]

    def serving(self, device: str, kind: str, space: str | None = None) -> Entry | None:
        """Return the model of a kind for a device by its name in ``conf/device``, or None.

        Args:
            device: such as ``rpi4``.
            kind: see ``Entry``.
            space: on whose choices it was fitted; None takes any.
        """
        for entry in self.entries:
            fits = entry.kind == kind and device in entry.card.get("serves", ())
            if fits and space in (None, entry.card.get("space")):
                return entry
        return None


def open_library(folder: Path = FOLDER) -> Library:
    """Return the models of a folder, sorted by name.

    Raises:
        DataError: the folder is missing, or a card cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected fitted models, .npz and .json side by side.")
    entries = []
    for file in sorted(folder.glob("*.json")):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            entries.append(Entry(file.with_suffix(""), str(facts["kind"]), dict(facts["card"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no card of a fitted model: {error!r}. Restore or remove it.") from error
    return Library(tuple(entries))
