"""A user's own texts: a label and a text per line; what is broken is named and skipped, what is hopeless is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.drawn import Shares
from nas.data.text import TextDataset, Texts, tokenize
from nas.errors import DataError

LAYOUT = (
    "Expected lines of LABEL, a tab and TEXT in UTF-8, in one file (split by seed) or in a folder with train.tsv and, "
    "where you have them, validation.tsv and test.tsv (or .txt); at least two labels. Pass it as data.path=FILE."
)
_SPLIT_FILES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_SUFFIXES = (".tsv", ".txt")
_NAMED_LINES = 5


@dataclass
class _Lines:
    """Readable lines of one file."""

    labels: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class LabelledText:
    """Lines of a label, a tab and a text.

    Args:
        path: a file, or a folder in the layout above.
        lengths: tokens that a network may read, from which a search space chooses; longer texts are cut.
        vocabulary: tokens of the tokenizer that is trained on the training texts.
        lowercase: fold upper case.
        validation_share: share of the training lines that the search scores on, where there is no such file.
        test_share: share read once, for what ships, where there is no such file.
        seed: of the stratified split.
        licence: of the texts, for the model card.
    """

    name = "text"

    def __init__(
        self,
        path: str | None,
        lengths: Sequence[int] = (16, 32, 64),
        vocabulary: int = 2000,
        lowercase: bool = True,
        validation_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        licence: str = "unknown",
    ) -> None:
        self.path = path
        self.lengths = tuple(lengths)
        self.vocabulary = vocabulary
        self.lowercase = lowercase
        self._shares = Shares(validation_share, test_share, seed)
        self.licence = licence

    def load(self) -> TextDataset:
        """Read all lines, split what has no file of its own, and train the tokenizer.

        Raises:
            DataError: no such file, no readable line, fewer than two labels, or labels that training lacks.
            ConfigError: the shares leave nothing to train on.
        """
        files = self._files()
        read = {split: _read(file) for split, file in files.items()}
        for split, lines in read.items():
            if not lines.texts:
                raise DataError(f"{files[split]} has no readable line ({len(lines.broken)} broken). {LAYOUT}")
        classes = sorted(set(read["train"].labels))
        if len(classes) < 2:
            raise DataError(f"{files['train']} has one label, '{classes[0]}'; a classifier needs two. {LAYOUT}")
        index = {name: label for label, name in enumerate(classes)}
        strange = sorted({label for lines in read.values() for label in lines.labels} - index.keys())
        if strange:
            raise DataError(f"labels that the training texts lack: {', '.join(strange[:5])}. {LAYOUT}")
        own = {split: Texts(part.texts, [index[name] for name in part.labels]) for split, part in read.items()}
        given = {**self._split(own), **{split: part for split, part in own.items() if split != "train"}}
        name = Path(str(self.path)).resolve().stem
        notes = self._notes(read)
        return tokenize(name, self.licence, classes, given, self.vocabulary, self.lowercase, notes)

    def _files(self) -> dict[str, Path]:
        if not self.path:
            raise DataError(f"data.path is not set. {LAYOUT}")
        root = Path(self.path)
        if root.is_file():
            return {"train": root}
        if not root.is_dir():
            raise DataError(f"data.path={self.path} is neither a file nor a folder. {LAYOUT}")
        found = {}
        for split, names in _SPLIT_FILES.items():
            there = [root / f"{name}{suffix}" for name in names for suffix in _SUFFIXES]
            present = [file for file in there if file.is_file()]
            if present:
                found[split] = present[0]
        if "train" not in found:
            raise DataError(f"{root} has no train.tsv. {LAYOUT}")
        return found

    def _split(self, own: dict[str, Texts]) -> dict[str, Texts]:
        """Return the training lines without those drawn for the splits that have no file."""
        train = own["train"]
        labels = np.asarray(train.labels, dtype=np.int64)
        parts = self._shares.draw(labels, own, str(self.path), "lines")
        return {
            name: Texts([train.texts[index] for index in part], labels[part].tolist()) for name, part in parts.items()
        }

    def _notes(self, read: dict[str, _Lines]) -> list[str]:
        notes = self._shares.notes(read, "files")
        for split, lines in read.items():
            if lines.broken:
                named = ", ".join(lines.broken[:_NAMED_LINES])
                more = f" and {len(lines.broken) - _NAMED_LINES} more" if len(lines.broken) > _NAMED_LINES else ""
                notes.append(f"{len(lines.broken)} unreadable lines of {split} skipped: {named}{more}")
            twice = sum(count - 1 for count in Counter(lines.texts).values())
            if twice:
                notes.append(f"{twice} texts of {split} stand there more than once")
        return notes


def _read(file: Path) -> _Lines:
    """Return the lines of a file; a broken one is named by its number and the reason."""
    lines = _Lines()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}. {LAYOUT}") from error
    for number, raw in enumerate(content.splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            label, tab, text = raw.decode("utf-8").strip().partition("\t")
        except UnicodeDecodeError:
            lines.broken.append(f"line {number} (no UTF-8)")
            continue
        if not tab or not label.strip() or not text.strip():
            lines.broken.append(f"line {number} (no label, tab and text)")
            continue
        lines.labels.append(label.strip())
        lines.texts.append(text.strip())
    return lines
