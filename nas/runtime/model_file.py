"""Refuses a model file that is damaged or reaches outside its own folder, before a runtime opens it.

ONNX Runtime follows hard links in external data, and looks in the current folder for models that it was given as
bytes, so the check comes first and every model is loaded by its path. What remains is a race against somebody who can
write into the model's folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from nas.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

# Protocol buffers cannot be larger; a bigger file is not an ONNX model without external data.
LARGEST_PROTO_BYTES = 2 * 1024**3 - 1
LARGEST_DENSE_ELEMENTS = 2**29


def check_model_file(path: Path) -> onnx.ModelProto:
    """Return the parsed model with its external data left unread.

    Nothing is allocated by sizes that the file claims: the parser is bounded by the bytes at hand, and external data is
    compared with its file's size only.

    Args:
        path: an ``.onnx`` file.

    Raises:
        ModelFileError: missing, empty, truncated, no ONNX model, inconsistent, or with external data outside its folder
            (absolute path, ``..``, symbolic link, hard link, anything that is no regular file, beyond the file's end).
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = onnx.ModelProto()
    try:
        model.ParseFromString(_read(path))
    except DecodeError as error:
        raise _unreadable(path, "its bytes are no ONNX protocol buffer (truncated or another format)") from error
    if not model.HasField("graph") or not model.opset_import or not (model.graph.node or model.graph.output):
        raise _unreadable(path, "it holds no graph")
    for tensor in tensors(model):
        _check_tensor(path, tensor)
    for sparse in sparse_tensors(model):
        # A runtime makes it dense when it loads it: a few bytes may claim any size.
        if prod(sparse.dims) > LARGEST_DENSE_ELEMENTS:
            raise _unreadable(path, f"sparse tensor '{sparse.values.name}' claims {prod(sparse.dims)} elements")
    # Checked in memory: given a path the checker would open external data itself. It copies the model, so above 2 GiB
    # of bytes it could not be called; such a file was refused already.
    try:
        onnx.checker.check_model(_without_external_data(model), full_check=False)
    except (onnx.checker.ValidationError, ValueError) as error:
        if not _only_unknown_domain(model, error):
            raise _unreadable(path, f"the ONNX checker says: {str(error).splitlines()[0][:300]}") from error
    return model


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor: initializers, sparse ones, attributes, those of subgraphs and of functions."""
    for graph in _graphs(model):
        yield from graph.initializer
    for attribute in _attributes(model):
        yield attribute.t
        yield from attribute.tensors
    for sparse in sparse_tensors(model):
        yield from (sparse.values, sparse.indices)


def sparse_tensors(model: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """Yield every sparse tensor, wherever it is stored."""
    for graph in _graphs(model):
        yield from graph.sparse_initializer
    for attribute in _attributes(model):
        yield attribute.sparse_tensor
        yield from attribute.sparse_tensors


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for training in model.training_info:
        yield from (training.initialization, training.algorithm)
    for attribute in _attributes(model):
        yield from (attribute.g, *attribute.graphs)


def _attributes(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    for function in model.functions:
        yield from function.attribute_proto
        yield from _below(function.node)
        for default in function.attribute_proto:
            yield from _below((*default.g.node, *(node for graph in default.graphs for node in graph.node)))
    yield from _below(model.graph.node)
    for training in model.training_info:
        yield from _below((*training.initialization.node, *training.algorithm.node))


def _below(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.AttributeProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield attribute
            for graph in (attribute.g, *attribute.graphs):
                yield from _below(graph.node)


def _read(path: Path) -> bytes:
    expected = "expected an ONNX model file"
    try:
        status = path.stat()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}; {expected}. Check the path.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path} is no regular file; {expected}. Give the path of the .onnx file itself.")
    if status.st_size == 0:
        raise _unreadable(path, "it is empty")
    if status.st_size > LARGEST_PROTO_BYTES:
        raise _unreadable(path, f"it has {status.st_size} bytes, and an ONNX file ends at 2 GiB")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}; {expected}. Check its permissions.") from error


def _unreadable(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(
        f"{path}: {reason}; expected an ONNX model. Export it again, or copy it anew if it was copied."
    )


def _check_tensor(path: Path, tensor: onnx.TensorProto) -> None:
    if tensor.data_location != 1 and not tensor.external_data:  # TensorProto.EXTERNAL
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"{path}: tensor '{tensor.name}' keeps its data in '{location}'"
    mend = "expected a regular file inside the model's folder. Save the model again with its data beside it."
    _check_location(path, location, where, mend)
    target = path.parent / location
    try:
        status = target.lstat()
    except OSError as error:
        raise ModelFileError(f"{where}: {error.strerror}; {mend}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{where}, which is no regular file; {mend}")
    if status.st_nlink > 1:
        raise ModelFileError(f"{where}, a hard link to a file that may lie elsewhere; {mend} A copy will do.")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError as error:
        raise ModelFileError(f"{where} at no readable offset or length; {mend}") from error
    if offset < 0 or length < 0 or offset + length > status.st_size:
        raise ModelFileError(
            f"{where}, bytes {offset} to {offset + length}, but that file has {status.st_size}; {mend}"
        )


def _check_location(path: Path, location: str, where: str, mend: str) -> None:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not location or "\0" in location or posix.is_absolute() or windows.is_absolute() or windows.drive:
        raise ModelFileError(f"{where}, which is no relative path; {mend}")
    if ".." in posix.parts or ".." in windows.parts:
        raise ModelFileError(f"{where}, which leaves the folder; {mend}")
    step = path.parent
    for part in posix.parts:
        step = step / part
        if step.is_symlink():
            raise ModelFileError(f"{where}, and {step} is a symbolic link; {mend}")
    if not Path(os.path.realpath(step)).is_relative_to(os.path.realpath(path.parent)):
        raise ModelFileError(f"{where}, which leaves the folder; {mend}")


def _without_external_data(model: onnx.ModelProto) -> onnx.ModelProto:
    # The checker resolves external locations against the current folder when it is given a model in memory, so it
    # gets stand-ins: an initializer without data is refused, a graph input of the same type is not.
    import onnx

    if not any(tensor.data_location == 1 for tensor in tensors(model)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in tensors(copy):
        if tensor.data_location == 1:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.ClearField("raw_data")
            del tensor.dims[:]
            tensor.dims.append(0)
    return copy


def _only_unknown_domain(model: onnx.ModelProto, error: Exception) -> bool:
    # A user's model may hold ops of ONNX Runtime's own domains, which the ONNX checker does not know.
    own = {opset.domain for opset in model.opset_import} - {"", "ai.onnx", "ai.onnx.ml"}
    return bool(own) and "No Op registered" in str(error)
