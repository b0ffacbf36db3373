"""What a training says of itself; needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did.

    Args:
        epoch: counted from 1.
        loss: mean training loss, label smoothing included.
        learning_rate: of its last step.
        accuracy: on the validation samples, 0 to 1; of a language model the share of next tokens that it puts first.
        seconds: spent in steps and validation, waits for the gate left out.
        perplexity: of a language model, per token on the validation text; else None.
    """

    epoch: int
    loss: float
    learning_rate: float
    accuracy: float
    seconds: float
    perplexity: float | None = None

    @property
    def merit(self) -> float:
        """By what epochs are compared, larger is better."""
        return self.accuracy if self.perplexity is None else -self.perplexity


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of a training.

    Args:
        accuracy_fp32: share of validation pictures that the float model left behind gets right, 0 to 1.
        epochs_run: epochs begun.
        seconds: spent in steps and validation, waits for the gate left out.
        history: one record per epoch.
        stopped_early: True if fewer epochs ran than the recipe has.
        stop_reason: ``patience``, ``deadline`` or empty.
        best_epoch: epoch whose weights were kept, counted from 1; 0 for those that were there before.
        perplexity_fp32: of the language model left behind, per token on the validation text; else None.
    """

    accuracy_fp32: float
    epochs_run: int
    seconds: float
    history: tuple[EpochRecord, ...] = field(default_factory=tuple)
    stopped_early: bool = False
    stop_reason: str = ""
    best_epoch: int = 0
    perplexity_fp32: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)
