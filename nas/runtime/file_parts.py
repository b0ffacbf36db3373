"""What a model's file is made of: the bytes of stored numbers, and everything else."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ModelFileError
from nas.runtime.model_file import check_model_file, tensors
from nas.runtime.plan.program import HEAD, MAGIC

if TYPE_CHECKING:
    import onnx

# Bits of an element by number of the type in onnx.TensorProto; those that are not listed have whole bytes in numpy.
_BITS = {21: 4, 22: 4}


@dataclass(frozen=True)
class FileParts:
    """Sizes in bytes.

    Args:
        file: as it lies on the disk.
        numbers: everything stored as a tensor: weights with their scales, zero points and multipliers, biases, scales
            of activations, shapes. In a planned program tables of activations are among them.
    """

    file: int
    numbers: int

    @property
    def rest(self) -> int:
        """Bytes that are no numbers: nodes, names, descriptions of inputs and outputs, padding."""
        return self.file - self.numbers


def file_parts(path: Path) -> FileParts:
    """Return the parts of an ONNX file, or of a planned program (``.nasq``).

    Raises:
        ModelFileError: missing, damaged, or neither of the two.
    """
    try:
        with path.open("rb") as file:
            start = file.read(struct.calcsize(HEAD) + len(MAGIC))
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    size = path.stat().st_size
    if start[: len(MAGIC)] == MAGIC:
        if len(start) < struct.calcsize(HEAD) + len(MAGIC):
            raise ModelFileError(f"{path} ends within its head; expected a planned program. Export it again")
        return FileParts(size, int(struct.unpack(HEAD, start[len(MAGIC) :])[-1]))
    return FileParts(size, sum(map(_stored_bytes, tensors(check_model_file(path)))))


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    from onnx import helper

    if not tensor.data_type:
        return 0  # an attribute that is no tensor
    elements = 1
    for size in tensor.dims:
        elements *= size
    bits = _BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-elements * bits // 8)
