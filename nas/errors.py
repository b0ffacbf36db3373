"""Errors that say what was given, what was expected, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasError(Exception):
    """Any error that this framework raises on purpose; its text is meant for the user."""


class ConfigError(NasError):
    """A setting is wrong, unknown, or contradicts another."""


class UnservedTaskError(ConfigError):
    """A search space has no networks for a task."""


class DegenerateArchitectureError(NasError):
    """A choice of a search space that makes no sense, refused before anything is built."""


class CandidateError(NasError):
    """One candidate failed; the search records the reason and goes on.

    Args:
        kind: machine-readable cause: ``crash``, ``memory``, ``timeout``, ``nan``, ``degenerate`` or ``error``.
        reason: what happened, for the user.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason


class ModelFileError(NasError):
    """A model file is missing, corrupted, or reaches outside its own folder."""


class MeasurementError(NasError):
    """A measurement could not be taken or cannot be trusted."""


class DataError(NasError):
    """A data set is missing, empty or malformed."""


class StoreError(NasError):
    """The record of a search is missing, or belongs to another search."""


class ExportError(NasError):
    """An exported model did not repeat what the search recorded."""


def closest(given: str, known: Iterable[str]) -> str | None:
    """Return the known name most like ``given``, or None when nothing is close (ratio below 0.6)."""
    matches = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_name(kind: str, given: str, known: Iterable[str], mend: str = "") -> ConfigError:
    """Return the error for an unknown name, with the corrected spelling where one is close.

    Args:
        kind: what was named, such as ``device``.
        given: the name as the user wrote it.
        known: the names that exist.
        mend: how to add what is missing, a whole sentence.
    """
    names = sorted(known)
    guess = closest(given, names)
    parts = [f"unknown {kind} '{given}'; have {', '.join(names) or 'none'}."]
    if guess is not None:
        parts.append(f"Did you mean '{guess}'?")
    if mend:
        parts.append(mend)
    return ConfigError(" ".join(parts))
