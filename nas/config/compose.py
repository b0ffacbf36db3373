"""Composes a verb's config by Hydra and hands it on as plain containers, resolved and checked.

Hydra composes and parses, nothing else: its ``main`` would instantiate callbacks, launchers and log handlers that a
config names, which would run code that is not ours, and would leave folders behind. So the folder of the call stays
the working folder (``hydra.job.chdir=false`` by construction), and a multirun is expanded here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import yaml  # type: ignore[import-untyped]
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from nas.config import schema, several, spelling
from nas.config.paths import conf_dir
from nas.config.study import study_name
from nas.config.values import check
from nas.errors import ConfigError

_COMPLAINTS = (HydraException, OmegaConfBaseException, yaml.YAMLError)


@dataclass(frozen=True)
class Request:
    """What the command line asks to be composed.

    Args:
        verb: picks ``conf/VERB.yaml``.
        overrides: in Hydra's grammar.
        own: a user's own folder of configs, absolute, or None.
        swept: root keys that a multirun varies.
        plugins: Python files of a user's own, absolute, whose classes the config may name.
    """

    verb: str
    overrides: tuple[str, ...] = ()
    own: Path | None = None
    swept: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


def resolve(request: Request) -> dict[str, Any]:
    """Return the config as plain containers, interpolations resolved.

    Besides the keys of the schema it holds ``choices`` (group to the name chosen), ``overrides`` (as given) and
    ``config_dir`` (a user's own folder or None), ``plugins`` (files of her own), and a
    search's ``study`` has a name unless ``resume`` is given.

    Raises:
        ConfigError: an unknown key, group or name, a value of a wrong type or beyond its limits, or a missing one.
    """
    config, choices = _compose(request)
    absent = sorted(OmegaConf.missing_keys(config))
    if absent:
        raise spelling.missing(request.verb, absent, config.get("folder"))
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise spelling.translate(request.verb, error, request.own) from error
    assert isinstance(plain, dict)
    result: dict[str, Any] = {str(key): value for key, value in plain.items()}
    check(request.verb, result)
    if schema.ROOTS[request.verb] is schema.SearchConfig:
        result = several.filled(result)
    result["choices"] = choices
    result["overrides"] = list(request.overrides)
    result["plugins"] = list(request.plugins)
    result["config_dir"] = str(request.own) if request.own else None
    if request.verb == "search" and result["study"] is None and result["resume"] is None:
        result["study"] = study_name(result, request.swept)
    return result


def show(request: Request, package: str | None = None, resolved: bool = False) -> str:
    """Return the composed config as YAML, as ``--cfg job`` prints it; values may still be missing.

    Args:
        request: what to compose.
        package: dotted path of the part to show, or None for all.
        resolved: replace interpolations by their values.

    Raises:
        ConfigError: as :func:`resolve`, or ``package`` is not in the config.
    """
    config, _ = _compose(request)
    part: Any = config
    if package and package != "_global_":
        plain = OmegaConf.to_container(config)
        spelling.check_path(plain, package)
        part = OmegaConf.select(config, package)
    if not OmegaConf.is_config(part):
        return f"{part}\n"
    try:
        return OmegaConf.to_yaml(part, resolve=resolved)
    except OmegaConfBaseException as error:
        raise spelling.translate(request.verb, error, request.own) from error


def expand(request: Request) -> list[Request]:
    """Return one request per combination of the sweeps in the overrides, the last one varying fastest.

    Raises:
        ConfigError: an override cannot be read or asks for a range that only an optimiser could sweep.
    """
    alternatives: list[list[str]] = []
    swept: list[str] = []
    for override in parse(request.overrides):
        if not override.is_sweep_override():
            alternatives.append([str(override.input_line)])
            continue
        if not override.is_discrete_sweep():
            raise ConfigError(f"'{override.input_line}' has no list of values; write {override.key_or_group}=a,b,c.")
        key = override.get_key_element()
        alternatives.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        swept.append(override.key_or_group.split(".")[0])
    return [replace(request, overrides=tuple(job), swept=tuple(swept)) for job in product(*alternatives)]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return the overrides parsed.

    Raises:
        ConfigError: one cannot be read.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise spelling.unparsable(text, error) from error
    return parsed


def _compose(request: Request) -> tuple[DictConfig, dict[str, str | None]]:
    """Compose; complaints are explained by composing the groups alone and looking for each key in them."""
    overrides = [_without_plus(override, request.verb) for override in parse(request.overrides)]
    for override in overrides:
        if override.is_sweep_override():
            key = override.key_or_group
            listed = "" if key in schema.groups(request.verb) else f", or write {key}=[...] for a list"
            raise ConfigError(f"'{override.input_line}' holds several values; add -m to run once for each{listed}.")
    if schema.ROOTS[request.verb] is schema.SearchConfig:
        overrides = parse(several.spelled_out(overrides))
    spelling.check_overrides(request.verb, overrides, request.own)
    lines = [str(override.input_line) for override in overrides]
    with _hydra(request):
        try:
            composed = _split(_run_compose(request, lines))
            more = several.out_of_reach(composed[0])
            if "runtime" in schema.groups(request.verb):
                more += several.implied_runtime(*composed, overrides)
            return _split(_run_compose(request, [*lines, *more])) if more else composed
        except _COMPLAINTS as error:
            offered = schema.groups(request.verb)
            values = [override for override in overrides if override.key_or_group not in offered]
            grouped = [str(override.input_line) for override in overrides if override.key_or_group in offered]
            try:
                base, _ = _split(_run_compose(request, grouped))
            except _COMPLAINTS as deeper:
                raise spelling.translate(request.verb, deeper, request.own) from deeper
            spelling.check_keys(OmegaConf.to_container(base), values, list(offered))
            raise spelling.translate(request.verb, error, request.own) from error


def _without_plus(override: Override, verb: str) -> Override:
    """Turn ``+experiment=x``, as other projects write it, into ``experiment=x``: the defaults list has the entry."""
    if override.is_add() and override.key_or_group in schema.groups(verb):
        return parse([str(override.input_line).lstrip("+")])[0]
    return override


def _run_compose(request: Request, overrides: Sequence[str]) -> DictConfig:
    # A file:// entry only: Hydra imports the package that a pkg:// entry names.
    search_path = [f"hydra.searchpath=['file://{request.own}']"] if request.own else []
    return hydra.compose(request.verb, [*overrides, *search_path], return_hydra_config=True)


def _split(config: DictConfig) -> tuple[DictConfig, dict[str, str | None]]:
    chosen = {str(key): value for key, value in config.hydra.runtime.choices.items()}
    choices = {
        key: value.removesuffix(".yaml") if value else None
        for key, value in chosen.items()
        if not key.startswith("hydra/")
    }
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        del config["hydra"]
    return config, choices


@contextmanager
def _hydra(request: Request) -> Iterator[None]:
    store = ConfigStore.instance()
    for verb, root in schema.ROOTS.items():
        store.store(name=f"{verb}_schema", node=root, provider="nas")
    with warnings.catch_warnings(), initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        warnings.simplefilter("ignore")
        yield
