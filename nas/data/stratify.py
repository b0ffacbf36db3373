"""Stratified draws by seed: every class is split in the same proportion, and nothing is drawn twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified_parts(labels: NDArray[np.int64], sizes: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Draw disjoint parts in which each class keeps its share, as exactly as whole pictures allow.

    Every class is shuffled and cut at positions proportional to ``sizes``; what rounding leaves over is dealt
    one by one to the parts that still lack pictures. The order inside a part is random, so that any prefix of it
    is a fair sample.

    Args:
        labels: class indices, shape (pictures,).
        sizes: pictures per part; they add up to at most the number of pictures.
        seed: same seed, same parts.

    Returns:
        Indices into ``labels``, one array per part.

    Raises:
        ValueError: the sizes are negative or add up to more than there is.
    """
    if min(sizes) < 0 or sum(sizes) > len(labels):
        raise ValueError(f"parts of {list(sizes)} pictures from {len(labels)}; expected sizes from 0 that fit together")
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in sizes]
    spare: list[NDArray[np.int64]] = []
    for label, count in zip(classes, counts, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        start = 0
        for part, size in zip(parts, sizes, strict=True):
            take = int(count) * size // len(labels)
            part.append(members[start : start + take])
            start += take
        spare.append(members[start:])
    # Each class's leftovers are spread evenly over a line, so that cutting the line is nearly stratified too.
    places = np.concatenate([(np.arange(len(rest)) + rng.random()) / max(len(rest), 1) for rest in spare])
    line = np.concatenate(spare)[np.argsort(places, kind="stable")]
    drawn: list[NDArray[np.int64]] = []
    for part, size in zip(parts, sizes, strict=True):
        lacking = size - sum(len(piece) for piece in part)
        indices = np.concatenate([*part, line[:lacking]])
        line = line[lacking:]
        drawn.append(rng.permutation(indices).astype(np.int64))
    return drawn


def part_sizes(count: int, validation_share: float, test_share: float) -> tuple[int, int, int]:
    """Return how many of ``count`` pictures train, validate and test.

    Raises:
        ValueError: a share is outside 0..1 or nothing is left to train on.
    """
    if not (0.0 < validation_share < 1.0 and 0.0 <= test_share < 1.0 and validation_share + test_share < 1.0):
        raise ValueError(
            f"validation_share {validation_share} and test_share {test_share}; expected a positive validation share, "
            "a test share from 0, and a sum below 1"
        )
    validation, test = round(count * validation_share), round(count * test_share)
    return count - validation - test, validation, test


def channel_statistics(images: Sequence[NDArray[np.uint8]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel over all pixels, on the scale from 0 to 1.

    A channel that never varies gets a deviation of 1, so that dividing by it stays harmless.

    Args:
        images: 8-bit pictures of shape (h, w, channels), sizes free.
    """
    channels = images[0].shape[2]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for image in images:
        for channel in range(channels):
            histogram[channel] += np.bincount(image[:, :, channel].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    pixels = histogram.sum(axis=1)
    mean = histogram @ values / pixels
    std = np.sqrt(np.maximum(histogram @ values**2 / pixels - mean**2, 0.0))
    std = np.where(std < 1e-6, 1.0, std)
    return tuple(round(float(value), 6) for value in mean), tuple(round(float(value), 6) for value in std)
