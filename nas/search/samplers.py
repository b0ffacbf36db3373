"""Samplers by name, Optuna's and our own, with the settings that a mixed, conditional space needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from nas.errors import ConfigError, closest, unknown_name
from nas.search.candidates import Problem
from nas.search.ehvi import EhviSampler


def _tpe(seed: int, **options: Any) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, **options)


def _nsga2(seed: int, **options: Any) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, **options)


def _nsga3(seed: int, **options: Any) -> BaseSampler:
    return optuna.samplers.NSGAIIISampler(seed=seed, **options)


def _gp(seed: int, **options: Any) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, **options)


def _random(seed: int, **options: Any) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed, **options)


def _ehvi(problem: Problem | None, seed: int, **options: Any) -> BaseSampler:
    if problem is None:
        raise ConfigError("sampler ehvi needs to know the space and the cheap costs; give it a problem")
    return EhviSampler(problem, seed, **options)


_MAKERS: Mapping[str, tuple[Callable[..., BaseSampler], Mapping[str, Any]]] = {
    "tpe": (_tpe, {"multivariate": True, "group": True, "n_startup_trials": 10}),
    "tpe_univariate": (_tpe, {"multivariate": False, "n_startup_trials": 10}),
    "nsga2": (_nsga2, {"population_size": 20}),
    "nsga3": (_nsga3, {"population_size": 20}),
    "gp": (_gp, {"n_startup_trials": 10}),
    "random": (_random, {}),
}

# Those of our own know more than the trials.
_KNOWING: Mapping[str, tuple[Callable[..., BaseSampler], Mapping[str, Any]]] = {
    "ehvi": (_ehvi, {"startup": 8, "most": 400, "screened": 2, "screened_first": 24}),
}

SAMPLERS = (*_MAKERS, *_KNOWING)


def make_sampler(
    name: str, seed: int, options: Mapping[str, Any] | None = None, problem: Problem | None = None
) -> BaseSampler:
    """Return a sampler of Optuna or our own.

    Args:
        name: one of ``SAMPLERS``.
        seed: of the sampler's random numbers.
        options: keyword arguments of the sampler's class, over this module's defaults.
        problem: what is known besides the trials; Optuna's own samplers do without.

    Raises:
        ConfigError: the name or an option is unknown, with the corrected spelling.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS, "Add conf/sampler/NAME.yaml for other options of one of them.")
    maker, defaults = _MAKERS[name] if name in _MAKERS else _KNOWING[name]
    known = () if name in _MAKERS else (problem,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return maker(*known, seed, **{**defaults, **(options or {})})
        except (TypeError, ValueError) as error:
            given = str(error).rsplit("'", 2)[-2] if "'" in str(error) else ""
            guess = closest(given, defaults)
            hint = f" Did you mean '{guess}'?" if guess else ""
            raise ConfigError(f"sampler {name}: {error}; known here: {', '.join(defaults)}.{hint}") from error
