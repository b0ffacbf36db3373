"""Accuracy or perplexity of a model file, as the runtime that ships computes it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nas.data import Dataset, Encoding, LabelledSamples
from nas.data.language import WindowEncoding
from nas.errors import CandidateError
from nas.protocols import Session
from nas.runtime.inputs import empty_inputs


def score_split(session: Session, dataset: Dataset, split: str, encoding: Encoding) -> float:
    """Return the task's metric of a loaded model on a split."""
    if dataset.task.kind == "language_model":
        windows = encoding.prepare(dataset.splits[split].samples)
        return perplexity_session(session, encoding.encode(windows), cast(WindowEncoding, encoding).targets(windows))
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


def perplexity_session(session: Session, tokens: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    """Return the perplexity per token, exp of the mean negative log-likelihood of the targets.

    Args:
        session: model of ``input`` (1, tokens) and caches, given empty, into logits (1, tokens, vocabulary).
        tokens: windows, shape (windows, context); each is read with nothing before it.
        targets: next tokens, of the same shape.

    Raises:
        ValueError: no window.
        CandidateError: ``nan`` for logits that are not finite, ``error`` for outputs of another shape.
    """
    if len(tokens) == 0:
        raise ValueError("no window to score; expected at least one")
    empty = empty_inputs(session.inputs, {"input"})
    nats = 0.0
    for window, following in zip(tokens, targets, strict=True):
        logits = np.asarray(session.run({"input": window[None], **empty})[0], np.float64)
        if logits.ndim != 3 or logits.shape[:2] != (1, len(window)):
            raise CandidateError("error", f"output of shape {logits.shape}; expected (1, {len(window)}, vocabulary)")
        if not np.isfinite(logits).all():
            raise CandidateError("nan", "the model's logits are not finite")
        rows = logits[0] - logits[0].max(axis=1, keepdims=True)
        likely = rows[np.arange(len(window)), following] - np.log(np.exp(rows).sum(axis=1))
        nats -= float(likely.sum())
    return float(np.exp(nats / targets.size))


def _input(session: Session) -> tuple[str, int | None]:
    """Return the name of the single input and its batch size, None where that is free."""
    if len(session.inputs) != 1:
        raise CandidateError("error", f"the model has {len(session.inputs)} inputs; expected one")
    (name, (shape, _)) = next(iter(session.inputs.items()))
    first = shape[0] if shape else None
    return name, first if isinstance(first, int) and first > 0 else None
