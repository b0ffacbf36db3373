"""Samples at the size that a network reads, kept between candidates because sizes repeat."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from numpy.typing import NDArray

from nas.data import Dataset, Encoding

_Key = tuple[str, str, tuple[int, ...]]


class ResizedSplits:
    """A cache of prepared splits; the least recently used go when it grows beyond its limit.

    Args:
        limit_mib: mebibytes kept; the split asked for last is kept even where it alone is larger.
    """

    def __init__(self, limit_mib: int = 512) -> None:
        self._limit_bytes = limit_mib * 1024 * 1024
        self._arrays: OrderedDict[_Key, NDArray[Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, dataset: Dataset, split: str, encoding: Encoding) -> NDArray[Any]:
        """Return all samples of a split as ``encoding.prepare`` makes them, read-only.

        Args:
            dataset: whose fingerprint keys the cache.
            split: ``train``, ``validation`` or ``test``.
            encoding: its key says on what the samples depend: of pictures height and width, not mean and deviation.

        Returns:
            A row per sample; of pictures shape (images, height, width, channels).
        """
        key = (dataset.fingerprint, split, encoding.key)
        if key not in self._arrays:
            array = encoding.prepare(dataset.splits[split].samples)
            array.flags.writeable = False
            self._arrays[key] = array
        self._arrays.move_to_end(key)
        while len(self._arrays) > 1 and sum(array.nbytes for array in self._arrays.values()) > self._limit_bytes:
            self._arrays.popitem(last=False)
        return self._arrays[key]
