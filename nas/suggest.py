"""Three ways to answer a space's questions without Optuna: at random, from a record, and by one edit.

A space asks through :class:`nas.protocols.Suggester`, which an Optuna trial satisfies too, so that one method
serves sampling, mutation and search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nas.architecture import Choice


class RandomSuggester:
    """Answers uniformly at random.

    Args:
        rng: source of randomness; the same state gives the same answers.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.answers: dict[str, Choice] = {}
        self.options: dict[str, tuple[Choice, ...]] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        """Return one of ``choices``."""
        answer = self._answer(name, tuple(choices))
        self.answers[name] = answer
        self.options[name] = tuple(choices)
        return answer

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``, both included."""
        return int(self.suggest_categorical(name, range(low, high + 1)))

    def _answer(self, name: str, choices: tuple[Choice, ...]) -> Choice:
        return choices[int(self._rng.integers(len(choices)))]


class ReplayingSuggester(RandomSuggester):
    """Answers from a record where the record has a legal answer, at random elsewhere.

    Args:
        record: name to answer; answers that are no longer among the choices are ignored.
        rng: source of randomness for what the record lacks.
    """

    def __init__(self, record: Mapping[str, Choice], rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._record = record

    def _answer(self, name: str, choices: tuple[Choice, ...]) -> Choice:
        recorded = self._record.get(name)
        return recorded if recorded is not None and recorded in choices else super()._answer(name, choices)


class EditingSuggester(RandomSuggester):
    """Repeats a record but for one name, which gets another answer than before.

    Args:
        record: name to answer.
        edited: the name to change; with a single choice the answer stays.
        rng: source of randomness for the edit and for questions that the edit opens.
    """

    def __init__(self, record: Mapping[str, Choice], edited: str, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._record, self._edited = record, edited

    def _answer(self, name: str, choices: tuple[Choice, ...]) -> Choice:
        recorded = self._record.get(name)
        if name == self._edited:
            others = tuple(choice for choice in choices if choice != recorded)
            return super()._answer(name, others or choices)
        return recorded if recorded is not None and recorded in choices else super()._answer(name, choices)
