"""The genotype: what a search space chose, and at which precision each block runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

Choice = int | float | str


class Precision(StrEnum):
    """Number format of a block's weights and activations; int4 is for weights only, in groups."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def weight_bits(self) -> int:
        """Bits that one weight takes in the file."""
        return {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}[self.value]


@dataclass(frozen=True)
class Architecture:
    """One point of a search space; two are the same exactly when their ids are.

    Only active choices are held: a space drops what a depth of 2 makes of the third block, so that equal
    networks have equal ids.

    Args:
        space: name of the search space that made it.
        choices: active choices, name to int, float or str.
        precision: block name to precision; the block names are those of the built module's children.
    """

    space: str
    choices: Mapping[str, Choice]
    precision: Mapping[str, Precision] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "space": self.space,
            "choices": dict(sorted(self.choices.items())),
            "precision": {name: str(value) for name, value in sorted(self.precision.items())},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Rebuild from :meth:`to_dict`; the id is the same again."""
        precision = {name: Precision(value) for name, value in data["precision"].items()}
        return cls(space=data["space"], choices=dict(data["choices"]), precision=precision)
