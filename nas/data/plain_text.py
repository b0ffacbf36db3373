"""Plain text for a language model: the beginning trains, what follows validates, the end tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.data.language import LanguageDataset, TokenStream
from nas.data.tokenizer import train_tokenizer
from nas.errors import ConfigError, DataError

LAYOUT = (
    "Expected a text file in UTF-8, or a folder of *.txt, read in the order of their names. Pass it as data.path=FILE."
)


class PlainText:
    """Running text, cut by position and not at random: neighbouring passages repeat each other's names and phrases.

    Args:
        path: file, or folder of ``*.txt``.
        contexts: tokens that a network reads at most, from which a search space chooses.
        vocabulary: tokens of the tokenizer that is trained on the training text.
        validation_share: share of the characters, after the training text, that the search scores on.
        test_share: share at the end that is read once, for what ships.
        licence: of the text, for the model card.
    """

    name = "plain_text"

    def __init__(
        self,
        path: str | None,
        contexts: Sequence[int] = (64, 128),
        vocabulary: int = 1024,
        validation_share: float = 0.05,
        test_share: float = 0.05,
        licence: str = "unknown",
    ) -> None:
        if not (0 < validation_share < 1 and 0 <= test_share < 1 and validation_share + test_share < 1):
            raise ConfigError(
                f"data.validation_share={validation_share} and data.test_share={test_share}; expected a positive "
                "validation share, a test share from 0, and a sum below 1"
            )
        self.path = path
        self.contexts = tuple(contexts)
        self.vocabulary = vocabulary
        self.validation_share = validation_share
        self.test_share = test_share
        self.licence = licence

    def load(self) -> LanguageDataset:
        """Read the text, cut it, and train the tokenizer on the first part.

        Raises:
            DataError: no such file, or too short for a window of each split.
        """
        text, notes = self._read()
        test = round(len(text) * self.test_share)
        validation = round(len(text) * self.validation_share)
        train = len(text) - validation - test
        parts = {
            "train": text[:train],
            "validation": text[train : train + validation],
            "test": text[train + validation :],
        }
        tokenizer = train_tokenizer([parts["train"]], self.vocabulary, lowercase=False, word_start=False)
        splits = {name: TokenStream(tokenizer.encode([part])[0]) for name, part in parts.items()}
        needed = max(self.contexts, default=1) + 1
        for name, stream in splits.items():
            if len(stream) < needed and (name != "test" or test):
                raise DataError(
                    f"{self.path}: {len(stream)} tokens to {name} on; the longest context needs {needed}. "
                    "Give a longer text, a larger share, or shorter data.contexts"
                )
        sizes = ", ".join(f"{len(stream)} {name}" for name, stream in splits.items())
        notes.append(f"cut by position into tokens: {sizes}; tokenizer of {tokenizer.vocabulary} trained on the first")
        return LanguageDataset(self._title(), self.licence, tokenizer, splits, tuple(notes))

    def _title(self) -> str:
        return Path(str(self.path)).resolve().stem if self.name == "plain_text" else self.name

    def _read(self) -> tuple[str, list[str]]:
        if not self.path:
            raise DataError(f"data.path is not set. {LAYOUT}")
        root = Path(self.path)
        files = sorted(root.glob("*.txt")) if root.is_dir() else [root]
        texts, broken = [], []
        for file in files:
            try:
                texts.append(file.read_bytes().decode("utf-8"))
            except UnicodeDecodeError:
                broken.append(file.name)
            except OSError as error:
                raise DataError(f"{file} cannot be read: {error.strerror}. {LAYOUT}") from error
        if not any(text.strip() for text in texts):
            raise DataError(f"{self.path} holds no text ({len(broken)} files are no UTF-8). {LAYOUT}")
        named = ", ".join(broken[:5])
        return "\n".join(texts), [f"{len(broken)} files skipped, no UTF-8: {named}"] if broken else []


class TinyShakespeare(PlainText):
    """1,115,394 characters of Shakespeare (Karpathy 2015), the text on which small language models are compared.

    Args:
        path: ``input.txt`` of the repository karpathy/char-rnn, or its folder.
        contexts: tokens that a network reads at most, from which a search space chooses.
        vocabulary: tokens of the tokenizer that is trained on the training text.
        validation_share: share of the characters, after the training text, that the search scores on.
        test_share: share at the end that is read once, for what ships.
    """

    name = "tiny_shakespeare"

    def __init__(
        self,
        path: str | None,
        contexts: Sequence[int] = (64, 128),
        vocabulary: int = 1024,
        validation_share: float = 0.05,
        test_share: float = 0.05,
    ) -> None:
        licence = "none stated by the repository karpathy/char-rnn; Shakespeare's works are in the public domain"
        super().__init__(path, contexts, vocabulary, validation_share, test_share, licence)
