"""Hydra's and OmegaConf's complaints in our words: what was given, what was expected, how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from nas.config import schema
from nas.config.paths import group_members, group_names
from nas.config.study import studies
from nas.errors import ConfigError, closest, unknown_name

_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
_CONVERT = re.compile(r"Value '(?P<given>.*?)' of type '.*?' could not be converted to (?P<kind>\w+)", re.S)


def unparsable(override: str, error: Exception) -> ConfigError:
    """Return the error for an override that is not written as one."""
    why = str(error).splitlines()[0]
    return ConfigError(
        f"cannot read '{override}': {why}. Expected key=value; quote a value that holds spaces, commas or brackets: "
        "key=\"'a, b'\"."
    )


def check_overrides(verb: str, overrides: Sequence[Override], own: Path | None) -> None:
    """Check that every override speaks of this verb's groups and names members that exist.

    Raises:
        ConfigError: with the corrected spelling.
    """
    offered = schema.groups(verb)
    everywhere = group_names(own)
    for override in overrides:
        name = re.split(r"[./]", override.key_or_group, maxsplit=1)[0]
        if name == "hydra":
            raise ConfigError(
                f"'{override.input_line}' changes Hydra itself, which nas does not let a config do, since Hydra would "
                "run what it names. Use -m for several runs and --config-dir for configs of your own."
            )
        if name in everywhere and name not in offered and name not in schema.keys(verb):
            raise unknown_name(f"group for nas {verb}", name, offered)
        if override.key_or_group in offered and not override.is_delete():
            _check_member(override, own)


def _check_member(override: Override, own: Path | None) -> None:
    group, value = override.key_or_group, override.value()
    members = group_members(group, own)
    if isinstance(value, str) and value.removesuffix(".yaml") not in members:
        raise unknown_name(group, value, members, f"Add {group}/{value}.yaml and name its root by --config-dir.")
    if isinstance(value, (bool, int, float, dict, list)):
        raise unknown_name(group, str(value), members)


def check_keys(config: Any, overrides: Sequence[Override], groups: Sequence[str]) -> None:
    """Check that every override that changes a value names a key which exists.

    Args:
        config: plain containers, composed from the groups alone.
        overrides: parsed overrides of values.
        groups: names that stand at the root besides the keys of ``config``.

    Raises:
        ConfigError: with the corrected spelling, searched at the same level first and in the whole config then.
    """
    for override in overrides:
        if override.is_add() or override.is_force_add():
            continue
        _check_key(config, override.key_or_group.split("."), groups)


def check_path(config: Any, path: str) -> None:
    """Raise ConfigError with the corrected spelling unless ``path``, dotted, is in ``config``."""
    _check_key(config, path.split("."), [])


def _check_key(config: Any, parts: Sequence[str], groups: Sequence[str]) -> None:
    node = config
    for depth, part in enumerate(parts):
        if isinstance(node, dict) and part in node:
            node = node[part]
            continue
        if isinstance(node, list) and part.isdigit():
            if int(part) < len(node):
                node = node[int(part)]
                continue
            raise ConfigError(f"'{'.'.join(parts)}' is beyond the list's end; it has {len(node)} entries, from 0.")
        level = ".".join(parts[:depth])
        siblings = list(node) if isinstance(node, dict) else []
        if depth == 0:
            siblings += [group for group in groups if group not in siblings]
        raise _unknown_key(".".join(parts), level, part, siblings, list(_paths(config)))


def _unknown_key(given: str, level: str, part: str, siblings: Sequence[str], paths: Sequence[str]) -> ConfigError:
    """Say what is known at this level and guess: a near name there, else the same or a near name anywhere."""
    last = given.rsplit(".", 1)[-1]
    rest = given[len(level) + len(part) + bool(level) :]
    near = closest(part, siblings)
    guesses = [f"{level}.{near}{rest}".lstrip(".")] if near else [p for p in paths if p.endswith(f".{given}")]
    guesses = guesses or [path for path in paths if path.rsplit(".", 1)[-1] == last]
    if not guesses:
        leaf = closest(last, {path.rsplit(".", 1)[-1] for path in paths})
        guesses = [path for path in paths if leaf and path.rsplit(".", 1)[-1] == leaf]
    hint = f" Did you mean {' or '.join(repr(guess) for guess in guesses[:3])}?" if guesses else ""
    if not level and guesses:
        return ConfigError(f"unknown key '{given}'.{hint} --help lists the groups and keys.")
    names = ", ".join(sorted(name for name in siblings if not name.startswith("_"))) or "no keys"
    return ConfigError(f"unknown key '{given}'; {f'{level} has' if level else 'have'} {names}.{hint}")


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}"
                yield from _paths(value, f"{prefix}{key}.")


def translate(verb: str, error: Exception, own: Path | None) -> ConfigError:
    """Return what Hydra, OmegaConf or the YAML reader found wrong as a ConfigError."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.removesuffix(".yaml").rpartition("/")
        return unknown_name(group or "config", name, group_members(group, own) if group else list(schema.ROOTS))
    for cause in _chain(error):
        if isinstance(cause, yaml.YAMLError):
            return ConfigError(f"a YAML file cannot be read: {' '.join(str(cause).split())}")
        if isinstance(cause, OmegaConfBaseException) and (cause.full_key or cause.key is not None):
            return _value_error(verb, cause)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return ConfigError(lines[0] if lines else type(error).__name__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _value_error(verb: str, cause: OmegaConfBaseException) -> ConfigError:
    key = str(cause.full_key or cause.key)
    text = str(cause.msg or cause).splitlines()[0]
    found = _CONVERT.search(text)
    about = schema.keys(verb).get(key, (None, ""))[1]
    note = f" ({about})" if about else ""
    if found:
        kind = _KINDS.get(found["kind"], found["kind"].lower())
        return ConfigError(f"{key}={found['given']}: expected {kind}{note}.")
    return ConfigError(f"{key}: {text.rstrip('.')}{note}.")


def missing(verb: str, names: Sequence[str], folder: str | None = None) -> ConfigError:
    """Return the error for mandatory values that nobody gave; for a study it lists those in ``folder``."""
    mends = {"model": f"nas {verb} MODEL.onnx", "study": f"nas {verb} STUDY"}
    how = " ".join(mends.get(name, f"{name}=VALUE") for name in names)
    verb_form = "is" if len(names) == 1 else "are"
    have = studies(folder)[:5] if folder and "study" in names else []
    found = f" Found in {folder}/: {', '.join(have)}." if have else ""
    return ConfigError(f"{', '.join(names)} {verb_form} missing; give {how}.{found}")
