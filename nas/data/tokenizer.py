"""Byte-level BPE tokenizers, trained on training texts alone by the library ``tokenizers`` and shipped as its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD = "<pad>"
PAD_ID = 0
# Every byte has a token of its own, so that no text is unknown.
FEWEST_TOKENS = 257


@dataclass(frozen=True)
class TextTokenizer:
    """A trained tokenizer, held as the text of its ``tokenizer.json``; token 0 is padding.

    Args:
        json: what ``tokenizers.Tokenizer.from_str`` reads.
    """

    json: str

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.json)

    @property
    def vocabulary(self) -> int:
        """Number of tokens, padding included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the tokens of each text, neither cut nor padded."""
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        return [np.asarray(text.ids, dtype=np.int32) for text in encoded]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return str(self._tokenizer.decode(list(tokens)))


def train_tokenizer(texts: Sequence[str], vocabulary: int, lowercase: bool, word_start: bool) -> TextTokenizer:
    """Train byte-pair merges (Sennrich et al. 2016) on bytes; the same texts give the same tokenizer.

    Args:
        texts: of the training split.
        vocabulary: tokens at most; texts that hold fewer merges end with fewer.
        lowercase: fold upper case, and Unicode's compatibility forms, before anything is counted.
        word_start: treat the first word of a text like any other, by a space before it; off where text is generated.

    Raises:
        ConfigError: fewer tokens than there are bytes.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if vocabulary < FEWEST_TOKENS:
        raise ConfigError(
            f"data.vocabulary={vocabulary}; expected {FEWEST_TOKENS} or more: one token per byte, and one for padding"
        )
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=word_start)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer.to_str())
