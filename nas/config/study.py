"""What makes two configs the same study, the study's default name, and where a study lies."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nas.errors import ConfigError, unknown_name

STORE = "store.sqlite"  # what makes a folder a study

# About one call: always as asked for, also when an old study goes on.
_OF_THE_CALL = ("folder", "output", "progress", "plan", "resume", "overrides", "config_dir", "plugins")
# May change while a study goes on, because no evaluation depends on them.
_CHANGEABLE = (
    "accuracy_floor",
    "baselines",
    "budget",
    "executor",
    "export",
    "hours",
    "keep",
    "rule",
    "storage",
    "tracking",
)
_NOT_IDENTITY = frozenset((*_OF_THE_CALL, *_CHANGEABLE, "study", "choices", "replay", "seeds"))


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a search's config on which its evaluations and proposals depend."""
    return {
        key: value
        for key, value in config.items()
        if key not in _NOT_IDENTITY and (value or key not in ("devices", "costs", "start_from"))
    }


def study_name(config: Mapping[str, Any], swept: Collection[str] = ()) -> str:
    """Return ``<space>-<data>-<hash8>``, the same for the same command, so that repeating it goes on with the study.

    Args:
        config: resolved config of a search, with its ``choices``.
        swept: root keys that a multirun varies; they count although they are no part of the identity, so that
            ``-m budget=10,20`` makes two studies.
    """
    counted = identity(config) | {key: config[key] for key in swept if key in config}
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    choices = config.get("choices", {})
    words = [re.sub(r"[^A-Za-z0-9._]+", "_", str(choices.get(group) or "own")) for group in ("space", "data")]
    return "-".join((*words, digest))


def find_study(study: str, folder: str | Path) -> Path:
    """Return the folder of a study given by its name within ``folder``, or by its own folder.

    Raises:
        ConfigError: there is none, with those that exist and the corrected spelling.
    """
    for candidate in (Path(folder) / study, Path(study)):
        if candidate.is_dir() and candidate.resolve() != Path(folder).resolve():
            return candidate
    names = studies(folder)
    raise unknown_name(f"study in {folder}/", study, names, "Give its folder, or folder=... where the searches lie.")


def studies(folder: str | Path) -> list[str]:
    """Return the names of the studies in ``folder``, newest first: the folders that hold a store."""
    found = [path.parent for path in Path(folder).glob(f"*/{STORE}")]
    return [path.name for path in sorted(found, key=lambda path: -path.stat().st_mtime)]


def resumed(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with which a stored study goes on: its own, but for what may change and was asked for.

    Args:
        stored: config of the study.
        asked: resolved config of this call, with its ``overrides``.

    Raises:
        ConfigError: an override contradicts what the study's evaluations depend on.
    """
    merged = dict(stored) | {key: asked[key] for key in _OF_THE_CALL if key in asked}
    # Where MLflow lies is a matter of this call, whether it is on is the study's.
    if asked.get("choices", {}).get("tracking") == stored.get("choices", {}).get("tracking"):
        merged["tracking"] = asked["tracking"]
    named = {re.split(r"[.@=]", override.lstrip("+~"), maxsplit=1)[0] for override in asked.get("overrides", ())}
    if "experiment" in named:
        named |= set(asked)
    for key in sorted(named & set(asked)):
        if key in _CHANGEABLE:
            merged[key] = asked[key]
        elif key not in _NOT_IDENTITY and asked[key] != stored.get(key):
            raise ConfigError(
                f"{key} differs from that of study '{stored.get('study')}', whose evaluations depend on it; a study "
                f"that goes on can change {', '.join(_CHANGEABLE)}. Drop {key}, or start a new search without resume=."
            )
    return merged
