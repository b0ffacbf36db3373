"""Fitted models on disk: a ``.npz`` of plain arrays, and a ``.json`` with version, fingerprint and card; no pickle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

FORMAT = 1

Array = NDArray[np.float64]


def fingerprint(arrays: Mapping[str, Array]) -> str:
    """Return a hash of names, shapes and values, the same on every machine."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], dtype="<f8")
        digest.update(f"{name}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def save(path: Path, kind: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write ``path`` with the suffixes .npz and .json.

    Args:
        path: without suffix.
        kind: of the model, such as ``graph``.
        arrays: all float64.
        facts: JSON-ready, for the reader and for the model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}
    np.savez_compressed(path.with_suffix(".npz"), **plain)
    about = {"format": FORMAT, "kind": kind, "fingerprint": fingerprint(plain), **facts}
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load(path: Path, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return arrays and facts.

    Raises:
        DataError: a file is missing, of another format or kind, or was changed since it was written.
    """
    about_path, arrays_path = path.with_suffix(".json"), path.with_suffix(".npz")
    try:
        facts: dict[str, Any] = json.loads(about_path.read_text(encoding="utf-8"))
        with np.load(arrays_path, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name], dtype=np.float64) for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"fitted model {path} cannot be read: {error}..") from error
    if facts.get("format") != FORMAT or facts.get("kind") != kind:
        raise DataError(
            f"{about_path} holds kind '{facts.get('kind')}' in format {facts.get('format')}; expected '{kind}' in "
            f"format {FORMAT}. Fit it again with this version."
        )
    if facts.get("fingerprint") != fingerprint(arrays):
        raise DataError(f"{arrays_path} is not what {about_path.name} was written for: the fingerprints differ.")
    return arrays, facts
