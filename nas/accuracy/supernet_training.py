"""The training of shared weights, kept on disk after every pass: the sandwich rule with in-place distillation.

The widest network of a step learns the labels; the others learn labels at first and more and more what the widest says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nas.accuracy.checkpoint import Checkpoint, restore_optimizer
from nas.accuracy.lessons import Lesson, make_lesson
from nas.accuracy.resized import ResizedSplits
from nas.accuracy.shared_weights import SharedWeights, SharingSpace
from nas.accuracy.supernet_recipe import SupernetRecipe
from nas.data import Dataset
from nas.errors import CandidateError, ConfigError, ModelFileError
from nas.protocols import DeviceGate


class SupernetTraining:
    """One training under way.

    Args:
        recipe: of the supernet.
        space: whose networks share weights.
        dataset: of pictures with labels.
        cache: of resized pictures.
        seed: of the weights, the order and the networks drawn.
        gate: held around each step.
    """

    def __init__(
        self,
        recipe: SupernetRecipe,
        space: SharingSpace,
        dataset: Dataset,
        cache: ResizedSplits,
        seed: int,
        gate: DeviceGate | None = None,
    ) -> None:
        self._recipe, self._space, self._dataset, self._cache, self._gate = recipe, space, dataset, cache, gate
        self.shared = SharedWeights.fresh(space, seed)
        self._tensors = list(self.shared.tensors.values())
        decay = recipe.weight_decay
        groups = [
            {"params": [one for one in self._tensors if one.ndim >= 2], "weight_decay": decay},
            {"params": [one for one in self._tensors if one.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        self._rng = np.random.default_rng(seed)
        self._lessons: dict[tuple[int, ...], Lesson] = {}
        self.history: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        """True once all passes are done."""
        return len(self.history) >= self._recipe.passes

    def go_on(self, path: Path) -> None:
        """Take up what a file holds.

        Raises:
            ConfigError: it was trained by another recipe or on other data.
            ModelFileError: it is damaged, no supernet, or of another space.
        """
        kept = Checkpoint.load(path)
        facts = kept.facts
        if facts.get("kind") != "supernet":
            raise ModelFileError(f"{path} is no supernet; expected a file that accuracy=supernet wrote")
        if facts["data"] != self._dataset.fingerprint:
            raise ConfigError(f"{path} was trained on other data; name another accuracy.file, or leave it out")
        theirs, ours = facts["recipe"], self._recipe.to_dict()
        changed = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        if changed:
            told = " ".join(f"accuracy.{name}={theirs.get(name)}" for name in changed)
            raise ConfigError(f"{path} was trained with {told}; give these, or name another accuracy.file")
        self.shared.load(kept.weights, str(path))
        if kept.optimizer:
            restore_optimizer(self._optimizer, kept.optimizer)
        self._rng.bit_generator.state = facts["order"]
        self.history = list(facts["history"])

    def run(self, path: Path, threads: int = 1) -> None:
        """Train to the end and write the file after every pass.

        Args:
            path: file, replaced whole.
            threads: of torch; the former number is set again afterwards.

        Raises:
            CandidateError: ``nan`` if a loss is not finite.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            while not self.finished:
                self.history.append(self._pass())
                self._keep(path)
        finally:
            torch.set_num_threads(before)

    def _keep(self, path: Path) -> None:
        # What is finished needs no optimizer any more.
        optimizer = {} if self.finished else self._optimizer.state_dict()["state"]
        facts = {
            "kind": "supernet",
            "space": self._space.name,
            "data": self._dataset.fingerprint,
            "recipe": self._recipe.to_dict(),
            "order": self._rng.bit_generator.state,
            "history": self.history,
        }
        Checkpoint(self.shared.tensors, {}, optimizer, torch.get_rng_state(), facts).save(path)

    def _pass(self) -> dict[str, float]:
        recipe, done, began = self._recipe, len(self.history), time.monotonic()
        order = self._rng.permutation(len(self._dataset.splits["train"]))
        steps = max(len(order) // recipe.batch_size, 1)
        losses: list[list[float]] = []
        for step in range(steps):
            rate = recipe.rate(done + (step + 1) / steps)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            held: AbstractContextManager[None] = self._gate.training() if self._gate is not None else nullcontext()
            with held:
                losses.append(self._step(order[step * recipe.batch_size : (step + 1) * recipe.batch_size]))
        widest, others = np.mean([one[0] for one in losses]), np.mean([one[1:] for one in losses])
        return {"loss": float(widest), "others_loss": float(others), "seconds": time.monotonic() - began}

    def _step(self, chosen: NDArray[np.int64]) -> list[float]:
        networks = self._space.sandwich(self._rng, self._recipe.subnetworks)
        lesson = self._lesson(self._space.input_size(networks[0]))
        given, answers = lesson.batch(chosen, self._rng)
        inputs, targets = torch.from_numpy(given), torch.from_numpy(answers)
        self._optimizer.zero_grad(set_to_none=True)
        taught: Tensor | None = None
        losses = []
        for network in networks:
            logits = self.shared.logits(network, inputs)
            if taught is None:
                loss = functional.cross_entropy(logits, targets, label_smoothing=self._recipe.label_smoothing)
                taught = logits.detach().softmax(dim=-1)
            else:
                # What an untrained network says is nothing, and weights that learn to say it hold the widest back too.
                told = functional.cross_entropy(logits, targets, label_smoothing=self._recipe.label_smoothing)
                share = len(self.history) / self._recipe.passes
                loss = share * functional.cross_entropy(logits, taught) + (1.0 - share) * told
            if not math.isfinite(loss.item()):
                raise CandidateError("nan", f"the supernet's loss is {loss.item()} in pass {len(self.history) + 1}")
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
        nn.utils.clip_grad_norm_([one for one in self._tensors if one.grad is not None], self._recipe.clip_norm)
        self._optimizer.step()
        return losses

    def _lesson(self, size: tuple[int, ...]) -> Lesson:
        if size not in self._lessons:
            encoding = self._dataset.preprocessing(*size)
            self._lessons[size] = make_lesson(self._dataset, encoding, self._cache, self._recipe.augmentation)
        return self._lessons[size]


def batches(lesson: Lesson, count: int, size: int) -> Iterator[Tensor]:
    """Yield training inputs, the same ones every time, at most ``count`` in batches of ``size``."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(lesson.count)[:count]
    for start in range(0, len(chosen), size):
        yield torch.from_numpy(lesson.batch(chosen[start : start + size], rng)[0])


def right_share(module: nn.Module, lesson: Lesson) -> float | None:
    """Return the share of validation samples that the module gets right, or None for outputs that are not finite."""
    right = 0
    with torch.inference_mode():
        for start in range(0, lesson.held_out, lesson.validation_batch):
            inputs, targets = lesson.validation(start, start + lesson.validation_batch)
            logits = module(torch.from_numpy(inputs))
            if not torch.isfinite(logits).all():
                return None
            right += int((logits.argmax(dim=-1).numpy() == targets).sum())
    return right / lesson.held_out
