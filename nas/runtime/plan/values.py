"""What the planner knows about a value of the graph before any operator is emitted for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.runtime.plan.arithmetic import BYTES, Bytes, Floats, Quant, dequantize
from nas.runtime.plan.program import Grouped, Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stored:
    """Known when the file was read.

    Args:
        array: its elements.
        scale: None, or the array holds quantized weights and this is their scale, one or one per index of ``axis``.
        zero: zero points of the shape of ``scale``.
        axis: along which scales differ.
        grouped: the same weights as the file holds them, in 4 bits; None where it does not.
    """

    array: NDArray[np.generic]
    scale: Floats | None = None
    zero: NDArray[np.int32] | None = None
    axis: int = 0
    grouped: Grouped | None = None

    def floats(self) -> Floats:
        """Return the elements as float32, dequantized where they are quantized."""
        if self.scale is None or self.zero is None:
            return np.asarray(self.array, np.float32)
        scale, zero = self.scale, self.zero
        if scale.size > 1:
            sizes = [-1 if axis == self.axis else 1 for axis in range(self.array.ndim)]
            scale, zero = scale.reshape(sizes), zero.reshape(sizes)
        return ((self.array.astype(np.int32) - zero).astype(np.float32) * scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Real:
    """Floats, 64-bit integers or truth values in the arena.

    Args:
        tensor: where; of the physical shape.
        shape: as the graph sees it.
        nhwc: the channels of a 4-dimensional value lie last.
    """

    tensor: Tensor
    shape: Shape
    nhwc: bool = False


@dataclass(frozen=True, eq=False)
class Quantized:
    """Bytes in the arena, possibly through a table that was not applied yet.

    Args:
        tensor: unsigned bytes.
        shape: as the graph sees it.
        nhwc: the channels lie last.
        quant: scale and zero point.
        table: the value's bytes for each byte of the tensor; None where they are the same.
    """

    tensor: Tensor
    shape: Shape
    nhwc: bool
    quant: Quant
    table: Bytes | None = None

    @property
    def bytes_by_byte(self) -> Bytes:
        """The table, or 0 to 255."""
        return BYTES if self.table is None else self.table


@dataclass(frozen=True, eq=False)
class Curve:
    """Floats that depend on one byte each: what DequantizeLinear and everything elementwise behind it give.

    Args:
        source: the bytes.
        values: the float for each of the 256 bytes of ``source.tensor``.
        exact: the value is ``source`` dequantized and nothing else.
    """

    source: Quantized
    values: Floats
    exact: bool = False

    @property
    def shape(self) -> Shape:
        """As the graph sees it."""
        return self.source.shape

    def viewed(self, source: Quantized) -> Curve:
        """Return the same floats over another view of the bytes."""
        return replace(self, source=source)


@dataclass(frozen=True, eq=False)
class Cached:
    """An input that is a cache: what a program reads of it is its shape, and an attention its rows.

    Args:
        buffer: its number.
        shape: (1, heads, past, size).
    """

    buffer: int
    shape: Shape


def dequantized(source: Quantized) -> Curve:
    """Return the floats of a quantized value."""
    return Curve(source, dequantize(source.bytes_by_byte, source.quant), exact=True)


Value = Stored | Real | Quantized | Curve | Cached
