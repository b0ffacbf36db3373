"""Whether two sessions give the same answers on real inputs: equal top-1, and how far the logits lie apart.

Bytes of outputs say little of networks with float operators, where two runtimes sum in another order and a value near
the middle between two quanta may fall to either side; what a user sees is the class or the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.protocols import Session
from nas.runtime.inputs import empty_inputs

Logits = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The logits of one session beside those of a reference, answer by answer.

    Args:
        same: True where the largest logit is that of the same class, shape (answers,).
        gaps: largest difference of two logits as a share of the range of the reference's logits for that input.
        margins: how far the reference's largest logit is ahead of its second, as a share of the same range.
    """

    same: NDArray[np.bool_]
    gaps: Logits
    margins: Logits

    @property
    def answers(self) -> int:
        """How many were compared."""
        return len(self.same)

    @property
    def equal(self) -> int:
        """How many have the same top-1."""
        return int(self.same.sum())

    def gap(self, percent: float) -> float:
        """Return the gap that so many percent of the answers do not exceed; 100 gives the largest."""
        return float(np.percentile(self.gaps, percent))


def compare_answers(ours: NDArray[np.floating], reference: NDArray[np.floating]) -> Comparison:
    """Compare logits of shape (answers, classes) with a reference's.

    Raises:
        ValueError: no answers, fewer than two classes, other shapes, or numbers that are not finite.
    """
    if ours.shape != reference.shape or ours.ndim != 2 or len(ours) == 0 or ours.shape[1] < 2:
        raise ValueError(
            f"logits of shape {ours.shape} and {reference.shape}; expected twice the same (answers, classes), with one "
            "answer and two classes at least"
        )
    mine, theirs = ours.astype(np.float64), reference.astype(np.float64)
    if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        raise ValueError("logits are not finite; answers of such a network cannot be compared")
    ordered = np.sort(theirs, axis=1)
    # Equal logits throughout have no range, and are equally good an answer.
    span = np.maximum(ordered[:, -1] - ordered[:, 0], np.finfo(np.float64).tiny)
    return Comparison(
        same=mine.argmax(axis=1) == theirs.argmax(axis=1),
        gaps=np.abs(mine - theirs).max(axis=1) / span,
        margins=(ordered[:, -1] - ordered[:, -2]) / span,
    )


def answer_each(session: Session, samples: NDArray[np.generic]) -> NDArray[np.floating]:
    """Return the logits of all samples, each given alone, as a shipped model is run.

    Args:
        session: model with one input, whose first output is the logits of shape (batch, classes).
        samples: as the network reads them, such as (n, channels, height, width).
    """
    (name,) = session.inputs
    return np.concatenate([session.run({name: sample[None]})[0] for sample in samples])


def continue_each(session: Session, windows: NDArray[np.int64], prompt: int) -> NDArray[np.floating]:
    """Return the logits of next tokens, each window read as a prompt and then token by token with its cache.

    What follows is always the text's own token, whatever was the best, so that two sessions read the same.

    Args:
        session: language model of ``input`` (1, tokens) and caches into logits and caches in the same order.
        windows: tokens of shape (windows, length).
        prompt: tokens that are read at once; the rest comes one by one.

    Returns:
        Shape (windows * (length - prompt + 1), vocabulary).

    Raises:
        ValueError: the prompt does not fit.
    """
    length = windows.shape[1]
    if not 1 <= prompt <= length:
        raise ValueError(f"a prompt of {prompt} tokens; expected 1 to {length}, the length of the windows")
    said: list[NDArray[np.floating]] = []
    for window in windows:
        cache = empty_inputs(session.inputs, {"input"})
        parts: Sequence[NDArray[np.int64]] = np.split(window[None], range(prompt, length), axis=1)
        for part in parts:
            logits, *grown = session.run({"input": part, **cache})
            cache = dict(zip(cache, grown, strict=True))
            said.append(logits[0, -1:])
    return np.concatenate(said)
