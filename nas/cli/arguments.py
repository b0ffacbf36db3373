"""Splits a command line into verb, file, overrides and the few flags that are Hydra's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.config.schema import ROOTS
from nas.errors import ConfigError, closest, unknown_name

# Keys that words without "=" fill, per verb, in their order.
POSITIONAL = {
    "front": ("study",),
    "export": ("study",),
    "profile": ("model",),
    "predict": ("file",),
    "new": ("kind", "name"),
}

# Keys that are written otherwise, per verb: conf/space/ holds search spaces, and Hydra takes "space" for that group.
WRITTEN = {"score-latency": {"space": "encoding"}}

# Verbs that take several values of a group as parts of one run, where others need -m for one run each.
TOGETHER = frozenset({"fit"})

_SWITCHES = {
    "-h": "help",
    "--help": "help",
    "-V": "version",
    "--version": "version",
    "-m": "multirun",
    "--multirun": "multirun",
    "--resolve": "resolve",
}
_VALUED = {
    "-c": "cfg",
    "--cfg": "cfg",
    "-p": "package",
    "--package": "package",
    "-cd": "config_dir",
    "--config-dir": "config_dir",
    "--plugin": "plugin",
}


@dataclass(frozen=True)
class Command:
    """A command line, taken apart.

    Args:
        verb: one of five, or empty where only help or the version is asked for.
        overrides: in Hydra's grammar, the positional word among them.
        help: show help and stop.
        version: show the version and stop.
        multirun: one run per combination of sweeps.
        cfg: show the composed config and stop.
        package: the part of the config to show.
        resolve: show values instead of interpolations.
        config_dir: a user's own folder of configs.
        plugins: Python files of a user's own whose classes her configs may name.
    """

    verb: str = ""
    overrides: tuple[str, ...] = ()
    help: bool = False
    version: bool = False
    multirun: bool = False
    cfg: bool = False
    package: str | None = None
    resolve: bool = False
    config_dir: str | None = None
    plugins: tuple[str, ...] = ()


def parse(words: Sequence[str]) -> Command:
    """Return the command that ``words`` (without the program's name) make.

    Raises:
        ConfigError: an unknown verb or flag, a second file, or flags that contradict each other.
    """
    plain, switches, values = _split(words)
    asked = bool(switches & {"help", "version"})
    if plain:
        verb = _verb(plain[0])
    elif asked or not words:
        return Command(help="version" not in switches, version="version" in switches)
    else:
        raise ConfigError(f"no verb given; have {', '.join(ROOTS)}. Write nas VERB [MODEL] [key=value ...].")
    if "cfg" in values and values["cfg"] != "job":
        raise ConfigError(f"--cfg {values['cfg']}: only --cfg job is offered, the config of the verb.")
    if "cfg" in values and "multirun" in switches:
        raise ConfigError("--cfg and --multirun contradict each other; --cfg shows one config.")
    for flag, given in (("package", "package" in values), ("resolve", "resolve" in switches)):
        if given and "cfg" not in values:
            raise ConfigError(f"--{flag} says how to show a config; add --cfg job.")
    return Command(
        verb=verb,
        overrides=() if asked else tuple(_override(verb, plain[1:])),
        help="help" in switches,
        version="version" in switches,
        multirun="multirun" in switches,
        cfg="cfg" in values,
        package=values.get("package"),
        resolve="resolve" in switches,
        config_dir=values.get("config_dir"),
        plugins=tuple(values["plugin"].split(",")) if "plugin" in values else (),
    )


def _split(words: Sequence[str]) -> tuple[list[str], set[str], dict[str, str]]:
    plain: list[str] = []
    switches: set[str] = set()
    values: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            plain.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag in _SWITCHES and not equals:
            switches.add(_SWITCHES[flag])
        elif flag in _VALUED:
            given = value if equals else next(rest, None)
            if not given:
                raise ConfigError(
                    f"{flag} needs a value, such as {flag} {'job' if _VALUED[flag] == 'cfg' else 'PATH'}."
                )
            known = values.get("plugin") if flag == "--plugin" else None
            values[_VALUED[flag]] = f"{known},{given}" if known else given
        else:
            raise _unknown_flag(flag, value)
    return plain, switches, values


def _unknown_flag(flag: str, value: str) -> ConfigError:
    name = flag.lstrip("-").replace("-", "_")
    if not closest(flag, [*_SWITCHES, *_VALUED]) and name:
        return ConfigError(f"unknown flag '{flag}'. Settings are written without dashes: {name}={value or 'VALUE'}.")
    return unknown_name("flag", flag, [*_SWITCHES, *_VALUED])


def _verb(word: str) -> str:
    if word in ROOTS:
        return word
    if "=" in word:
        raise ConfigError(f"'{word}' stands where a verb is expected; have {', '.join(ROOTS)}. Try: nas search {word}")
    mend = f"Try: nas profile {word}" if word.endswith(".onnx") else ""
    raise unknown_name("verb", word, ROOTS, mend)


def _override(verb: str, words: Sequence[str]) -> list[str]:
    """Return the overrides, a word without ``=`` turned into the one that it fills."""
    overrides, filled = [], list[str]()
    for word in words:
        if not _is_positional(word):
            key, equals, value = word.partition("=")
            overrides.append(f"{WRITTEN.get(verb, {}).get(key, key)}{equals}{value}")
        elif verb not in POSITIONAL:
            raise ConfigError(f"nas {verb} takes no file; '{word}' is no key=value.{_guess(verb, word)}")
        elif len(filled) == len(POSITIONAL[verb]):
            takes = " and ".join(f"one {key}" for key in POSITIONAL[verb])
            given = " and ".join(f"'{one}'" for one in [*filled, word])
            raise ConfigError(f"nas {verb} takes {takes}; got {given}.")
        else:
            overrides.append(f"{POSITIONAL[verb][len(filled)]}={quote(word)}")
            filled.append(word)
    return overrides


def _is_positional(word: str) -> bool:
    if word.startswith(("~", "+")) and not Path(word).exists():
        return False
    head, equals, _ = word.partition("=")
    # Hydra itself makes folders called "seed=1"; only a path with a separator before the "=" is taken for a file.
    return not equals or ("/" in head and Path(word).exists())


def _guess(verb: str, word: str) -> str:
    """Return a hint where the word is, or nearly is, a member of one of the verb's groups."""
    from nas.config.paths import group_members
    from nas.config.schema import groups

    members = {member: group for group in groups(verb) for member in group_members(group)}
    near = closest(word, members)
    return f" Did you mean '{members[near]}={near}'?" if near else ""


def quote(text: str) -> str:
    """Return ``text`` as a quoted string of Hydra's override grammar."""
    escaped = re.sub(r"(\\*)(')", lambda found: f"{found[1] * 2}\\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"
