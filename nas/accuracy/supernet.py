"""One set of weights for a whole space: trained once, then any network's accuracy in about a second."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import cast

from torch import nn

from nas.accuracy.lessons import make_lesson
from nas.accuracy.records import TrainingResult
from nas.accuracy.resized import ResizedSplits
from nas.accuracy.shared_weights import SharedWeights, SharingSpace, recalibrate
from nas.accuracy.supernet_recipe import SupernetRecipe
from nas.accuracy.supernet_training import SupernetTraining, batches, right_share
from nas.accuracy.training import ShortTraining
from nas.architecture import Architecture
from nas.data import Dataset, Encoding
from nas.errors import CandidateError, ConfigError, ModelFileError
from nas.protocols import DeviceGate, SearchSpace, WeightSharing

# What a candidate's own training has in common with that of the shared weights.
_AS_SHARED = ("batch_size", "weight_decay", "label_smoothing", "augment", "crop_share", "clip_norm", "threads")


@dataclass(frozen=True)
class Supernet(SupernetRecipe):
    """Weights that all networks of a space share, by the sandwich rule with in-place distillation.

    Every step trains the widest network on the labels, and the narrowest and some random ones first on labels too,
    later on what the widest says (Yu et al. 2020, section 3; Cai et al. 2020 for kernels and depths). A candidate takes
    its part of the weights, its batch norms are recalibrated, and it is scored. With ``finetune_epochs`` it is then
    trained on its own from there, by the recipe of ``ShortTraining`` without a warm-up, and keeps what it had where
    that was better on validation.

    Args:
        file: of the weights; trained where it does not exist, gone on with where it is unfinished; None makes a name in
            ``folder`` of space, data, recipe and seed.
        folder: of files without a name.
        recalibration_images: training pictures for a candidate's batch norms.
        finetune_epochs: of a candidate, from its part of the weights; 0 for none.
        finetune_rate: peak of the learning rate then, which falls to zero in a cosine.
        threads: torch threads while training.
    """

    file: str | None = None
    folder: str = "runs/supernets"
    recalibration_images: int = 512
    finetune_epochs: int = 0
    finetune_rate: float = 1e-3
    threads: int = 1
    _resized: ResizedSplits = field(default_factory=ResizedSplits, init=False, repr=False, compare=False)
    _loaded: dict[Path, SharedWeights] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("recalibration_images", "threads", "finetune_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"accuracy.{name}={getattr(self, name)}; expected a number above 0")
        if self.finetune_epochs < 0:
            raise ConfigError(f"accuracy.finetune_epochs={self.finetune_epochs}; expected 0 or more")

    @cached_property
    def recipe(self) -> SupernetRecipe:
        """What the shared weights depend on, besides space, data and seed."""
        return SupernetRecipe(**{one.name: getattr(self, one.name) for one in fields(SupernetRecipe)})

    @property
    def key(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over what an accuracy depends on, a file's name among it."""
        tuned = (self.finetune_epochs, self.finetune_rate) if self.finetune_epochs else ()
        return _digest("supernet", self.recipe.to_dict(), self.file, self.recalibration_images, *tuned)

    def path(self, space: SearchSpace, dataset: Dataset, seed: int) -> Path:
        """Return the file of the weights."""
        if self.file is not None:
            return Path(self.file)
        digest = _digest(repr(space), dataset.fingerprint, self.recipe.to_dict(), seed)
        return Path(self.folder) / f"{space.name}-{dataset.name}-{digest}.safetensors"

    def prepare(self, space: SearchSpace, dataset: Dataset, seed: int, gate: DeviceGate | None = None) -> Path:
        """Train the shared weights unless their file is finished; return it. A training that was cut goes on.

        Raises:
            ConfigError: the space shares no weights, or the file's recipe or data are others.
            ModelFileError: the file is damaged or of another space.
            CandidateError: ``nan`` if the training diverged.
        """
        path = self.path(space, dataset, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another search may want the same weights: it waits here and then finds them.
        with _alone(path):
            training = SupernetTraining(self.recipe, sharing(space), dataset, self._resized, seed, gate)
            if path.is_file():
                training.go_on(path)
            training.run(path, self.threads)
        return path

    def adopt(
        self,
        module: nn.Module,
        space: SearchSpace,
        architecture: Architecture,
        dataset: Dataset,
        preprocessing: Encoding,
        seed: int,
        gate: DeviceGate | None = None,
    ) -> TrainingResult:
        """Give a network its part of the shared weights, recalibrate its batch norms, score it; train it where asked.

        Args:
            module: of the architecture; it is left in eval mode.
            space: of the architecture.
            architecture: whose weights are taken.
            dataset: its ``train`` split recalibrates and trains, its ``validation`` split scores.
            preprocessing: from the samples to the input.
            seed: of the search, which names the file where it has no name, and of the training.
            gate: held in ``training()``, so that nobody computes while a candidate is timed.

        Raises:
            ModelFileError: there is no finished file.
            CandidateError: ``nan`` for outputs that are not finite.
        """
        held: AbstractContextManager[None] = gate.training() if gate is not None else nullcontext()
        with held:
            began = time.monotonic()
            self._shared(sharing(space), dataset, seed).extract(architecture, module)
            lesson = make_lesson(dataset, preprocessing, self._resized, self.augmentation)
            recalibrate(module, batches(lesson, self.recalibration_images, self.batch_size))
            accuracy = right_share(module, lesson)
            if accuracy is None:
                raise CandidateError("nan", "outputs of the network cut out of the supernet are not finite")
            cut_out = TrainingResult(accuracy_fp32=accuracy, epochs_run=0, seconds=time.monotonic() - began)
        if self.finetune_epochs == 0:
            return cut_out
        return self._tuned(cut_out, module, dataset, preprocessing, seed, gate)

    def _tuned(
        self,
        cut_out: TrainingResult,
        module: nn.Module,
        dataset: Dataset,
        preprocessing: Encoding,
        seed: int,
        gate: DeviceGate | None,
    ) -> TrainingResult:
        kept = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        shared = {name: getattr(self, name) for name in _AS_SHARED}
        training = ShortTraining(
            epochs=self.finetune_epochs, learning_rate=self.finetune_rate, warmup_epochs=0.0, patience=None, **shared
        )
        tuned = training.train(module, dataset, preprocessing, seed, gate, self._resized)
        seconds = cut_out.seconds + tuned.seconds
        if tuned.accuracy_fp32 is not None and tuned.accuracy_fp32 >= (cut_out.accuracy_fp32 or 0.0):
            return replace(tuned, seconds=seconds)
        module.load_state_dict(kept)
        return replace(tuned, accuracy_fp32=cut_out.accuracy_fp32, best_epoch=0, seconds=seconds)

    def train(
        self,
        module: nn.Module,
        dataset: Dataset,
        preprocessing: Encoding,
        seed: int,
        gate: DeviceGate | None = None,
    ) -> TrainingResult:
        """Refuse a network that is not of the space, such as a baseline without weights.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"accuracy=supernet trains no {type(module).__name__} of its own; give the baseline weights, or search "
            "with accuracy=short_training"
        )

    def _shared(self, space: SharingSpace, dataset: Dataset, seed: int) -> SharedWeights:
        path = self.path(space, dataset, seed)
        if path not in self._loaded:
            if not path.is_file():
                raise ModelFileError(f"no supernet at {path}; nas search accuracy=supernet trains one first")
            training = SupernetTraining(self.recipe, space, dataset, self._resized, seed)
            training.go_on(path)
            if not training.finished:
                raise ModelFileError(
                    f"the supernet at {path} is not trained to its end; the same search goes on with it"
                )
            self._loaded[path] = training.shared
        return self._loaded[path]


def sharing(space: SearchSpace) -> SharingSpace:
    """Return the space as one that shares weights.

    Raises:
        ConfigError: it does not.
    """
    if not isinstance(space, WeightSharing):
        raise ConfigError(
            f"space '{space.name}' shares no weights, which accuracy=supernet needs; choose space=convnet, "
            "transformer or hybrid, or accuracy=short_training"
        )
    return cast(SharingSpace, space)


def _digest(*told: object) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
