"""What a command's words compose to, and what is said of words that compose to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.config.compose import Request, resolve
from nas.errors import ConfigError


def composed(verb: str = "search", *overrides: str, own: Path | None = None) -> dict[str, Any]:
    """Return the whole config of a command.

    Args:
        verb: such as ``search``.
        overrides: as on the command line.
        own: folder of a user's own config.
    """
    return resolve(Request(verb, tuple(overrides), own))


def complaint(*overrides: str, verb: str = "search", own: Path | None = None) -> str:
    """Return the text of the error that these words give.

    Raises:
        AssertionError: they compose.
    """
    try:
        composed(verb, *overrides, own=own)
    except ConfigError as error:
        return str(error)
    raise AssertionError(f"nas {verb} {' '.join(overrides)} composes; expected a ConfigError")
