"""What an earlier study found as the first candidates of a new one: ``start_from=STUDY``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nas.architecture import Architecture, Choice
from nas.config.parts import Parts
from nas.config.report import existing
from nas.config.study import find_study
from nas.errors import ConfigError, DegenerateArchitectureError
from nas.protocols import SearchSpace
from nas.search.front import eligible, front_of, study_objectives
from nas.suggest import ReplayingSuggester

Answers = dict[str, Choice]


def first_candidates(parts: Parts) -> list[Answers]:
    """Return the answers that make the front's members of the study ``start_from``, best first; of none no answers.

    Only the architectures are taken: they are trained, scored and timed under this search's own settings.

    Raises:
        ConfigError: there is no such study, it has no front, or a member is no point of this search's space.
    """
    config = parts.config
    if not config.get("start_from"):
        return []
    store = existing(find_study(config["start_from"], config["folder"]))
    try:
        objectives = study_objectives(store)
        front = front_of(eligible(store, objectives), objectives)
        asked = {record.number: record.optuna["params"] for record in store.trials()}
    finally:
        store.close()
    if not front:
        raise ConfigError(f"start_from={config['start_from']}: its front has no member yet; let it finish, or drop it")
    return [
        _answers(
            parts.screen.space,
            evaluation.architecture,
            asked[number],
            f"start_from={config['start_from']}: trial {number}",
        )
        for number, evaluation in front
    ]


def _answers(space: SearchSpace, architecture: Architecture, asked: Mapping[str, Any], where: str) -> Answers:
    # A gene with a single option was not asked there, but may be here: its choice has its name.
    replay = ReplayingSuggester({**architecture.choices, **asked}, np.random.default_rng(0))
    try:
        made = space.suggest(replay)
    except DegenerateArchitectureError as error:
        raise ConfigError(f"{where} makes no sense in space '{space.name}': {error}") from error
    if made.id == architecture.id:
        return replay.answers
    there, here = (
        {
            "space": one.space,
            **one.choices,
            **{f"precision of {block}": str(kind) for block, kind in one.precision.items()},
        }
        for one in (architecture, made)
    )
    wrong = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    raise ConfigError(
        f"{where} is no point of this search's space; it differs in {', '.join(wrong[:5])}. Give the space's lists "
        "the options of that study"
    )
