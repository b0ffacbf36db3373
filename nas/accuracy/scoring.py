"""Accuracy of a model file: the share of samples whose largest logit is the right one."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nas.data import Dataset, Encoding, LabelledSamples
from nas.errors import CandidateError
from nas.protocols import Session


def score_split(session: Session, dataset: Dataset, split: str, encoding: Encoding) -> float:
    """Return the task's metric of a loaded model on a split."""
    samples = cast(LabelledSamples, dataset.splits[split])
    return score_session(session, encoding.prepare(samples.samples), samples.labels, encoding)


def score_session(
    session: Session,
    images: NDArray[Any],
    labels: NDArray[np.int64],
    preprocessing: Encoding,
    batch: int = 64,
) -> float:
    """Return the share of top-1 answers that are right, 0 to 1.

    Args:
        session: model with one input, such as (batch, channels, height, width); its first output is the logits of shape
            (batch, classes).
        images: samples as ``preprocessing.prepare`` makes them, such as (images, height, width, channels).
        labels: class indices, shape (images,).
        preprocessing: the same that training used.
        batch: pictures per run where the model's batch size is free; a fixed batch size is obeyed.

    Raises:
        ValueError: no pictures, or not one label per picture.
        CandidateError: ``nan`` for logits that are not finite, ``error`` for outputs of another shape.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{len(images)} pictures and {len(labels)} labels; expected as many of each, and at least one")
    name, fixed = _input(session)
    size = fixed or batch
    right = 0
    for start in range(0, len(images), size):
        part = images[start : start + size]
        count = len(part)
        if fixed and count < fixed:
            part = np.concatenate([part, np.repeat(part[-1:], fixed - count, axis=0)])
        logits = np.asarray(session.run({name: preprocessing.encode(part)})[0])
        if logits.ndim != 2 or len(logits) != len(part):
            raise CandidateError("error", f"output of shape {logits.shape}; expected ({len(part)}, classes)")
        if not np.isfinite(logits).all():
            raise CandidateError("nan", "the model's logits are not finite")
        right += int((logits[:count].argmax(axis=1) == labels[start : start + count]).sum())
    return right / len(labels)


def _input(session: Session) -> tuple[str, int | None]:
    """Return the name of the single input and its batch size, None where that is free."""
    if len(session.inputs) != 1:
        raise CandidateError("error", f"the model has {len(session.inputs)} inputs; expected one")
    (name, (shape, _)) = next(iter(session.inputs.items()))
    first = shape[0] if shape else None
    return name, first if isinstance(first, int) and first > 0 else None
