"""From a checked model file to the binary form of its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ModelFileError, NasError
from nas.runtime.int4_operator import check_operator
from nas.runtime.plan import conv, elementwise, int4, int4_chain, shaping, tokens
from nas.runtime.plan.cache import Cache
from nas.runtime.plan.planner import Planner, known_operators
from nas.runtime.plan.program import Program

if TYPE_CHECKING:
    import onnx

__all__ = ["Input", "batch_axis", "inputs_of", "known_operators", "plan", "plan_cached", "shape_of"]

MODULES = (conv, elementwise, int4, int4_chain, shaping, tokens)
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
        found.append(Input(value.name, shape_of(value), _TYPES[tensor.elem_type]))
    return found


def batch_axis(path: Path, model: onnx.ModelProto) -> str | None:
    """Return the name of the only free size where it leads every input and output, else None: inferences run in turn.

    Raises:
        ModelFileError: as :func:`inputs_of`.
    """
    shapes = [given.shape for given in inputs_of(path, model)] + [shape_of(value) for value in model.graph.output]
    free = {size for given in inputs_of(path, model) for size in given.shape if isinstance(size, str)}
    if len(free) != 1:
        return None
    (name,) = free
    leads = all(shape and shape[0] == name and name not in shape[1:] for shape in shapes)
    return name if leads else None


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Return sizes or names of free ones; an unnamed free size is called ``?``."""
    return tuple(axis.dim_value or axis.dim_param or "?" for axis in value.type.tensor_type.shape.dim)


def plan(path: Path, model: onnx.ModelProto, sizes: Mapping[str, int]) -> Program:
    """Return the program of a model.

    Args:
        path: of the file, for error texts and external data.
        model: as ``check_model_file`` returns it.
        sizes: of the free axes, by name; 1 where one is missing.

    Raises:
        ModelFileError: an operator or a form of one that is not known, by name.
    """
    return _walked(path, model, sizes, None)[0]


def plan_cached(path: Path, model: onnx.ModelProto, cache: Cache, tokens: int) -> tuple[bytes, int]:
    """Return the binary program for a number of new tokens, whatever came before, and how many there may be in all.

    Args:
        path: as in :func:`plan`.
        model: likewise.
        cache: of its graph.
        tokens: new ones.

    Raises:
        ModelFileError: as :func:`plan`; or an operator is not known that depends on the length of the cache.
    """
    planned = [_at_length(path, model, cache, tokens, 0)]
    most = planned[0][1]
    if tokens > most:
        raise ModelFileError(f"{path}: it has no positions, or fewer than {tokens}; its cache cannot be planned.")
    if other := min(2, most - tokens):
        planned.append(_at_length(path, model, cache, tokens, other))
    if planned[0] != planned[-1]:
        raise ModelFileError(f"{path}: more than attention depends on the length of its cache.")
    return planned[0]


def _at_length(path: Path, model: onnx.ModelProto, cache: Cache, tokens: int, past: int) -> tuple[bytes, int]:
    program, most_tokens = _walked(path, model, {cache.tokens: tokens, cache.past: past}, cache)
    return program.to_bytes(), most_tokens


def _walked(path: Path, model: onnx.ModelProto, sizes: Mapping[str, int], cache: Cache | None) -> tuple[Program, int]:
    check_operator(model, path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 20)
    try:
        planner = Planner(path, model.graph, sizes, opset, cache)
        program = planner.run()
        program.check()
        return program, planner.most_tokens
    except NasError:
        raise
    except MemoryError as error:
        raise ModelFileError(f"{path}: its tensors need more memory than there is.") from error
    except Exception as error:
        # A graph that was written by somebody else can be inconsistent in more ways than could be listed.
        raise ModelFileError(f"{path}: its graph is inconsistent: {type(error).__name__}: {error}") from error
