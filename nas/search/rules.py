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
        rule: ``knee``, ``fastest_within_<points>`` (percent points of accuracy below the best), or
            ``best_under_<milliseconds>ms``.
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
    for metric in ("accuracy", "latency_ms"):
        if metric not in front[0]:
            raise ConfigError(f"rule {rule} needs {metric}, which this search did not evaluate; use rule=knee")
    if match := _WITHIN.fullmatch(rule):
        return _fastest_within(float(match[1]), front)
    match = _UNDER.fullmatch(rule)
    assert match is not None
    return _best_under(float(match[1]), front)


def _fastest_within(points: float, front: Sequence[Values]) -> tuple[int, str]:
    best = max(member["accuracy"] for member in front)
    near = [index for index, member in enumerate(front) if member["accuracy"] >= best - points / 100 - 1e-12]
    chosen = min(near, key=lambda index: (front[index]["latency_ms"], -front[index]["accuracy"]))
    return chosen, (
        f"fastest of the {len(near)} members within {points:g} points of the best accuracy {best:.2%}: "
        f"{front[chosen]['latency_ms']:.3g} ms at {front[chosen]['accuracy']:.2%}"
    )


def _best_under(limit_ms: float, front: Sequence[Values]) -> tuple[int, str]:
    quick = [index for index, member in enumerate(front) if member["latency_ms"] <= limit_ms]
    if not quick:
        fastest = min(member["latency_ms"] for member in front)
        raise ConfigError(f"no member of the front runs under {limit_ms:g} ms; the fastest takes {fastest:.3g} ms")
    chosen = max(quick, key=lambda index: (front[index]["accuracy"], -front[index]["latency_ms"]))
    return chosen, (
        f"most accurate of the {len(quick)} members under {limit_ms:g} ms: "
        f"{front[chosen]['accuracy']:.2%} at {front[chosen]['latency_ms']:.3g} ms"
    )


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
