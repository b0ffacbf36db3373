"""Data sets and the task that they pose; what a network sees is made by one pre-processing, here and when shipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.scripts import RUN_IMAGES

TaskKind = Literal["image_classification", "text_classification", "language_model"]

_UNITS = {"image_classification": "pictures", "text_classification": "texts", "language_model": "tokens"}


@dataclass(frozen=True)
class Task:
    """What a network must be able to read and to say.

    Args:
        kind: ``image_classification``, ``text_classification`` or ``language_model``.
        channels: colour channels of a picture, 1 or 3; 0 where the input is no picture.
        classes: number of classes; of a language model its vocabulary.
        vocabulary: number of tokens that the input is made of; 0 where the input is no text.
    """

    kind: TaskKind
    channels: int
    classes: int
    vocabulary: int = 0

    @property
    def metric(self) -> str:
        """What the search scores: ``accuracy``, a share to maximise, or ``perplexity``, to minimise."""
        return "perplexity" if self.kind == "language_model" else "accuracy"

    @property
    def timings(self) -> tuple[str, ...]:
        """What is timed: one whole input, or a prompt and one more token; the first is that of the lowered graph."""
        return ("ttft_ms", "token_ms") if self.kind == "language_model" else ("latency_ms",)

    @property
    def unit(self) -> str:
        """What the data are counted in: pictures, texts or tokens."""
        return _UNITS[self.kind]


class Encoding(Protocol):
    """From samples as a data set keeps them to what a network reads: trains, calibrates, scores and is shipped."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample as the network reads it."""
        ...

    @property
    def key(self) -> tuple[int, ...]:
        """On what prepared samples depend, for a cache."""
        ...

    def prepare(self, samples: Sequence[NDArray[Any]], /) -> NDArray[Any]:
        """Return all samples at one size, still small: 8-bit pictures or tokens, a row per sample."""
        ...

    def encode(self, prepared: NDArray[Any], /) -> NDArray[Any]:
        """Return prepared samples as the network reads them, shape (samples, *shape)."""
        ...

    def example(self) -> NDArray[Any]:
        """Return one sample of zeros as the network reads it, shape (1, *shape)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that says the whole recipe."""
        ...


class Samples(Protocol):
    """What a split holds."""

    @property
    def samples(self) -> Sequence[NDArray[Any]]:
        """Pictures or token sequences, sizes free."""
        ...

    def __len__(self) -> int: ...


class LabelledSamples(Samples, Protocol):
    """Samples with their classes."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, shape (samples,)."""
        ...


class Dataset(Protocol):
    """What training, calibration, scoring and export ask of data, whatever they are made of."""

    @property
    def name(self) -> str:
        """Such as ``digits``."""
        ...

    @property
    def licence(self) -> str:
        """Of the data, as its source states it."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels; empty for a language model."""
        ...

    @property
    def splits(self) -> Mapping[str, Samples]:
        """``train``, ``validation`` and ``test``; the last is read once, for what ships."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out and why."""
        ...

    @property
    def task(self) -> Task:
        """What networks must read and say."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash over all splits, for store keys."""
        ...

    def preprocessing(self, *size: Any, **named: Any) -> Encoding:
        """Return the encoding for a network whose input has this size."""
        ...

    def some(self, split: str, encoding: Any, count: int, /) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return inputs and targets of so many samples of a split, always the same ones."""
        ...

    @property
    def study_files(self) -> Mapping[str, str]:
        """File name to content of what was learned from the training split, such as a tokenizer."""
        ...

    def shipped_files(self, encoding: Any, /) -> Mapping[str, str]:
        """Return file name to content of what a model needs beside it to be run, ``run.py`` among them."""
        ...


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

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return len(self.mean), self.height, self.width

    @property
    def key(self) -> tuple[int, ...]:
        """(height, width): resized pictures depend on no more."""
        return self.height, self.width

    def prepare(self, samples: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the pictures resized; see :meth:`resize`."""
        return self.resize(samples)

    def encode(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return resized pictures as the network reads them; see :meth:`normalize`."""
        return self.normalize(prepared)

    def example(self) -> NDArray[np.float32]:
        """Return zeros of shape (1, channels, height, width)."""
        return np.zeros((1, *self.shape), np.float32)

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

    @property
    def samples(self) -> Sequence[NDArray[np.uint8]]:
        """The pictures."""
        return self.images

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
        members: split to the names or row numbers of its pictures in the source, in the order of ``splits``.
    """

    name: str
    licence: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = field(default_factory=tuple)
    members: Mapping[str, Sequence[str | int]] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """Image classification with this set's channels and classes."""
        return Task("image_classification", channels=len(self.mean), classes=len(self.classes))

    def preprocessing(self, height: int, width: int) -> Preprocessing:
        """Return the pre-processing for a network that reads (height, width) pictures."""
        return Preprocessing(height, width, self.mean, self.std)

    def some(self, split: str, encoding: Preprocessing, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return inputs and labels of so many pictures of a split, drawn with a fixed seed."""
        return some_labelled(self.splits[split], encoding, count)

    @property
    def study_files(self) -> dict[str, str]:
        """Which picture is in which split, where the source can say it, and how many each class has there."""
        counts = {
            name: dict(zip(self.classes, np.bincount(split.labels, minlength=len(self.classes)).tolist(), strict=True))
            for name, split in self.splits.items()
        }
        record = {
            "data": self.name,
            "fingerprint": self.fingerprint,
            "pictures": {name: len(split) for name, split in self.splits.items()},
            "classes": counts,
            "members": {name: list(members) for name, members in self.members.items()},
        }
        return {"splits.json": json.dumps(record, indent=1) + "\n"}

    def shipped_files(self, encoding: Preprocessing) -> dict[str, str]:
        """Return class names, the pre-processing and the script that classifies pictures."""
        return {
            "labels.txt": "".join(f"{name}\n" for name in self.classes),
            "preprocessing.json": json.dumps(encoding.to_dict(), indent=2) + "\n",
            "run.py": RUN_IMAGES,
        }

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


def some_labelled(split: LabelledSamples, encoding: Encoding, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return inputs and labels of at most ``count`` samples of a split, drawn with a fixed seed."""
    chosen = np.random.default_rng(0).permutation(len(split))[:count]
    return encoding.encode(encoding.prepare([split.samples[index] for index in chosen])), split.labels[chosen]
