"""How shared weights are trained; needs no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nas.accuracy.augment import Augmentation
from nas.errors import ConfigError


@dataclass(frozen=True)
class SupernetRecipe:
    """AdamW under a warm-up and a cosine to zero; every step trains the widest network, the narrowest and random ones.

    Args:
        passes: over the training pictures.
        batch_size: pictures per step.
        learning_rate: peak.
        weight_decay: of weights with two or more dimensions.
        warmup_passes: over which the learning rate grows from near 0; then a cosine to zero.
        subnetworks: random ones per step, besides the widest and the narrowest.
        label_smoothing: share of the target spread over all classes.
        augment: ``none``, ``crop`` or ``crop_flip``.
        crop_share: largest shift of a crop as a share of the side.
        clip_norm: largest gradient norm of a step.
    """

    passes: int = 40
    batch_size: int = 32
    learning_rate: float = 8e-3
    weight_decay: float = 0.01
    warmup_passes: float = 1.0
    subnetworks: int = 2
    label_smoothing: float = 0.1
    augment: Literal["none", "crop", "crop_flip"] = "none"
    crop_share: float = 0.125
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"accuracy.{name}={getattr(self, name)}; expected a number above 0")
        if self.subnetworks < 0:
            raise ConfigError(f"accuracy.subnetworks={self.subnetworks}; expected 0 or more")
        if not 0 <= self.warmup_passes < self.passes:
            raise ConfigError(f"accuracy.warmup_passes={self.warmup_passes}; expected 0 or more and below passes")

    @property
    def augmentation(self) -> Augmentation:
        """What is varied at random in pictures."""
        return Augmentation(
            crop=0.0 if self.augment == "none" else self.crop_share, flip=self.augment == "crop_flip", cutout=0.0
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return asdict(self)

    def rate(self, position: float) -> float:
        """Return the learning rate at a position counted in passes."""
        if position < self.warmup_passes:
            return self.learning_rate * position / self.warmup_passes
        share = (position - self.warmup_passes) / max(self.passes - self.warmup_passes, 1e-9)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
