"""Short training of one candidate on the CPU: one recipe for convnets and transformers, by seed repeatable."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nas.accuracy.augment import Augmentation
from nas.accuracy.checkpoint import Checkpoint, restore_optimizer, restore_weights
from nas.accuracy.lessons import Lesson, make_lesson
from nas.accuracy.records import EpochRecord, TrainingResult
from nas.accuracy.resized import ResizedSplits
from nas.data import Dataset, Encoding
from nas.errors import CandidateError, ConfigError, ModelFileError
from nas.protocols import DeviceGate

AUGMENTS = ("none", "crop", "crop_flip")


@dataclass(frozen=True)
class ShortTraining:
    """AdamW with linear warm-up and a cosine to zero (Loshchilov and Hutter 2017 and 2019), cross-entropy loss.

    Which weights are kept: those of the last epoch, unless an earlier epoch was strictly better on validation.
    Early stop: after ``patience`` epochs in which validation did not improve. Deadline: as soon as one epoch's time
    is known, the number of epochs is lowered to what fits into ``max_seconds``, so that the learning rate still ends at
    zero; a step that begins after the deadline is not taken.

    Args:
        epochs: passes over the training pictures.
        batch_size: pictures per step; a last partial batch of an epoch is left out, the order is new each epoch.
        learning_rate: peak.
        weight_decay: of weights with two or more dimensions; norms and biases are not decayed.
        warmup_epochs: over which the learning rate grows from near 0, a fraction is fine.
        label_smoothing: share of the target spread over all classes.
        patience: epochs without improvement before stopping; None never stops.
        augment: ``none``, ``crop`` or ``crop_flip``.
        crop_share: largest shift of a crop as a share of the side.
        cutout_share: side of the cut-out square as a share of the side; 0 for none.
        clip_norm: largest gradient norm.
        bf16: compute steps in bfloat16 where torch's autocast deems it safe; validation stays in fp32.
        channels_last: keep pictures and convolution weights in NHWC while training.
        threads: torch threads while training; the former number is set again afterwards.
        max_seconds: deadline in seconds of training, waits for the gate left out; None for none.
    """

    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.1
    patience: int | None = 3
    augment: Literal["none", "crop", "crop_flip"] = "none"
    crop_share: float = 0.125
    cutout_share: float = 0.0
    clip_norm: float = 1.0
    bf16: bool = False
    channels_last: bool = True
    threads: int = 1
    max_seconds: float | None = None
    _resized: ResizedSplits = field(default_factory=ResizedSplits, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.augment not in AUGMENTS:
            raise ConfigError(f"accuracy.augment={self.augment}; expected one of {', '.join(AUGMENTS)}")
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "threads"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"accuracy.{name}={getattr(self, name)}; expected a number above 0")
        for name in ("patience", "max_seconds"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ConfigError(f"accuracy.{name}={getattr(self, name)}; expected a number above 0, or null for none")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ConfigError(f"accuracy.warmup_epochs={self.warmup_epochs}; expected 0 or more and below epochs")

    @property
    def key(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over the recipe; the number of threads is no part of it."""
        recipe = {
            setting.name: getattr(self, setting.name)
            for setting in fields(self)
            if setting.init and setting.name != "threads"
        }
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]

    def train(
        self,
        module: nn.Module,
        dataset: Dataset,
        preprocessing: Encoding,
        seed: int,
        gate: DeviceGate | None = None,
        resized: ResizedSplits | None = None,
        until: int | None = None,
        checkpoint: Path | None = None,
    ) -> TrainingResult:
        """Train ``module`` in place and leave it in eval mode with the weights that were kept.

        The same module weights, data, recipe, seed and threads give the same result, also where a training stopped at
        a checkpoint and went on; torch's global random state is as before afterwards.

        Args:
            module: classifier of (batch, channels, height, width) or (batch, tokens) into (batch, classes).
            dataset: its ``train`` and ``validation`` splits are used.
            preprocessing: from the samples to the input.
            seed: of the order, the augmentation and the module's own randomness such as dropout.
            gate: held in ``training()`` around each step, so that nobody trains while a candidate is timed.
            resized: cache of prepared samples shared with others; None keeps one of its own.
            until: stop after this epoch of the schedule, counted from 1; None trains to its end.
            checkpoint: file to go on from where it exists, and to write when ``until`` stops the training; None
                starts afresh and writes nothing.

        Raises:
            ModelFileError: the checkpoint is damaged, or of another recipe or network.
            CandidateError: ``nan`` when a loss, gradient or output is not finite, ``degenerate`` without trainable
                weights, ``error`` for outputs of a wrong shape.
        """
        if until is not None and not 1 <= until <= self.epochs:
            raise ConfigError(f"training until epoch {until}; expected 1 to {self.epochs}, the epochs of the recipe")
        cache = self._resized if resized is None else resized
        lesson = make_lesson(dataset, preprocessing, cache, self.augmentation)
        with _threads(self.threads), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                run = _Run(self, module, lesson, seed, gate)
                if checkpoint is not None and checkpoint.is_file():
                    run.go_on(checkpoint)
                return run.train(until, checkpoint)
            finally:
                module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
                module.zero_grad(set_to_none=True)
                module.eval()

    @property
    def augmentation(self) -> Augmentation:
        """What is varied at random in pictures."""
        return Augmentation(
            crop=0.0 if self.augment == "none" else self.crop_share,
            flip=self.augment == "crop_flip",
            cutout=self.cutout_share,
        )

    def rate(self, position: float, epochs: float) -> float:
        """Return the learning rate at a position counted in epochs, for a run of ``epochs``."""
        if position < self.warmup_epochs:
            return self.learning_rate * position / self.warmup_epochs
        share = (position - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return optimizer groups: weights of two or more dimensions are decayed, norms and biases are not.

    Raises:
        CandidateError: ``degenerate`` if nothing can be trained.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise CandidateError("degenerate", "the network has no trainable weights")
    decayed = [parameter for parameter in trainable if parameter.ndim >= 2]
    spared = [parameter for parameter in trainable if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class _Run:
    """One training under way."""

    def __init__(
        self,
        recipe: ShortTraining,
        module: nn.Module,
        lesson: Lesson,
        seed: int,
        gate: DeviceGate | None,
    ) -> None:
        self._recipe = recipe
        self._module = module
        self._lesson = lesson
        self._rng = np.random.default_rng(seed)
        self._gate = gate
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        module.to(memory_format=self._layout)  # type: ignore[call-overload]
        groups = parameter_groups(module, recipe.weight_decay)
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        self._epochs = recipe.epochs
        self._seconds = 0.0
        self._history: list[EpochRecord] = []
        self._best, self._best_epoch, self._reason = -math.inf, 0, ""
        self._best_state: dict[str, Tensor] = {}

    def go_on(self, path: Path) -> None:
        """Take up what a checkpoint holds.

        Raises:
            ModelFileError: it is damaged, or of another recipe or network.
        """
        kept = Checkpoint.load(path)
        facts = kept.facts
        if facts["recipe"] != self._recipe.key:
            raise ModelFileError(f"{path} was written by recipe {facts['recipe']}; this one is {self._recipe.key}")
        restore_weights(self._module, kept.weights, path)
        restore_optimizer(self._optimizer, kept.optimizer)
        torch.set_rng_state(kept.random)
        self._rng.bit_generator.state = facts["order"]
        self._history = [EpochRecord(**record) for record in facts["history"]]
        self._best, self._best_epoch = facts["best"], facts["best_epoch"]
        self._best_state = dict(kept.best or kept.weights)
        self._epochs, self._seconds, self._reason = facts["epochs"], facts["seconds"], facts["reason"]

    def _keep(self, path: Path) -> None:
        """Write the state after the last epoch, before the best weights take its place."""
        last = self._best_epoch == len(self._history)
        Checkpoint(
            weights=self._module.state_dict(),
            best={} if last else self._best_state,
            optimizer=self._optimizer.state_dict()["state"],
            random=torch.get_rng_state(),
            facts={
                "recipe": self._recipe.key,
                "order": self._rng.bit_generator.state,
                "history": [asdict(record) for record in self._history],
                "best": self._best,
                "best_epoch": self._best_epoch,
                "epochs": self._epochs,
                "seconds": self._seconds,
                "reason": self._reason,
            },
        ).save(path)

    def train(self, until: int | None = None, checkpoint: Path | None = None) -> TrainingResult:
        stop = self._recipe.epochs if until is None else until
        while len(self._history) < min(self._epochs, stop) and self._reason != "patience":
            record = self._epoch()
            self._history.append(record)
            last = len(self._history) == self._epochs
            if record.merit > self._best or (last and record.merit >= self._best):
                self._best, self._best_epoch = record.merit, record.epoch
                state = self._module.state_dict()
                self._best_state = {name: tensor.detach().clone() for name, tensor in state.items()}
            elif self._recipe.patience is not None and record.epoch - self._best_epoch >= self._recipe.patience:
                self._reason = "patience"
                break
            if self._fit_into_deadline():
                self._reason = "deadline"
        if checkpoint is not None and until is not None:
            self._keep(checkpoint)
        if self._best_epoch != len(self._history):
            self._module.load_state_dict(self._best_state)
        early = len(self._history) < min(self._recipe.epochs, stop)
        kept = self._history[self._best_epoch - 1]
        return TrainingResult(
            accuracy_fp32=kept.accuracy,
            perplexity_fp32=kept.perplexity,
            epochs_run=len(self._history),
            seconds=self._seconds,
            history=tuple(self._history),
            stopped_early=early or self._reason == "deadline",
            stop_reason=self._reason,
            best_epoch=self._best_epoch,
        )

    def _fit_into_deadline(self) -> bool:
        """Lower the number of epochs to what fits; True where the deadline has cut the recipe."""
        limit = self._recipe.max_seconds
        if limit is None:
            return False
        done = len(self._history)
        self._epochs = min(self._epochs, max(done, int(limit / (self._seconds / done))))
        return self._epochs < self._recipe.epochs or self._seconds > limit

    def _late(self) -> bool:
        return self._recipe.max_seconds is not None and self._seconds >= self._recipe.max_seconds

    def _epoch(self) -> EpochRecord:
        began, done = self._seconds, len(self._history)
        count, size = self._lesson.count, self._recipe.batch_size
        order = self._rng.permutation(count)
        steps = max(count // size, 1)
        losses: list[float] = []
        self._module.train()
        for step in range(steps):
            if losses and self._late():
                break
            rate = self._recipe.rate(done + (step + 1) / steps, self._epochs)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            losses.append(self._step(order[step * size : (step + 1) * size]))
        accuracy, perplexity = self._validate()
        return EpochRecord(done + 1, float(np.mean(losses)), rate, accuracy, self._seconds - began, perplexity)

    def _step(self, chosen: NDArray[np.int64]) -> float:
        with self._turn():
            inputs, targets = self._lesson.batch(chosen, self._rng)
            self._optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._recipe.bf16):
                logits = self._module(self._input(inputs))
            self._check_shape(logits, targets)
            loss = functional.cross_entropy(
                logits.float().flatten(0, -2),
                torch.from_numpy(targets).flatten(),
                label_smoothing=self._recipe.label_smoothing,
            )
            value = loss.item()
            if not math.isfinite(value):
                raise CandidateError("nan", f"training loss is {value} in epoch {len(self._history) + 1}")
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_norm).item()
            if not math.isfinite(norm):
                raise CandidateError("nan", f"gradient norm is {norm} in epoch {len(self._history) + 1}")
            self._optimizer.step()
        return value

    def _validate(self) -> tuple[float, float | None]:
        """Return the share of right answers and, of a language model, the perplexity."""
        self._module.eval()
        right, total, nats = 0, 0, 0.0
        for start in range(0, self._lesson.held_out, self._lesson.validation_batch):
            with self._turn(), torch.inference_mode():
                inputs, targets = self._lesson.validation(start, start + self._lesson.validation_batch)
                logits = self._module(self._input(inputs))
                self._check_shape(logits, targets)
                if not torch.isfinite(logits).all():
                    raise CandidateError("nan", f"outputs are not finite after epoch {len(self._history) + 1}")
                right += int((logits.argmax(dim=-1).numpy() == targets).sum())
                total += targets.size
                if self._lesson.metric == "perplexity":
                    flat = torch.from_numpy(targets).flatten()
                    nats += functional.cross_entropy(logits.flatten(0, -2), flat, reduction="sum").item()
        return right / total, math.exp(nats / total) if self._lesson.metric == "perplexity" else None

    def _input(self, batch: NDArray[Any]) -> Tensor:
        inputs = torch.from_numpy(batch)
        return inputs.contiguous(memory_format=self._layout) if inputs.ndim == 4 else inputs

    def _check_shape(self, logits: Tensor, targets: NDArray[np.int64]) -> None:
        expected = (*targets.shape, self._lesson.classes)
        if tuple(logits.shape) != expected:
            raise CandidateError("error", f"output of shape {tuple(logits.shape)}; expected {expected}")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the gate and count the time, the wait for the gate left out."""
        held: AbstractContextManager[None] = self._gate.training() if self._gate is not None else nullcontext()
        with held:
            began = time.monotonic()
            yield
            self._seconds += time.monotonic() - began
