"""Handwritten digits: 1,797 real 8x8 pictures that come with scikit-learn, so that a first search needs no download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.data import ImageDataset, Split
from nas.data.stratify import channel_statistics, part_sizes, stratified_parts
from nas.errors import ConfigError

LICENCE = (
    "none stated by scikit-learn, which ships this copy; the original is Optical Recognition of Handwritten Digits, "
    "E. Alpaydin and C. Kaynak, UCI repository, 1998, whose terms apply"
)


class Digits:
    """scikit-learn's ``load_digits``, one channel, values 0..16 spread over 0..255.

    Args:
        resolutions: input sizes in pixels that a search space may choose from; pictures are resized from 8x8.
        validation_share: share of the pictures that the search scores on.
        test_share: share that is read once, for what ships.
        seed: of the stratified split.
    """

    name = "digits"

    def __init__(
        self,
        resolutions: Sequence[int] = (8, 12, 16),
        validation_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.resolutions = tuple(resolutions)
        self.validation_share = validation_share
        self.test_share = test_share
        self.seed = seed

    def load(self) -> ImageDataset:
        """Read the pictures from the installed package and split them.

        Raises:
            ConfigError: the shares leave nothing to train on.
        """
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, :, :, None]
        labels = bunch.target.astype(np.int64)
        try:
            sizes = part_sizes(len(labels), self.validation_share, self.test_share)
        except ValueError as error:
            raise ConfigError(f"data set digits: {error}") from error
        parts = stratified_parts(labels, sizes, self.seed)
        splits = {
            name: Split(images=list(images[part]), labels=labels[part])
            for name, part in zip(("train", "validation", "test"), parts, strict=True)
        }
        mean, std = channel_statistics(splits["train"].images)
        return ImageDataset(
            name=self.name,
            licence=LICENCE,
            classes=tuple(str(digit) for digit in range(10)),
            mean=mean,
            std=std,
            splits=splits,
            notes=(f"stratified split by seed {self.seed}",),
            members=dict(zip(("train", "validation", "test"), (part.tolist() for part in parts), strict=True)),
        )
