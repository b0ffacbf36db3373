"""Checks the values of a resolved config against the schemas: choices, limits, unknown keys; needs no Hydra."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nas.config.schema import (
    METRICS,
    ROOTS,
    BoundsConfig,
    ExecutorConfig,
    FitConfig,
    FitDataConfig,
    LimitsConfig,
    ObjectiveConfig,
    ReplayConfig,
    SamplerConfig,
    SearchConfig,
)
from nas.errors import ConfigError, unknown_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check(verb: str, config: Mapping[str, Any]) -> None:
    """Check the values of a resolved config against the limits in the schema.

    Raises:
        ConfigError: with the key, what was given and what is expected.
    """
    for name, value, checks in _checked(ROOTS[verb], config, ""):
        _check_value(name, value, checks)
    metrics = config.get("objective") or {}
    for metric in metrics:
        if metric not in METRICS:
            raise unknown_name("metric in objective", metric, METRICS)
    if ROOTS[verb] is SearchConfig and not metrics:
        raise ConfigError("objective is empty; a search needs at least one metric, such as objective=accuracy_latency.")


def _checked(schema: type, config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    unknown = sorted(set(config) - {field.name for field in dataclasses.fields(schema)})
    if unknown:
        raise unknown_name("key", prefix + unknown[0], [prefix + field.name for field in dataclasses.fields(schema)])
    nested = {
        "limits": LimitsConfig,
        "bounds": BoundsConfig,
        "executor": ExecutorConfig,
        "sampler": SamplerConfig,
        "replay": ReplayConfig,
        **({"data": FitDataConfig} if schema is FitConfig else {}),
    }
    for field in dataclasses.fields(schema):
        value = config.get(field.name)
        name = prefix + field.name
        if name == "objective" and value:
            for metric, entry in value.items():
                yield from _checked(ObjectiveConfig, entry, f"objective.{metric}.")
        elif name in nested and isinstance(value, Mapping):
            yield from _checked(nested[name], value, f"{name}.")
        elif value is not None:
            yield name, value, field.metadata


def _check_value(name: str, value: Any, checks: Mapping[str, Any]) -> None:
    if "choices" in checks:
        for item in value if isinstance(value, list) else [value]:
            if item not in checks["choices"] and not (checks.get("own") and "." in str(item)):
                raise unknown_name(f"value of {name}", str(item), checks["choices"])
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}={value}: expected a finite number ({checks['help']}).")
    if "least" in checks and value < checks["least"]:
        raise ConfigError(f"{name}={value}: expected at least {checks['least']} ({checks['help']}).")
    if "above" in checks and value <= checks["above"]:
        raise ConfigError(f"{name}={value}: expected more than {checks['above']} ({checks['help']}).")
    if checks.get("rule"):
        from nas.search.rules import check_rule  # imports numpy, which --help should not wait for

        check_rule(value)
    if checks.get("name") and not _NAME.fullmatch(value):
        raise ConfigError(f"{name}={value}: expected letters, digits, '.', '_' and '-' only, for it names a folder.")
