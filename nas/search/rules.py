"""Rules that pick the member of a front to ship, each with its reason in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from nas.errors import ConfigError, closest
from nas.objective import Objective

GRAMMAR = ("knee", "fastest_within_<points>", "best_under_<milliseconds>ms")

_WITHIN = re.compile(r"fastest_within_(\d+(?:\.\d+)?)(?:_points?)?")
_UNDER = re.compile(r"best_under_(\d+(?:\.\d+)?)_?ms")

Values = Mapping[str, float]


def check_rule(rule: str) -> None:
    """Raise ConfigError, with the grammar, if ``rule`` is none of ``GRAMMAR``."""
    if rule != "knee" and not _WITHIN.fullmatch(rule) and not _UNDER.fullmatch(rule):
        guess = closest(rule, ("knee", "fastest_within_1", "best_under_2ms"))
        hint = f" Did you mean '{guess}'?" if guess else ""
        raise ConfigError(f"unknown rule '{rule}'; expected {', '.join(GRAMMAR)}.{hint}")


def pick(rule: str, front: Sequence[Values], objectives: Sequence[Objective]) -> tuple[int, str]:
    """Return the index of the member to ship and why.

    Args:
        rule: ``knee``, ``fastest_within_<points>`` (percent points of accuracy below the best; of a language model
            percent of perplexity above it), or ``best_under_<milliseconds>ms`` (there, of one more token).
        front: values of the members, metric to number.
        objectives: axes of the front.

    Raises:
        ConfigError: the rule is unknown, the front is empty, lacks a metric, or no member qualifies.
    """
    check_rule(rule)
    if not front:
        raise ConfigError("the front is empty: no candidate was evaluated in full; raise budget= or loosen the bounds")
    if rule == "knee":
        return _knee(front, objectives)
    quality = next((metric for metric in ("accuracy", "perplexity") if metric in front[0]), None)
    time = next((metric for metric in ("latency_ms", "token_ms") if metric in front[0]), None)
    if quality is None or time is None:
        missing = "accuracy or perplexity" if quality is None else "latency_ms or token_ms"
        raise ConfigError(f"rule {rule} needs {missing}, which this search did not evaluate; use rule=knee")
    if match := _WITHIN.fullmatch(rule):
        return _fastest_within(float(match[1]), front, quality, time)
    match = _UNDER.fullmatch(rule)
    assert match is not None
    return _best_under(float(match[1]), front, quality, time)


def _fastest_within(margin: float, front: Sequence[Values], quality: str, time: str) -> tuple[int, str]:
    if quality == "accuracy":
        best = max(member[quality] for member in front)
        near = [index for index, member in enumerate(front) if member[quality] >= best - margin / 100 - 1e-12]
        unit = "points"
    else:
        best = min(member[quality] for member in front)
        near = [index for index, member in enumerate(front) if member[quality] <= best * (1 + margin / 100) + 1e-12]
        unit = "%"
    chosen = min(near, key=lambda index: (front[index][time], _worse(front[index], quality)))
    return chosen, (
        f"fastest of the {len(near)} members within {margin:g} {unit} of the best {quality} "
        f"{_quality(best, quality)}: {front[chosen][time]:.3g} ms at {_quality(front[chosen][quality], quality)}"
    )


def _best_under(limit_ms: float, front: Sequence[Values], quality: str, time: str) -> tuple[int, str]:
    quick = [index for index, member in enumerate(front) if member[time] <= limit_ms]
    if not quick:
        fastest = min(member[time] for member in front)
        raise ConfigError(f"no member of the front runs under {limit_ms:g} ms; the fastest takes {fastest:.3g} ms")
    chosen = min(quick, key=lambda index: (_worse(front[index], quality), front[index][time]))
    return chosen, (
        f"best {quality} of the {len(quick)} members under {limit_ms:g} ms: "
        f"{_quality(front[chosen][quality], quality)} at {front[chosen][time]:.3g} ms"
    )


def _worse(member: Values, quality: str) -> float:
    return -member[quality] if quality == "accuracy" else member[quality]


def _quality(value: float, quality: str) -> str:
    return f"{value:.2%}" if quality == "accuracy" else f"{value:.4g}"


def _knee(front: Sequence[Values], objectives: Sequence[Objective]) -> tuple[int, str]:
    """Pick the member nearest to the ideal point once each objective is scaled to the front's own range.

    Costs span decades, so positive minimised metrics are scaled by their logarithm: halving 2 ms counts as much
    as halving 1 ms.
    """
    scaled = []
    for objective in objectives:
        column = np.asarray([float(member[objective.metric]) for member in front])
        if objective.direction == "minimize" and bool((column > 0).all()):
            column = np.log(column)
        losses = objective.sign * column
        span = losses.max() - losses.min()
        scaled.append((losses - losses.min()) / span if span > 0 else np.zeros(len(front)))
    distance = np.sqrt((np.stack(scaled, axis=1) ** 2).sum(axis=1))
    chosen = int(np.argmin(distance))
    axes = ", ".join(objective.metric for objective in objectives)
    return chosen, (
        f"nearest to the ideal point of the front's {len(front)} members (distance {distance[chosen]:.2f}; "
        f"{axes} scaled to the front's range, costs by their logarithm)"
    )
