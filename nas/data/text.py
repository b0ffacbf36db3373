"""Texts with one class each, as tokens; what a network sees is made by one encoding, here and when shipped."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data import Task, some_labelled
from nas.data.scripts import RUN_TEXT
from nas.data.tokenizer import PAD_ID, TextTokenizer, train_tokenizer

_IMBALANCE = 5.0


@dataclass(frozen=True)
class TokenEncoding:
    """Token sequences cut or padded at their end to one length.

    Networks see the padding as a token like any other: its embedding is learned, and nothing masks it. A fixed length
    is what makes a measured latency that of every text.

    Args:
        length: tokens that the network reads.
    """

    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.length,)

    @property
    def key(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.length,)

    def prepare(self, samples: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        """Return all sequences at one length, shape (texts, length)."""
        rows = np.full((len(samples), self.length), PAD_ID, np.int32)
        for row, tokens in zip(rows, samples, strict=True):
            row[: len(tokens)] = tokens[: self.length]
        return rows

    def encode(self, prepared: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return tokens as 64-bit integers, shape (texts, length)."""
        return prepared.astype(np.int64)

    def example(self) -> NDArray[np.int64]:
        """Return a text of padding, shape (1, length)."""
        return np.full((1, self.length), PAD_ID, np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that says the whole recipe."""
        return {"tokenizer": "tokenizer.json", "length": self.length, "pad": PAD_ID, "cut": "end", "layout": "NT"}


@dataclass(frozen=True)
class TokenSplit:
    """Token sequences with their labels.

    Args:
        samples: tokens of each text, lengths free.
        labels: class indices, shape (texts,).
    """

    samples: Sequence[NDArray[np.int32]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TextDataset:
    """Train, validation and test texts of one classification task.

    Args:
        name: such as ``clinc150``.
        licence: of the data, as its source states it.
        classes: class names in the order of the labels.
        tokenizer: trained on the training texts.
        splits: ``train``, ``validation`` and ``test``.
        notes: what was left out and why, such as broken lines.
    """

    name: str
    licence: str
    classes: tuple[str, ...]
    tokenizer: TextTokenizer
    splits: Mapping[str, TokenSplit]
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def task(self) -> Task:
        """Text classification with this set's vocabulary and classes."""
        return Task("text_classification", 0, len(self.classes), self.tokenizer.vocabulary)

    def preprocessing(self, length: int) -> TokenEncoding:
        """Return the encoding for a network that reads ``length`` tokens."""
        return TokenEncoding(length)

    def some(self, split: str, encoding: TokenEncoding, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return tokens and labels of so many texts of a split, drawn with a fixed seed."""
        return some_labelled(self.splits[split], encoding, count)

    @property
    def study_files(self) -> dict[str, str]:
        """The tokenizer."""
        return {"tokenizer.json": self.tokenizer.json}

    def shipped_files(self, encoding: TokenEncoding) -> dict[str, str]:
        """Return class names, tokenizer, encoding and the script that classifies texts."""
        return {
            "labels.txt": "".join(f"{name}\n" for name in self.classes),
            "preprocessing.json": json.dumps(encoding.to_dict(), indent=2) + "\n",
            **self.study_files,
            "run.py": RUN_TEXT,
        }

    @cached_property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over tokenizer, tokens and labels of all splits."""
        digest = hashlib.sha256(f"{self.name}:{self.classes}:{self.tokenizer.json}".encode())
        for name in sorted(self.splits):
            split = self.splits[name]
            digest.update(name.encode() + split.labels.tobytes())
            for tokens in split.samples:
                digest.update(f"{len(tokens)}:".encode() + tokens.tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Texts:
    """Texts of one split before a tokenizer exists.

    Args:
        texts: as read.
        labels: class indices, as many.
    """

    texts: Sequence[str]
    labels: Sequence[int]


def tokenize(
    name: str,
    licence: str,
    classes: Sequence[str],
    given: Mapping[str, Texts],
    vocabulary: int,
    lowercase: bool,
    notes: Sequence[str],
) -> TextDataset:
    """Train a tokenizer on the training texts and return all splits as tokens.

    Args:
        name: of the data set.
        licence: of the data.
        classes: class names in the order of the labels.
        given: ``train``, ``validation`` and ``test``.
        vocabulary: tokens at most.
        lowercase: whether case is folded.
        notes: what was left out and why; sizes and imbalance are added.
    """
    tokenizer = train_tokenizer(given["train"].texts, vocabulary, lowercase, word_start=True)
    splits = {
        split: TokenSplit(tokenizer.encode(part.texts), np.asarray(part.labels, dtype=np.int64))
        for split, part in given.items()
    }
    lengths = [len(tokens) for tokens in splits["train"].samples]
    told = (
        f"tokenizer of {tokenizer.vocabulary} tokens trained on the {len(lengths)} training texts; "
        f"99 % of them have at most {int(np.percentile(lengths, 99))} tokens"
    )
    return TextDataset(
        name, licence, tuple(classes), tokenizer, splits, (*notes, told, *_imbalance(given["train"].labels, classes))
    )


def _imbalance(labels: Sequence[int], classes: Sequence[str]) -> list[str]:
    counts = Counter(labels).most_common()
    (most, most_count), (least, least_count) = counts[0], counts[-1]
    if most_count < _IMBALANCE * least_count:
        return []
    return [
        f"classes are unbalanced: {classes[most]} has {most_count} texts, {classes[least]} {least_count}; "
        "accuracy favours the large ones"
    ]
