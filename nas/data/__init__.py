"""Data sets and the task that they pose; what a network sees is made by one pre-processing, here and when shipped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TaskKind = Literal["image_classification"]


@dataclass(frozen=True)
class Task:
    """What a network must be able to read and to say.

    Args:
        kind: ``image_classification``.
        channels: colour channels of the input, 1 or 3.
        classes: number of classes.
    """

    kind: TaskKind
    channels: int
    classes: int


@dataclass(frozen=True)
class Preprocessing:
    """From 8-bit pictures to the network's input; the same code trains, calibrates, scores and is shipped as data.

    Args:
        height: rows of the input.
        width: columns of the input.
        mean: per channel, on the scale from 0 to 1.
        std: per channel, on the scale from 0 to 1.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resize(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Resize bilinearly with Pillow; pictures that have the size already are not touched.

        Args:
            images: 8-bit pictures of shape (h, w, channels), sizes free.

        Returns:
            Shape (images, height, width, channels).
        """
        channels = len(self.mean)
        resized = np.empty((len(images), self.height, self.width, channels), dtype=np.uint8)
        for index, image in enumerate(images):
            if image.shape[:2] == (self.height, self.width):
                resized[index] = image
                continue
            picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
            small = picture.resize((self.width, self.height), Image.Resampling.BILINEAR)
            resized[index] = np.asarray(small).reshape(self.height, self.width, channels)
        return resized

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scale to 0..1, subtract the mean, divide by the deviation, and put channels first.

        Args:
            images: shape (images, height, width, channels).

        Returns:
            Shape (images, channels, height, width).
        """
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        scaled = (images.astype(np.float32) / np.float32(255.0) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that says the whole recipe."""
        return {
            "height": self.height,
            "width": self.width,
            "resample": "bilinear (Pillow)",
            "mode": "L" if len(self.mean) == 1 else "RGB",
            "scale": 1 / 255,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": "NCHW",
        }


@dataclass(frozen=True)
class Split:
    """Pictures with their labels.

    Args:
        images: 8-bit pictures of shape (h, w, channels), sizes free.
        labels: class indices, shape (images,).
    """

    images: Sequence[NDArray[np.uint8]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageDataset:
    """Train, validation and test pictures of one classification task.

    The search sees ``train`` and ``validation``; ``test`` is read once, for what ships.

    Args:
        name: such as ``digits``.
        licence: of the data, as its source states it.
        classes: class names in the order of the labels.
        mean: per channel over the training pictures, on the scale from 0 to 1.
        std: likewise.
        splits: ``train``, ``validation`` and ``test``.
        notes: what was left out and why, such as broken files.
    """

    name: str
    licence: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def task(self) -> Task:
        """Image classification with this set's channels and classes."""
        return Task("image_classification", channels=len(self.mean), classes=len(self.classes))

    def preprocessing(self, height: int, width: int) -> Preprocessing:
        """Return the pre-processing for a network that reads (height, width) pictures."""
        return Preprocessing(height, width, self.mean, self.std)

    @cached_property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over pictures and labels of all splits, for store keys."""
        digest = hashlib.sha256(f"{self.name}:{self.classes}".encode())
        for name in sorted(self.splits):
            split = self.splits[name]
            digest.update(name.encode() + split.labels.tobytes())
            for image in split.images:
                # Two sets of equal labels must not share a key: folders are edited, seeds change who is where.
                digest.update(f"{image.shape}".encode() + image.tobytes())
        return digest.hexdigest()[:12]
