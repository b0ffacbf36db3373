"""Language models with a cache in the native runtime: one program per number of new tokens, whatever came before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas import _kernels
from nas.errors import CandidateError, ModelFileError

if TYPE_CHECKING:
    import onnx

    from nas.runtime.plan.cache import Cache

# Programs for other numbers of new tokens that are kept; each has its weights packed.
_MOST_PROGRAMS = 4


@dataclass(eq=False)
class CachedPrograms:
    """The programs of a model whose inputs after the first are caches.

    Keys and values that a run returns are read-only views of memory that the next run extends in place: given back as
    they are, nothing is copied. Older ones, or any other arrays, are copied first, so that no array ever changes.

    Args:
        model: checked.
        path: for error texts.
        cache: of the model's graph.
        isa: level whose kernels are allowed; None takes ``NAS_FORCE_ISA`` or the best.
        threads: that share the operators which are large enough.

    Raises:
        ModelFileError: an operator is not known, by name, or depends on the length of the cache.
    """

    model: onnx.ModelProto
    path: Path
    cache: Cache
    isa: str | None
    threads: int = 1
    _pool: _kernels.CachePool = field(default_factory=_kernels.CachePool, init=False)
    _programs: dict[int, _kernels.Program] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        stored = {tensor.name for tensor in self.model.graph.initializer}
        self.first = next(value.name for value in self.model.graph.input if value.name not in stored)
        grown = {output: index for index, output in enumerate(self.cache.outputs.values())}
        self._outputs = [grown.get(value.name) for value in self.model.graph.output]
        self.most_tokens = self.program(1).most_tokens

    def program(self, tokens: int) -> _kernels.Program:
        """Return the program for a number of new tokens.

        Raises:
            ModelFileError: an operator is not known, by name, or depends on the length of the cache.
        """
        from nas.runtime.plan.model import plan_cached

        if tokens not in self._programs:
            while len(self._programs) >= _MOST_PROGRAMS:
                del self._programs[next(iter(self._programs))]
            planned, _ = plan_cached(self.path, self.model, self.cache, tokens)
            try:
                self._programs[tokens] = _kernels.Program(planned, self.isa, self.threads)
            except ValueError as error:
                raise ModelFileError(f"{self.path}: {error}") from error
            except MemoryError as error:
                raise ModelFileError(f"{self.path}: its tensors need more memory than there is.") from error
        return self._programs[tokens]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return all outputs, in the order of the file.

        Raises:
            CandidateError: more tokens than there are positions.
            KeyError: an input is missing.
            TypeError: an input has another type.
            ValueError: an input has another shape.
        """
        tokens, past = inputs[self.first], [inputs[name] for name in self.cache.outputs]
        odd = any(array.ndim != 4 or array.dtype != np.float32 for array in past)
        if odd or tokens.ndim != 2 or len(inputs) != len(past) + 1:
            raise ValueError("inputs of another number, type or number of axes")
        new, before = tokens.shape[1], past[0].shape[2]
        if new + before > self.most_tokens:
            raise CandidateError(
                "error",
                f"{self.path}: {before} tokens and {new} more; expected at most {self.most_tokens}, its positions",
            )
        program = self._programs.get(new) or self.program(new)
        said, grown = program.run_cached(self._pool, [np.ascontiguousarray(tokens)], past)
        rest = iter(said)
        return [next(rest) if index is None else grown[index] for index in self._outputs]
