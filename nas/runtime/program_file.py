"""The planned program of a model as a file of its own, which ``nasq-run`` loads without Python."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas import _kernels
from nas.errors import ModelFileError
from nas.runtime.inputs import random_inputs
from nas.runtime.model_file import check_model_file
from nas.runtime.native import NativeRuntime

# Random inputs on which the file that was written has to give the model's bytes.
_CHECKS = 3


def write_program(model: Path, target: Path) -> dict[str, Any]:
    """Plan a model, write the program, load it again and compare its outputs with the model's, byte for byte.

    A free batch is one inference; of a language model with a cache the program reads one more token.

    Args:
        model: ONNX file.
        target: file to write, by custom called ``.nasq``.

    Returns:
        Facts for a model card: file, bytes, SHA-256, version of the runtime, inputs and outputs, and what was compared.

    Raises:
        ModelFileError: an operator is not known, by name, or the file that was written gave other bytes.
    """
    from nas.runtime.plan.cache import find_cache
    from nas.runtime.plan.model import plan, plan_cached

    checked = check_model_file(model)
    cache = find_cache(checked.graph)
    planned = plan(model, checked, {}).to_bytes() if cache is None else plan_cached(model, checked, cache, 1)[0]
    target.write_bytes(planned)
    written = target.read_bytes()
    try:
        program = _kernels.Program(written)
    except ValueError as error:
        raise ModelFileError(f"{target}: {error}") from error
    session = NativeRuntime().load(model)
    for seed in range(_CHECKS):
        past = {} if cache is None else {cache.tokens: 1, cache.past: 0}
        inputs = random_inputs(session.inputs, seed, sizes=past)
        expected = session.run(inputs)
        grown = set() if cache is None else set(cache.outputs.values())
        said = [array for out, array in zip(checked.graph.output, expected, strict=True) if out.name not in grown]
        if not _same(_run(program, inputs, () if cache is None else tuple(cache.outputs)), said):
            raise ModelFileError(
                f"{target}: loaded again it gave other bytes than {model} (random inputs, seed {seed})"
            )
    return {
        "file": target.name,
        "bytes": len(written),
        "sha256": hashlib.sha256(written).hexdigest(),
        "runtime": NativeRuntime().version,
        "inputs": [{"shape": list(shape), "type": dtype} for shape, dtype in program.inputs],
        "outputs": [{"shape": list(shape), "type": dtype} for shape, dtype in program.outputs],
        "cached_tokens": program.most_tokens,
        "verified": f"the bytes of {model.name} on {_CHECKS} random inputs, loaded again",
    }


def _run(program: _kernels.Program, inputs: Mapping[str, NDArray[Any]], caches: tuple[str, ...]) -> list[NDArray[Any]]:
    """Return the outputs without caches."""
    given = [np.ascontiguousarray(array) for name, array in inputs.items() if name not in caches]
    if not caches:
        return program.run(given)
    return program.run_cached(_kernels.CachePool(), given, [inputs[name] for name in caches])[0]


def _same(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> bool:
    return len(ours) == len(theirs) and all(
        one.shape == other.shape and one.tobytes() == other.tobytes() for one, other in zip(ours, theirs, strict=True)
    )
