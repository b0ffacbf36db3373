"""Pictures at the size that a network reads, kept between candidates because resolutions repeat."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from nas.data import ImageDataset, Preprocessing

_Key = tuple[str, str, int, int]


class ResizedSplits:
    """A cache of resized 8-bit splits; the least recently used go when it grows beyond its limit.

    Args:
        limit_mib: mebibytes kept; the split asked for last is kept even where it alone is larger.
    """

    def __init__(self, limit_mib: int = 512) -> None:
        self._limit_bytes = limit_mib * 1024 * 1024
        self._arrays: OrderedDict[_Key, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, dataset: ImageDataset, split: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """Return all pictures of a split, resized by ``preprocessing`` and read-only.

        Args:
            dataset: whose fingerprint keys the cache.
            split: ``train``, ``validation`` or ``test``.
            preprocessing: its height and width are used, not its mean and deviation.

        Returns:
            Shape (images, height, width, channels).
        """
        key = (dataset.fingerprint, split, preprocessing.height, preprocessing.width)
        if key not in self._arrays:
            array = preprocessing.resize(dataset.splits[split].images)
            array.flags.writeable = False
            self._arrays[key] = array
        self._arrays.move_to_end(key)
        while len(self._arrays) > 1 and sum(array.nbytes for array in self._arrays.values()) > self._limit_bytes:
            self._arrays.popitem(last=False)
        return self._arrays[key]
