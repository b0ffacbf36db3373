"""A static program: tensors with a place in one arena, constants, operators in the order in which they run.

The binary form starts with ``NASPLAN1``; everything is little-endian. Its reader, ``kernels/src/plan/load.cc``, trusts
nothing in it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.runtime.int4_operator import packed_halves

_Item = TypeVar("_Item")
MAGIC = b"NASPLAN1"
# Behind the magic: bytes of the arena; numbers of tensors, constants, operators, inputs and outputs; bytes of the
# records and of the constants.
HEAD = "<Q5IQQ"
ALIGNMENT = 64
MOST_AXES = 6
# Of one tensor; all together may not have more either.
MOST_BYTES = 2**32

# Numbers are part of the file format, shared with kernels/include/nas/program.h; a new one takes the next free number.
# Number 6 is read as s8, see Grouped.
DTYPES = {"u8": 0, "f32": 1, "i64": 2, "bool": 3, "i32": 4, "s8": 5}
_GROUPED = 6
_NUMPY = {"u8": "u1", "f32": "<f4", "i64": "<i8", "bool": "u1", "i32": "<i4", "s8": "i1"}
KINDS = {
    "quantize": 1,
    "dequantize": 2,
    "table": 3,
    "conv_u8": 4,
    "add_u8": 5,
    "mul_u8": 6,
    "mean_u8": 7,
    "conv_f32": 8,
    "binary_f32": 9,
    "unary_f32": 10,
    "mean_f32": 11,
    "transpose": 12,
    "pool": 13,
    "gather": 14,
    "where": 15,
    "lookup_f32": 16,
    "matmul_f32": 17,
    "norm_f32": 18,
    "softmax_f32": 19,
    "slice": 20,
    "concat": 21,
    "constant": 22,
    "attention_f32": 23,
    "matmul_int4": 24,
    "attention_cached": 25,
    "rows_at": 26,
    "gather_s8": 27,
    "gather_int4": 28,
}
BINARIES = {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3}
UNARIES = {
    **{"none": 0, "Clip": 1, "HardSwish": 2, "SiLU": 3, "Sigmoid": 4, "Gelu": 5, "Tanh": 6, "LeakyRelu": 7},
    **{"HardSigmoid": 8, "Sqrt": 9, "Exp": 10, "Erf": 11, "Neg": 12, "Reciprocal": 13, "Identity": 14},
}


@dataclass(eq=False)
class Tensor:
    """A piece of the arena, or another shape of one.

    Args:
        dtype: key of ``DTYPES``.
        shape: as the bytes lie, last axis contiguous.
        root: the tensor whose bytes it shares.
    """

    dtype: str
    shape: tuple[int, ...]
    root: Tensor | None = None
    offset: int = -1

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return prod(self.shape) * np.dtype(_NUMPY[self.dtype]).itemsize

    @property
    def owner(self) -> Tensor:
        """The tensor that has the bytes."""
        return self if self.root is None else self.root.owner


@dataclass(frozen=True, eq=False)
class Grouped:
    """Weights of 4 bits from which 8-bit ones are made at load; see :mod:`nas.runtime.int4_operator`.

    Args:
        values: -8..7 of shape (outputs, channels, ...).
        multipliers: 0..15, one less than they mean, of shape (outputs, groups).
        group: weights that share a multiplier.
    """

    values: NDArray[np.generic]
    multipliers: NDArray[np.generic]
    group: int

    def record(self) -> bytes:
        """Return what follows in the constant's record: channels, places of the window, and the group."""
        return struct.pack("<3I", self.values.shape[1], int(np.prod(self.values.shape[2:])), self.group)

    def to_bytes(self) -> bytes:
        """Return the values and then the multipliers, two to a byte."""
        return packed_halves(self.values) + packed_halves(self.multipliers)


@dataclass(eq=False)
class Constant:
    """Stored values.

    Args:
        dtype: key of ``DTYPES``.
        values: array of that type.
        grouped: what the file holds in the place of 8-bit weights, (outputs, ..., channels) of the same values.
    """

    dtype: str
    values: NDArray[np.generic]
    grouped: Grouped | None = None


@dataclass(eq=False)
class Op:
    """One operator of the program.

    Args:
        kind: key of ``KINDS``.
        name: of the node that it came from.
        inputs: tensors read.
        outputs: tensors written.
        constants: weights, biases, tables.
        ints: parameters in the order that the kind defines.
        floats: likewise.
    """

    kind: str
    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    constants: Sequence[Constant] = ()
    ints: Sequence[int] = ()
    floats: Sequence[float] = ()


