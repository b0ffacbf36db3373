"""What all spaces share: asking for active genes, drawing, editing by one gene, checking, and enumerating.

A space of a user's own passes its ``suggest`` to these functions; nothing else is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from nas.architecture import Architecture, Choice, Precision
from nas.errors import ConfigError, DegenerateArchitectureError
from nas.graph import INT4_GROUPS, int4_group
from nas.protocols import Suggester
from nas.suggest import EditingSuggester, RandomSuggester, ReplayingSuggester

ChoiceT = TypeVar("ChoiceT", int, float, str)
Suggest = Callable[[Suggester], Architecture]

PRECISION_PREFIX = "precision_"
_TRIES = 1000


class Genes:
    """Asks a suggester for the genes that are active and keeps the answers.

    A gene with a single option is recorded without being asked. Integers without gaps are asked as an integer, so
    that a sampler knows their order; everything else as a category.

    Args:
        suggester: an Optuna trial or one of :mod:`nas.suggest`.
    """

    def __init__(self, suggester: Suggester) -> None:
        self._suggester = suggester
        self._choices: dict[str, Choice] = {}
        self._precision: dict[str, Precision] = {}

    def choose(self, name: str, options: Sequence[ChoiceT]) -> ChoiceT:
        """Return the answer for gene ``name``, one of ``options``."""
        answer = self._ask(name, options)
        self._choices[name] = answer
        return answer

    def choose_precision(self, block: str, options: Sequence[str]) -> None:
        """Ask for the precision of one block, gene ``precision_<block>``."""
        self._precision[block] = Precision(self._ask(PRECISION_PREFIX + block, options))

    def fix_precision(self, block: str, precision: str) -> None:
        """Record the precision of a block that has no choice."""
        self._precision[block] = Precision(precision)

    def choose_one_precision(self, blocks: Sequence[str], options: Sequence[str]) -> None:
        """Ask once for the precision of the whole network; the answer is also the choice ``precision``."""
        answer = Precision(self.choose("precision", options))
        self._precision.update(dict.fromkeys(blocks, answer))

    def architecture(self, space: str) -> Architecture:
        """Return what was answered so far as a point of ``space``."""
        return Architecture(space, dict(self._choices), dict(self._precision))

    def _ask(self, name: str, options: Sequence[ChoiceT]) -> ChoiceT:
        if len(options) == 1:
            return options[0]
        if all(type(option) is int for option in options) and list(options) == list(
            range(int(options[0]), int(options[-1]) + 1)
        ):
            return type(options[0])(self._suggester.suggest_int(name, int(options[0]), int(options[-1])))
        answer: ChoiceT = self._suggester.suggest_categorical(name, list(options))
        return answer


def record_of(architecture: Architecture) -> dict[str, Choice]:
    """Return gene name to answer, as a suggester that replays the architecture needs it."""
    precision = {PRECISION_PREFIX + block: str(value) for block, value in architecture.precision.items()}
    return {**architecture.choices, **precision}


def draw(suggest: Suggest, rng: np.random.Generator) -> Architecture:
    """Draw gene by gene, uniformly, again until the architecture is not degenerate.

    Raises:
        DegenerateArchitectureError: 1,000 draws were all degenerate; carries the last one's reason.
    """
    reason = ""
    for _ in range(_TRIES):
        try:
            return suggest(RandomSuggester(rng))
        except DegenerateArchitectureError as error:
            reason = str(error)
    raise DegenerateArchitectureError(f"{_TRIES} random draws were all degenerate, the last one because: {reason}")


def neighbour(suggest: Suggest, architecture: Architecture, rng: np.random.Generator) -> Architecture:
    """Change one active gene; genes that the change opens are drawn, those that it closes vanish.

    Raises:
        DegenerateArchitectureError: no neighbour that makes sense was found in 1,000 edits, or the architecture
            itself makes none.
    """
    record = record_of(architecture)
    replay = ReplayingSuggester(record, rng)
    suggest(replay)
    names = [name for name, options in replay.options.items() if len(options) > 1]
    for _ in range(_TRIES if names else 0):
        edited = names[int(rng.integers(len(names)))]
        try:
            candidate = suggest(EditingSuggester(record, edited, rng))
        except DegenerateArchitectureError:
            continue
        if candidate.id != architecture.id:
            return candidate
    raise DegenerateArchitectureError(
        f"architecture {architecture.id} has no neighbour that makes sense; widen the lists of space "
        f"'{architecture.space}', of whose active genes {len(names)} have more than one option"
    )


def verify(suggest: Suggest, architecture: Architecture, space: str) -> None:
    """Raise DegenerateArchitectureError unless the architecture is exactly what ``suggest`` makes of its genes."""
    if architecture.space != space:
        raise DegenerateArchitectureError(
            f"architecture {architecture.id} belongs to space '{architecture.space}'; expected '{space}'"
        )
    remade = suggest(_StrictSuggester(record_of(architecture)))
    if remade.id != architecture.id:
        given, made = record_of(architecture), record_of(remade)
        wrong = sorted(name for name in {*given, *made} if repr(given.get(name)) != repr(made.get(name)))
        raise DegenerateArchitectureError(
            f"architecture {architecture.id} differs from what space '{space}' makes of it in {', '.join(wrong)}; "
            "expected active genes only, each with one of its options"
        )


def everything(ask: Suggest) -> Iterator[Architecture]:
    """Yield every combination of active genes once, in the order of the options.

    Args:
        ask: makes an architecture of answers and, so that none is missed, raises for none.
    """
    pending: list[dict[str, Choice]] = [{}]
    while pending:
        suggester = _BranchingSuggester(pending.pop())
        yield ask(suggester)
        pending.extend(reversed(suggester.branches))


def as_precisions(given: Sequence[str]) -> tuple[str, ...]:
    """Return the precisions that a block may have, checked.

    Args:
        given: names.

    Raises:
        ConfigError: empty, or not among fp32, fp16, int8 and int4.
    """
    known = [precision.value for precision in Precision]
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        raise ConfigError(f"precisions are {list(given)}; expected one or more of {', '.join(known)}")
    return tuple(str(name) for name in given)


def require_int4_groups(precisions: Sequence[str], inputs: Mapping[str, Sequence[int]]) -> None:
    """Raise ConfigError where int4 is among the precisions and a layer's inputs on tokens are no multiple of 16.

    Args:
        precisions: checked.
        inputs: numbers of inputs that layers may have, by what they come from.
    """
    for name, sizes in inputs.items() if Precision.INT4.value in precisions else ():
        wrong = [size for size in sizes if int4_group(size) is None]
        if wrong:
            raise ConfigError(
                f"{name} may be {wrong[0]}; weights of int4 need a multiple of {min(INT4_GROUPS)}. Take other {name}, "
                "or leave int4 out of the precisions."
            )


def options_of(name: str, given: Sequence[ChoiceT]) -> tuple[ChoiceT, ...]:
    """Return the options of a gene as a tuple.

    Raises:
        ConfigError: the list is empty or names an option twice, which would count architectures twice.
    """
    options = tuple(given)
    if not options or len(set(options)) != len(options):
        raise ConfigError(f"{name} is {list(options)}; expected a list of one or more different options")
    return options


class _StrictSuggester:
    def __init__(self, record: Mapping[str, Choice]) -> None:
        self._record = record

    def suggest_categorical(self, name: str, choices: Sequence[Choice], /) -> Choice:
        if name not in self._record:
            raise DegenerateArchitectureError(f"gene '{name}' is missing; expected one of {list(choices)}")
        answer = self._record[name]
        if answer not in choices:
            raise DegenerateArchitectureError(f"gene '{name}' is {answer!r}; expected one of {list(choices)}")
        return answer

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        return int(self.suggest_categorical(name, range(low, high + 1)))


class _BranchingSuggester:
    """Repeats a record, then takes the first option of each new gene and notes the others as branches."""

    def __init__(self, record: Mapping[str, Choice]) -> None:
        self._answers = dict(record)
        self.branches: list[dict[str, Choice]] = []

    def suggest_categorical(self, name: str, choices: Sequence[Choice], /) -> Choice:
        if name not in self._answers:
            self.branches.extend({**self._answers, name: other} for other in choices[1:])
            self._answers[name] = choices[0]
        return self._answers[name]

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        return int(self.suggest_categorical(name, range(low, high + 1)))
