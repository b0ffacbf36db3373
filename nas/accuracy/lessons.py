"""What a network is taught, one class per kind of task: batches of inputs with targets, and what counts as good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from nas.accuracy.augment import Augmentation
from nas.accuracy.resized import ResizedSplits
from nas.data import Dataset, Encoding, ImageDataset, LabelledSamples
from nas.data.language import LanguageDataset, WindowEncoding

Batch = tuple[NDArray[Any], NDArray[np.int64]]


class Lesson(Protocol):
    """Batches of one data set at one input size.

    Attributes:
        classes: last axis of the network's output.
        metric: ``accuracy`` or ``perplexity``: by what epochs are compared.
        validation_batch: samples that fit into memory at once.
    """

    classes: int
    metric: str
    validation_batch: int

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

    validation_batch = 256

    def __init__(self, dataset: Dataset, encoding: Encoding, cache: ResizedSplits) -> None:
        self.classes, self.metric = dataset.task.classes, dataset.task.metric
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


class LanguageLesson:
    """Windows of a text, the next token being each token's target.

    An epoch reads as many tokens as the text has; where its windows begin is drawn anew each time. Validation reads the
    whole text once, in windows side by side.

    Args:
        dataset: of running text.
        encoding: how long the windows are.
        cache: of windows.
    """

    validation_batch = 16

    def __init__(self, dataset: LanguageDataset, encoding: WindowEncoding, cache: ResizedSplits) -> None:
        self.classes, self.metric = dataset.task.classes, dataset.task.metric
        self._encoding = encoding
        self._text = dataset.splits["train"].tokens
        self._windows = cache.get(dataset, "validation", encoding)

    @property
    def count(self) -> int:
        """Windows that fit into the training text side by side."""
        return (len(self._text) - 1) // self._encoding.context

    @property
    def held_out(self) -> int:
        """Validation windows."""
        return len(self._windows)

    def batch(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Return windows near the chosen places, moved by up to a window."""
        context = self._encoding.context
        starts = chosen * context + rng.integers(0, context, len(chosen))
        starts = np.minimum(starts, len(self._text) - context - 1)
        windows = self._text[starts[:, None] + np.arange(context + 1)]
        return self._encoding.encode(windows), self._encoding.targets(windows)

    def validation(self, start: int, stop: int) -> Batch:
        """Return validation windows."""
        windows = self._windows[start:stop]
        return self._encoding.encode(windows), self._encoding.targets(windows)


def make_lesson(dataset: Dataset, encoding: Encoding, cache: ResizedSplits, augmentation: Augmentation) -> Lesson:
    """Return the lesson of the data's task."""
    makers: Mapping[str, Callable[[], Lesson]] = {
        "image_classification": lambda: ImageLesson(cast(ImageDataset, dataset), encoding, cache, augmentation),
        "text_classification": lambda: ClassLesson(dataset, encoding, cache),
        "language_model": lambda: LanguageLesson(cast(LanguageDataset, dataset), cast(WindowEncoding, encoding), cache),
    }
    return makers[dataset.task.kind]()