@dataclass
class Program:
    """Operators and the arena in which their tensors lie."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def check(self) -> None:
        """Refuse what the binary form cannot hold.

        Raises:
            ValueError: too large a tensor, too many axes, or a parameter that is no 64-bit integer or 32-bit float.
        """
        for tensor in self.inputs:
            _check_tensor("an input", tensor)
        for op in self.ops:
            for tensor in (*op.inputs, *op.outputs):
                _check_tensor(f"node '{op.name}'", tensor)
            try:
                struct.pack(f"<{len(op.ints)}q{len(op.floats)}f", *op.ints, *op.floats)
            except (struct.error, OverflowError) as error:
                raise ValueError(f"node '{op.name}' has parameters {(*op.ints, *op.floats)}: {error}") from error

    def place(self) -> int:
        """Give every tensor its offset by liveness, largest first into the lowest gap, and return the arena's bytes."""
        spans = self._lifetimes()
        placed: list[tuple[int, int, int, int]] = []
        arena = 0
        for owner, (first, last) in sorted(spans.items(), key=lambda item: (-item[0].nbytes, item[1])):
            size = max(ALIGNMENT, -(-owner.nbytes // ALIGNMENT) * ALIGNMENT)
            start = 0
            for begin, end, born, dies in sorted(placed):
                if born <= last and first <= dies and begin < start + size and start < end:
                    start = end
            owner.offset = start
            placed.append((start, start + size, first, last))
            arena = max(arena, start + size)
        return arena

    def to_bytes(self) -> bytes:
        """Place the tensors and return the binary form."""
        arena = self.place()
        tensors = _unique([*self.inputs, *self.outputs, *(t for op in self.ops for t in (*op.inputs, *op.outputs))])
        constants = _unique([constant for op in self.ops for constant in op.constants])
        tensor_ids = {id(tensor): index for index, tensor in enumerate(tensors)}
        constant_ids = {id(constant): index for index, constant in enumerate(constants)}
        blob, records = bytearray(), bytearray()
        for constant in constants:
            blob += bytes(-len(blob) % ALIGNMENT)
            kind = DTYPES[constant.dtype] if constant.grouped is None else _GROUPED
            records += struct.pack("<IQQ", kind, constant.values.size, len(blob))
            if constant.grouped is None:
                blob += np.ascontiguousarray(constant.values, _NUMPY[constant.dtype]).tobytes()
            else:
                records += constant.grouped.record()
                blob += constant.grouped.to_bytes()
        body = bytearray()
        for tensor in tensors:
            body += struct.pack("<IQI", DTYPES[tensor.dtype], tensor.owner.offset, len(tensor.shape))
            body += struct.pack(f"<{len(tensor.shape)}I", *tensor.shape)
        body += records
        for op in self.ops:
            name = op.name.encode()[:200]
            body += struct.pack("<II", KINDS[op.kind], len(name)) + name
            for ids in (
                [tensor_ids[id(tensor)] for tensor in op.inputs],
                [tensor_ids[id(tensor)] for tensor in op.outputs],
                [constant_ids[id(constant)] for constant in op.constants],
            ):
                body += struct.pack(f"<I{len(ids)}I", len(ids), *ids)
            body += struct.pack(f"<I{len(op.ints)}q", len(op.ints), *op.ints)
            body += struct.pack(f"<I{len(op.floats)}f", len(op.floats), *op.floats)
        for ends in (self.inputs, self.outputs):
            body += struct.pack(f"<{len(ends)}I", *(tensor_ids[id(tensor)] for tensor in ends))
        counts = (len(tensors), len(constants), len(self.ops), len(self.inputs), len(self.outputs))
        head = MAGIC + struct.pack(HEAD, arena, *counts, len(body), len(blob))
        return bytes(head + body + bytes(-(len(head) + len(body)) % ALIGNMENT) + blob)

    def _lifetimes(self) -> dict[Tensor, tuple[int, int]]:
        spans: dict[Tensor, tuple[int, int]] = {tensor.owner: (-1, -1) for tensor in self.inputs}
        for index, op in enumerate(self.ops):
            for tensor in (*op.inputs, *op.outputs):
                first, _ = spans.get(tensor.owner, (index, index))
                spans[tensor.owner] = (first, index)
        for tensor in self.outputs:
            first, _ = spans.get(tensor.owner, (-1, -1))
            spans[tensor.owner] = (first, len(self.ops))
        return spans


def _check_tensor(whose: str, tensor: Tensor) -> None:
    fits = tensor.owner.nbytes <= MOST_BYTES and len(tensor.shape) <= MOST_AXES and min(tensor.shape, default=1) > 0
    if not fits:
        raise ValueError(
            f"{whose} has a tensor of shape {tensor.shape}; expected at most {MOST_AXES} axes, no size of 0 and "
            f"at most {MOST_BYTES} bytes"
        )


def _unique(items: Sequence[_Item]) -> list[_Item]:
    return list({id(item): item for item in items}.values())
