"""A custom operator for ONNX Runtime and what it should compute."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError

if TYPE_CHECKING:
    import onnx

DOMAIN = "hwnas"
_TAKEN = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "com.microsoft"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOMAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")

Arrays = Sequence[NDArray[Any]]
Reference = Callable[[Arrays, Mapping[str, Any]], Arrays]


@dataclass(frozen=True)
class Example:
    """One call of an operator.

    Args:
        inputs: in the order of the node.
        attributes: of the node; whole numbers, floats, texts, bytes or lists of them.
    """

    inputs: Arrays
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class CustomOp:
    """An operator and what it should compute.

    Args:
        name: of the operator in an ONNX graph.
        reference: inputs and attributes to outputs, in numpy.
        examples: a random generator to one call, for the check against the reference.
        domain: of the operator, none of ONNX's own.
        library: shared library that exports ``RegisterCustomOps``, or None.
        function: its body in ONNX's operators, or None; models that hold the operator carry it along, see
            :func:`with_functions`.
        tolerance: largest difference allowed from the reference; 0 asks for the same bytes.

    Raises:
        ConfigError: a name that ONNX does not take, neither library nor function, a library that does not exist, or a
            function of another name.
    """

    name: str
    reference: Reference
    examples: Callable[[np.random.Generator], Example]
    domain: str = DOMAIN
    library: Path | None = None
    function: onnx.FunctionProto | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"an operator called '{self.name}'; expected a word of letters, digits and underscores")
        if self.domain in _TAKEN or not _DOMAIN.fullmatch(self.domain):
            raise ConfigError(
                f"operator '{self.name}' in domain '{self.domain}'; expected a domain of your own, such as 'my.ops'"
            )
        if self.library is None and self.function is None:
            raise ConfigError(
                f"operator '{self.key}' has neither library nor function, so nothing can run it; give one of them"
            )
        if self.library is not None and not self.library.is_file():
            raise ConfigError(f"operator '{self.key}': its library {self.library} does not exist. Build it first.")
        if self.function is not None and (self.function.domain, self.function.name) != (self.domain, self.name):
            raise ConfigError(
                f"operator '{self.key}': its function is called '{self.function.domain}.{self.function.name}'; "
                "expected the operator's own name and domain"
            )
        if not self.tolerance >= 0:
            raise ConfigError(f"operator '{self.key}' has tolerance {self.tolerance}; expected 0 or more")

    @property
    def key(self) -> str:
        """Domain and name, such as ``hwnas.QuantizedProgram``."""
        return f"{self.domain}.{self.name}"
