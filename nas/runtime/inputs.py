"""Inputs made up for timing: time does not depend on their values, only on their shapes and types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import MeasurementError

Inputs = Mapping[str, tuple[tuple[int | str, ...], str]]


def empty_inputs(inputs: Inputs, given: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return arrays without a value for all inputs but those ``given``, such as the caches of a language model."""
    return {
        name: np.zeros(tuple(size if isinstance(size, int) else 0 for size in shape), type_name)
        for name, (shape, type_name) in inputs.items()
        if name not in given
    }


def random_inputs(
    inputs: Inputs, seed: int = 0, free: int = 1, sizes: Mapping[str, int] | None = None
) -> dict[str, NDArray[Any]]:
    """Return one array per input of a session.

    Floats are standard normal; integers are 0 or 1, which any embedding holds and any mask allows.

    Args:
        inputs: as ``Session.inputs`` returns them.
        seed: of the values.
        free: size given to every axis that the model leaves open.
        sizes: size of such an axis by its name, where it shall be another.

    Raises:
        MeasurementError: an input's type is neither a number nor a truth value.
    """
    rng = np.random.default_rng(seed)
    named = sizes or {}
    made: dict[str, NDArray[Any]] = {}
    for name, (shape, type_name) in inputs.items():
        full = tuple(size if isinstance(size, int) and size >= 0 else named.get(str(size), free) for size in shape)
        try:
            dtype = np.dtype(type_name)
        except TypeError:
            dtype = np.dtype(object)
        if dtype.kind == "f":
            made[name] = rng.standard_normal(full, dtype=np.float32).astype(dtype)
        elif dtype.kind in "iub":
            made[name] = rng.integers(0, 2, full).astype(dtype)
        else:
            raise MeasurementError(
                f"input '{name}' has type {type_name}; expected floats, integers or truth values. "
                "Cut the model so that its inputs are tensors of numbers."
            )
    return made
