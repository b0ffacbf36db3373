"""Random crops, flips and cut-outs of 8-bit batches by index arithmetic, so that a batch costs one gather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """What is varied at random; all zero and False leaves pictures as they are.

    Args:
        crop: largest shift as a share of the side, in 0 to 0.5; what a shift uncovers is filled by reflection.
        flip: mirror left and right half of the time; off where that changes the class, as for digits.
        cutout: side of the square that is painted in the pictures' mean, as a share of the side, 0 for none
            (DeVries and Taylor 2017).
    """

    crop: float = 0.0
    flip: bool = False
    cutout: float = 0.0

    def draw(
        self, images: NDArray[np.uint8], chosen: NDArray[np.int64], fill: NDArray[np.uint8], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Return the chosen pictures, each with its own variation.

        Args:
            images: all pictures, shape (images, height, width, channels).
            chosen: which of them, shape (batch,).
            fill: colour of a cut-out, shape (channels,).
            rng: source of randomness; the same state gives the same batch.

        Returns:
            Shape (batch, height, width, channels), a copy.
        """
        _, height, width, _ = images.shape
        if self.crop == 0.0 and not self.flip:
            batch = images[chosen]
        else:
            rows = self._shifted(height, len(chosen), rng)
            columns = self._shifted(width, len(chosen), rng)
            if self.flip:
                mirrored = rng.random(len(chosen)) < 0.5
                columns[mirrored] = columns[mirrored, ::-1]
            batch = images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        if self.cutout > 0.0:
            batch[self._hole(height, width, len(chosen), rng)] = fill
        return batch

    def _shifted(self, side: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return source indices of shape (count, side) after a random shift, reflected at both ends."""
        reach = min(round(self.crop * side), side - 1)
        shift = rng.integers(-reach, reach + 1, size=(count, 1))
        inside = np.abs(np.arange(side)[None, :] + shift)
        return np.asarray((side - 1) - np.abs((side - 1) - inside), dtype=np.int64)

    def _hole(self, height: int, width: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return masks of shape (count, height, width), True in a square around a random centre."""
        reach_y, reach_x = self.cutout * height / 2, self.cutout * width / 2
        away_y = np.abs(np.arange(height)[None, :] - rng.integers(0, height, size=(count, 1)))
        away_x = np.abs(np.arange(width)[None, :] - rng.integers(0, width, size=(count, 1)))
        return np.asarray((away_y < reach_y)[:, :, None] & (away_x < reach_x)[:, None, :])
