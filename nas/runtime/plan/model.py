"""From a checked model file to the binary form of its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ModelFileError
from nas.runtime.plan import conv, elementwise, shaping, tokens
from nas.runtime.plan.planner import HANDLERS, Planner
from nas.runtime.plan.program import Program

if TYPE_CHECKING:
    import onnx

MODULES = (conv, elementwise, shaping, tokens)
_TYPES = {1: "float32", 2: "uint8", 7: "int64", 9: "bool"}


@dataclass(frozen=True)
class Input:
    """An input of a model.

    Args:
        name: in the graph.
        shape: sizes, or names of free ones.
        dtype: numpy's name of the type.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


def known_operators() -> list[str]:
    """Return the ONNX operators that can be planned, sorted."""
    return sorted(HANDLERS)


def inputs_of(path: Path, model: onnx.ModelProto) -> list[Input]:
    """Return what a model reads.

    Raises:
        ModelFileError: a type that the native runtime does not take.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type not in _TYPES or not tensor.HasField("shape"):
            raise ModelFileError(
                f"{path}: input '{value.name}' has ONNX type {tensor.elem_type}; the native runtime takes "
                f"{', '.join(_TYPES.values())} of a known number of axes. Use runtime=onnxruntime for this model."
            )
        shape = tuple(axis.dim_value or axis.dim_param or "?" for axis in tensor.shape.dim)
        found.append(Input(value.name, shape, _TYPES[tensor.elem_type]))
    return found


def plan(path: Path, model: onnx.ModelProto, sizes: Mapping[str, int]) -> Program:
    """Return the program of a model.

    Args:
        path: of the file, for error texts and external data.
        model: as ``check_model_file`` returns it.
        sizes: of the free axes, by name; 1 where one is missing.

    Raises:
        ModelFileError: an operator or a form of one that is not known, by name.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 20)
    try:
        return Planner(path, model.graph, sizes, opset).run()
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelFileError(f"{path}: its graph is inconsistent: {type(error).__name__}: {error}") from error
