"""Running text for language models, as one stream of tokens per split, read in windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data import Task
from nas.data.scripts import RUN_LANGUAGE
from nas.data.tokenizer import TextTokenizer


@dataclass(frozen=True)
class WindowEncoding:
    """Windows of a stream, each token's target being the next one.

    Args:
        context: tokens that the network reads at most.
    """

    context: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(context,)."""
        return (self.context,)

    @property
    def key(self) -> tuple[int, ...]:
        """(context,)."""
        return (self.context,)

    def prepare(self, samples: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        """Return the windows of all streams side by side, shape (windows, context + 1); a short rest is left out.

        Windows overlap by the one token that is target of the first and input of the next, so that every token but the
        first is a target once.
        """
        offsets = np.arange(self.context + 1)
        starts = [np.arange(0, max(len(stream) - self.context, 0), self.context) for stream in samples]
        return np.concatenate([stream[first[:, None] + offsets] for stream, first in zip(samples, starts, strict=True)])

    def encode(self, prepared: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the inputs of windows, shape (windows, context)."""
        return prepared[:, :-1].astype(np.int64)

    def targets(self, prepared: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the next tokens, shape (windows, context)."""
        return prepared[:, 1:].astype(np.int64)

    def example(self) -> NDArray[np.int64]:
        """Return a window of token 0, shape (1, context)."""
        return np.zeros((1, self.context), np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that says the whole recipe."""
        return {"tokenizer": "tokenizer.json", "context": self.context, "layout": "NT"}


@dataclass(frozen=True)
class TokenStream:
    """A text as tokens.

    Args:
        tokens: shape (tokens,).
    """

    tokens: NDArray[np.int32]

    @property
    def samples(self) -> Sequence[NDArray[np.int32]]:
        """The one stream."""
        return [self.tokens]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class LanguageDataset:
    """Train, validation and test text for a language model.

    Args:
        name: such as ``tiny_shakespeare``.
        licence: of the text, as its source states it.
        tokenizer: trained on the training text.
        splits: ``train``, ``validation`` and ``test``.
        notes: how it was split, and what was left out.
    """

    name: str
    licence: str
    tokenizer: TextTokenizer
    splits: Mapping[str, TokenStream]
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def classes(self) -> tuple[str, ...]:
        """None: what is said is a token."""
        return ()

    @property
    def task(self) -> Task:
        """Language modelling over this set's vocabulary."""
        return Task("language_model", 0, self.tokenizer.vocabulary, self.tokenizer.vocabulary)

    def preprocessing(self, context: int) -> WindowEncoding:
        """Return the encoding for a network that reads ``context`` tokens at most."""
        return WindowEncoding(context)

    def some(self, split: str, encoding: WindowEncoding, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return inputs and next tokens of at most so many windows of a split, drawn with a fixed seed."""
        windows = encoding.prepare(self.splits[split].samples)
        chosen = windows[np.random.default_rng(0).permutation(len(windows))[:count]]
        return encoding.encode(chosen), encoding.targets(chosen)

    @property
    def study_files(self) -> dict[str, str]:
        """The tokenizer."""
        return {"tokenizer.json": self.tokenizer.json}

    def shipped_files(self, encoding: WindowEncoding) -> dict[str, str]:
        """Return tokenizer, encoding and the script that continues texts."""
        recipe = json.dumps(encoding.to_dict(), indent=2) + "\n"
        return {**self.study_files, "preprocessing.json": recipe, "run.py": RUN_LANGUAGE}

    @cached_property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over tokenizer and tokens of all splits."""
        digest = hashlib.sha256(f"{self.name}:{self.tokenizer.json}".encode())
        for name in sorted(self.splits):
            digest.update(name.encode() + self.splits[name].tokens.tobytes())
        return digest.hexdigest()[:12]
