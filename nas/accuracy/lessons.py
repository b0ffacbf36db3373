"""What a network is taught, one class per kind of task: batches of inputs with targets, and what counts as good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from nas.accuracy.augment import Augmentation
from nas.accuracy.resized import ResizedSplits
from nas.data import Dataset, Encoding, ImageDataset, LabelledSamples

Batch = tuple[NDArray[Any], NDArray[np.int64]]


class Lesson(Protocol):
    """Batches of one data set at one input size."""

    classes: int

    @property
    def count(self) -> int:
        """Samples of an epoch."""
        ...

    def batch(self, chosen: NDArray[np.int64], rng: np.random.Generator, /) -> Batch:
        """Return inputs and targets of the chosen samples, each varied at random."""
        ...

    @property
    def held_out(self) -> int:
        """Samples to validate on."""
        ...

    def validation(self, start: int, stop: int, /) -> Batch:
        """Return inputs and targets of some validation samples, nothing varied."""
        ...


class ClassLesson:
    """Samples with one class each.

    Args:
        dataset: with labelled splits.
        encoding: of the network's input.
        cache: of prepared samples.
    """

    def __init__(self, dataset: Dataset, encoding: Encoding, cache: ResizedSplits) -> None:
        self.classes = dataset.task.classes
        self._encoding = encoding
        self._samples = {split: cache.get(dataset, split, encoding) for split in ("train", "validation")}
        self._labels = {split: cast(LabelledSamples, dataset.splits[split]).labels for split in self._samples}

    @property
    def count(self) -> int:
        """Training samples."""
        return len(self._samples["train"])

    def batch(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Return inputs and labels of the chosen training samples."""
        return self._encoding.encode(self._varied(self._samples["train"], chosen, rng)), self._labels["train"][chosen]

    @property
    def held_out(self) -> int:
        """Validation samples."""
        return len(self._samples["validation"])

    def validation(self, start: int, stop: int) -> Batch:
        """Return inputs and labels."""
        return self._encoding.encode(self._samples["validation"][start:stop]), self._labels["validation"][start:stop]

    def _varied(self, samples: NDArray[Any], chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        return np.asarray(samples[chosen])


class ImageLesson(ClassLesson):
    """Pictures with one class each, shifted, mirrored and cut out at random.

    Args:
        dataset: of pictures.
        encoding: size and normalisation of the input.
        cache: of resized pictures.
        augmentation: what is varied.
    """

    def __init__(
        self, dataset: ImageDataset, encoding: Encoding, cache: ResizedSplits, augmentation: Augmentation
    ) -> None:
        super().__init__(dataset, encoding, cache)
        self._augmentation = augmentation
        self._fill = np.rint(np.asarray(dataset.mean) * 255.0).astype(np.uint8)

    def _varied(self, samples: NDArray[Any], chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        return self._augmentation.draw(samples, chosen, self._fill, rng)


def make_lesson(dataset: Dataset, encoding: Encoding, cache: ResizedSplits, augmentation: Augmentation) -> Lesson:
    """Return the lesson of the data's task."""
    makers: Mapping[str, Callable[[], Lesson]] = {
        "image_classification": lambda: ImageLesson(cast(ImageDataset, dataset), encoding, cache, augmentation),
        "text_classification": lambda: ClassLesson(dataset, encoding, cache),
    }
    return makers[dataset.task.kind]()
