"""What an encoder returns, and the checks that all of them share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Encoding:
    """Features of all rows of a table.

    Args:
        blocks: name to (rows, columns); a model weighs each block as a whole.
        per_choice: (rows, columns), an indicator per choice: what the linear baseline sees.
        roofline: (rows, 2), MACs and bytes moved at fp32, where the space says what is computed; else None.
    """

    blocks: Mapping[str, Array]
    per_choice: Array
    roofline: Array | None = None

    def rows(self, chosen: NDArray[np.int64]) -> dict[str, Array]:
        """Return the blocks of some rows."""
        return {name: block[chosen] for name, block in self.blocks.items()}


def indicators(codes: NDArray[np.int64], count: int) -> Array:
    """Return (rows, places x count) of 0 and 1 from (rows, places) of codes 0 to count - 1."""
    shown: Array = np.eye(count)[codes].reshape(len(codes), -1)
    return shown


def parsed(value: Any, row: int, column: str) -> Any:
    """Return a list that stands in a table as JSON text, or as a list already.

    Raises:
        DataError: it is neither, with row and column.
    """
    if isinstance(value, list):
        return value
    try:
        found = json.loads(str(value).replace("True", "true").replace("False", "false"))
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, list):
        raise DataError(f"row {row}, column '{column}': {value!r} is no list; expected one such as [1, 2, 3].")
    return found
