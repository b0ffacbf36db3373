"""CLINC150: short requests to an assistant in 150 intents, and those that fit none (Larson et al. 2019)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.data.text import TextDataset, Texts, tokenize
from nas.errors import DataError

LICENCE = "CC BY 3.0 (S. Larson et al., An Evaluation Dataset for Intent Classification, 2019)"
FILE = "data_full.json"
OUT_OF_SCOPE = "oos"
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
LAYOUT = (
    f"Expected a folder with {FILE} as the repository clinc/oos-eval publishes it: lists `train`, `val`, `test`, "
    "`oos_train`, `oos_val` and `oos_test` of pairs [text, intent]. Pass the folder, or the file itself, as "
    "data.path=FOLDER."
)


class Clinc150:
    """CLINC150 as published: 15,000 train, 3,000 validation and 4,500 test texts, with 100, 100 and 1,000 out of scope.

    Args:
        path: folder of ``data_full.json``, or the file.
        lengths: tokens that a network may read, from which a search space chooses; longer texts are cut.
        vocabulary: tokens of the tokenizer that is trained on the training texts.
        lowercase: fold upper case.
        out_of_scope: keep the texts that fit no intent, as a class ``oos``; without them the test is easier.
    """

    name = "clinc150"

    def __init__(
        self,
        path: str | None,
        lengths: Sequence[int] = (16, 24, 32),
        vocabulary: int = 2000,
        lowercase: bool = True,
        out_of_scope: bool = True,
    ) -> None:
        self.path = path
        self.lengths = tuple(lengths)
        self.vocabulary = vocabulary
        self.lowercase = lowercase
        self.out_of_scope = out_of_scope

    def load(self) -> TextDataset:
        """Read the published splits and train the tokenizer.

        Raises:
            DataError: no such file, or one of another layout.
        """
        published = self._read()
        pairs = {split: _pairs(published, key) for split, key in _SPLITS.items()}
        classes = sorted({intent for _, intent in pairs["train"]})
        if self.out_of_scope:
            classes.append(OUT_OF_SCOPE)
            for split, key in _SPLITS.items():
                pairs[split] += _pairs(published, f"oos_{key}")
        index = {name: label for label, name in enumerate(classes)}
        strange = sorted({intent for split in pairs.values() for _, intent in split} - index.keys())
        if strange:
            raise DataError(f"{self.path} has intents outside the training texts: {', '.join(strange[:5])}. {LAYOUT}")
        given = {
            split: Texts([text for text, _ in found], [index[intent] for _, intent in found])
            for split, found in pairs.items()
        }
        sizes = ", ".join(f"{len(part.texts)} {split}" for split, part in given.items())
        scope = "with" if self.out_of_scope else "without"
        notes = [f"splits as published, {scope} the texts out of scope: {sizes}"]
        return tokenize(self.name, LICENCE, classes, given, self.vocabulary, self.lowercase, notes)

    def _read(self) -> dict[str, Any]:
        if not self.path:
            raise DataError(f"data.path is not set; CLINC150 does not come with this package. {LAYOUT}")
        path = Path(self.path)
        file = path / FILE if path.is_dir() else path
        try:
            published = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}. {LAYOUT}") from error
        except ValueError as error:
            raise DataError(f"{file} is no JSON: {error}. {LAYOUT}") from error
        if not isinstance(published, dict):
            raise DataError(f"{file} holds no JSON object. {LAYOUT}")
        return published


def _pairs(published: dict[str, Any], key: str) -> list[tuple[str, str]]:
    rows = published.get(key)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"list `{key}` is missing or empty. {LAYOUT}")
    for number, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(cell, str) for cell in row)):
            raise DataError(f"entry {number} of `{key}` is {row!r}, no pair [text, intent]. {LAYOUT}")
    return [(text, intent) for text, intent in rows]
