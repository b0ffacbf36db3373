"""The registry of custom operators for ONNX Runtime: ours, and those that a user adds with their references.

An operator runs in an ordinary ``onnxruntime.InferenceSession`` because a shared library brings its kernel, because the
model carries its body as an ONNX function, or both. What it should compute is said once more in numpy, and
:class:`nas.testing.custom_op_suite.CustomOpSuite` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from nas.errors import ConfigError, unknown_name
from nas.runtime.custom_op import CustomOp
from nas.runtime.quantized_program import LIBRARY, quantized_program

if TYPE_CHECKING:
    import onnx

_registered: dict[str, CustomOp] = {}


def register(op: CustomOp) -> CustomOp:
    """Add an operator, so that sessions of ours run it and its name is known.

    Raises:
        ConfigError: another operator has its domain and name.
    """
    if custom_ops().get(op.key, op) != op:
        raise ConfigError(f"operator '{op.key}' is registered already; expected another name, or a domain of your own")
    _registered[op.key] = op
    return op


def custom_ops() -> Mapping[str, CustomOp]:
    """Return all operators by domain and name, ours first."""
    ours = [quantized_program()] if LIBRARY.is_file() else []
    return {**{op.key: op for op in ours}, **_registered}


def custom_op(key: str) -> CustomOp:
    """Return an operator by domain and name.

    Raises:
        ConfigError: nothing of that name is registered; the text has the corrected spelling.
    """
    known = custom_ops()
    if key not in known:
        raise unknown_name("operator", key, known, "Register it with nas.runtime.custom_ops.register.")
    return known[key]


def library() -> Path:
    """Return our library of operators, for ``SessionOptions.register_custom_ops_library``.

    Raises:
        ConfigError: it was not built.
    """
    if not LIBRARY.is_file():
        raise ConfigError(f"{LIBRARY} does not exist; a wheel holds it, and make builds it in a checkout")
    return LIBRARY


def session_options(threads: int = 1, options: onnxruntime.SessionOptions | None = None) -> onnxruntime.SessionOptions:
    """Return options under which a session runs every registered operator.

    Args:
        threads: that ONNX Runtime uses for its own operators; ours run on the caller's.
        options: to add the libraries to, instead of new ones.

    Raises:
        ConfigError: a library cannot be loaded, is none of operators, or wants another version of ONNX Runtime.
    """
    if options is None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    for path in dict.fromkeys(op.library for op in custom_ops().values() if op.library is not None):
        try:
            options.register_custom_ops_library(str(path))
        except Exception as error:  # the binding raises classes of its own
            raise ConfigError(f"{path} was refused by ONNX Runtime as a library of operators: {error}") from error
    return options


def open_session(model: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session of a model in memory, under :func:`session_options`.

    Args:
        model: without external data.
        threads: as there.
    """
    options = session_options(threads)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def with_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model that carries the bodies of the registered operators that have no library.

    Args:
        model: whose nodes may be operators of the registry.

    Raises:
        ConfigError: an operator in the domain of a registered one is unknown; the text has the corrected spelling.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    domains = {op.domain for op in custom_ops().values()}
    carried = {f"{function.domain}.{function.name}" for function in copy.functions}
    for key in dict.fromkeys(f"{node.domain}.{node.op_type}" for node in copy.graph.node if node.domain in domains):
        if key in carried:
            continue
        op = custom_op(key)
        if op.function is not None and op.library is None:
            copy.functions.append(op.function)
            imported = {entry.domain for entry in copy.opset_import}
            copy.opset_import.extend(entry for entry in op.function.opset_import if entry.domain not in imported)
    return copy
