"""One candidate, from cheap to dear: screen, zero-cost scores, training, quantization, timing."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.accuracy.combined import COMBINED, DEFAULT
from nas.accuracy.population import Population
from nas.accuracy.trainers import Resumable, Scorer, SharedTrainer, Trainer
from nas.architecture import Architecture, Precision
from nas.cost_protocols import EnergyModel
from nas.data import Dataset, Encoding
from nas.doubt import PREDICTION, Guess
from nas.errors import CandidateError, ConfigError
from nas.evaluation import Evaluation, EvaluationKey, State
from nas.graph import Graph
from nas.measure.costs import Costs
from nas.measure.target import Target
from nas.measurement import Estimate, Measurement
from nas.progress import InfeasibleError, Progress
from nas.protocols import CostMeter, DeviceGate, Runtime
from nas.screen import NEEDS_NO_TRAINING, Screen
from nas.targets import on_device, split

if TYPE_CHECKING:
    from torch import nn

SCORED = 64  # training samples that zero-cost scores read


def fidelity_key(dataset: Dataset, recipe_key: str, seed: int, calibration_images: int) -> str:
    """Return a 12-digit hash of everything that an accuracy depends on besides the architecture."""
    recipe = [dataset.fingerprint, recipe_key, seed, calibration_images]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


@dataclass
class Evaluator:
    """Evaluates candidates in a worker process.

    Args:
        screen: the cheap constraints; its space builds the networks.
        dataset: train and validation samples.
        accuracy: short training, or a zero-cost score in its place; what is only scored has no accuracy.
        runtime: what ships, and therefore what scores.
        meter: measures costs, or None to predict them.
        energy_model: labelled estimate of the energy, or None.
        fidelity: part of the store's key.
        folder: folder of the study; models go to ``models/<architecture id>`` below it.
        proxies: names of zero-cost scores to note.
        calibration_images: training samples for the activations' ranges.
        seed: of weights and training.
        gate: keeps training and timing apart.
        rungs: epochs after which a candidate may be asked for; the top is the whole training.
        others: further devices on which each candidate is costed.
        population: among whose scores ``combined`` ranks a candidate's, where that is asked for.
    """

    screen: Screen
    dataset: Dataset
    accuracy: Trainer | Scorer
    runtime: Runtime
    meter: CostMeter | None
    energy_model: EnergyModel | None
    fidelity: str
    folder: Path
    proxies: Sequence[str] = ()
    calibration_images: int = 128
    seed: int = 0
    gate: DeviceGate | None = None
    rungs: Sequence[int] = ()
    others: Sequence[Target] = ()
    population: Population | None = None

    def key(self, architecture: Architecture, rung: int | None = None) -> EvaluationKey:
        """Return the key under which the store keeps this candidate at a rung; None is the top."""
        below = rung is not None and rung < len(self.rungs)
        fidelity = f"{self.fidelity}@{self.rungs[rung]}" if below and rung is not None else self.fidelity
        devices = (self.screen, *(target.screen for target in self.others))
        key = "+".join(screen.device.key for screen in devices)
        return EvaluationKey(architecture.id, fidelity, key, self.runtime.version)

    @property
    def costs(self) -> Costs:
        """What takes costs on all devices; the first one's carry no name."""
        return Costs(self.screen, (Target("", self.screen, self.meter, self.energy_model), *self.others))

    def evaluate(
        self,
        architecture: Architecture,
        rung: int | None = None,
        known: Evaluation | None = None,
        least: Mapping[str, float] | None = None,
        guesses: Mapping[str, Guess] | None = None,
    ) -> Evaluation:
        """Take a candidate through all phases.

        Args:
            architecture: of the space.
            rung: index into ``rungs``, at which its training stops; None, or beyond them, trains to the end.
            known: what the rung below gave; its screening and scores are not made again.
            least: zero-cost score, such as ``proxy_naswot``, to the least value that is trained.
            guesses: of the latency by device, under an empty name on the first or only one. There it is measured only
                where that could change the device's front or what is feasible; elsewhere always.

        Raises:
            CandidateError: it failed; what it wrote so far stays in its folder.
        """
        progress = Progress()
        if known is not None:
            progress = Progress(dict(known.values), dict(known.provenance), dict(known.seconds))
        target = self.folder / "models" / architecture.id
        target.mkdir(parents=True, exist_ok=True)
        state, reason, violations = State.COMPLETE, "", dict[str, float]()
        try:
            self._phases(architecture, target, progress, rung, known is None, least or {}, guesses or {})
        except InfeasibleError as refusal:
            state, reason, violations = State.INFEASIBLE, str(refusal), dict(refusal.violations)
        return Evaluation(
            architecture=architecture,
            key=self.key(architecture, rung),
            state=state,
            values=progress.values,
            provenance=progress.provenance,
            constraints=violations,
            reason=reason,
            seconds=progress.seconds,
            folder=str(target.relative_to(self.folder)) if state is State.COMPLETE else "",
            created=time.time(),
        )

    def _phases(
        self,
        architecture: Architecture,
        target: Path,
        progress: Progress,
        rung: int | None,
        first: bool,
        least: Mapping[str, float],
        guesses: Mapping[str, Guess],
    ) -> None:
        from nas.accuracy.weights import save_weights  # torch is imported by workers only

        space = self.screen.space
        graph = space.lower(architecture)
        module = self._build(architecture)
        preprocessing = self.dataset.preprocessing(*space.input_size(architecture))
        if first:
            for metric, estimate in self.screen.costs(architecture).items():
                progress.note(metric, estimate)
            for name, guess in guesses.items():
                progress.note(on_device(PREDICTION, name), guess.estimate)
            self._check_untrained(module, architecture, target, preprocessing, progress, guesses)
            self._score_proxies(module, graph, preprocessing, progress)
            self._drop(least, progress)
        if isinstance(self.accuracy, Trainer):
            self._train(self.accuracy, module, architecture, preprocessing, progress, target, rung)
        with progress.phase("export"), self._busy():
            save_weights(module, target / "weights.safetensors")
            self._export(module, architecture, target, preprocessing)
        if isinstance(self.accuracy, Trainer):
            with progress.phase("score"), self._busy():
                score = self.score(target / "model.onnx", preprocessing, "validation")
            task = self.dataset.task
            progress.compute(task.metric, score, f"validation {task.unit}, quantized model in {self.runtime.version}")
        else:
            score = progress.values[f"proxy_{self.accuracy.proxy}"]
            progress.compute("proxy_score", score, f"zero-cost proxy {self.accuracy.proxy}; not an accuracy")
        progress.compute("size_kib", (target / "model.onnx").stat().st_size / 1024, "size of the quantized file")
        top = rung is None or rung >= len(self.rungs)
        self.costs.take(target / "model.onnx", architecture, graph, progress, guesses, first, top)
        self._check_objectives(progress)
        self._hold_bounds(progress)

    @staticmethod
    def _drop(least: Mapping[str, float], progress: Progress) -> None:
        """Refuse to train what scores below the least; a score that could not be had refuses nothing."""
        for name, bound in least.items():
            score = progress.values.get(name)
            if score is not None and score < bound:
                raise InfeasibleError(
                    {name: bound - score},
                    f"not trained: {name} {score:.4g} is among the worst so far (below {bound:.4g})",
                )

    def _busy(self) -> AbstractContextManager[None]:
        """Hold the gate's share: work beside a timing slows it by more than the anchor model shows."""
        return self.gate.training() if self.gate is not None else nullcontext()

    def _build(self, architecture: Architecture) -> nn.Module:
        import torch

        torch.manual_seed(self.seed)
        return self.screen.space.build(architecture)

    def _train(
        self,
        trainer: Trainer,
        module: nn.Module,
        architecture: Architecture,
        preprocessing: Encoding,
        progress: Progress,
        target: Path,
        rung: int | None,
    ) -> None:
        with progress.phase("train"):
            if isinstance(trainer, SharedTrainer):
                space = self.screen.space
                trained = trainer.adopt(module, space, architecture, self.dataset, preprocessing, self.seed, self.gate)
            elif self.rungs and isinstance(trainer, Resumable):
                until = self.rungs[rung] if rung is not None and rung < len(self.rungs) else None
                file = target / "checkpoint.safetensors"
                trained = trainer.train(
                    module, self.dataset, preprocessing, self.seed, self.gate, until=until, checkpoint=file
                )
                if until is None:
                    file.unlink(missing_ok=True)
            else:
                trained = trainer.train(module, self.dataset, preprocessing, self.seed, self.gate)
        unit = self.dataset.task.unit
        metric = self.dataset.task.metric
        value = trained.accuracy_fp32 if trained.perplexity_fp32 is None else trained.perplexity_fp32
        progress.compute(f"{metric}_fp32", value, f"validation {unit}, trained network, fp32")
        progress.compute("epochs", float(trained.epochs_run), "epochs trained")

    def _check_untrained(
        self,
        module: nn.Module,
        architecture: Architecture,
        target: Path,
        preprocessing: Encoding,
        progress: Progress,
        guesses: Mapping[str, Guess],
    ) -> None:
        """Refuse what is too slow or too large before it is trained: neither depends on the weights' values."""
        bounds = {name: bound for name, bound in self.screen.bounds.items() if split(name)[0] in NEEDS_NO_TRAINING}
        if not bounds:
            return
        costs: dict[str, Measurement | Estimate] = {}
        with progress.phase("untrained_costs"):
            with self._busy():
                self._export(module, architecture, target, preprocessing)
            size = (target / "model.onnx").stat().st_size / 1024
            costs["size_kib"] = Estimate(size, 0.0, "KiB", "file size", self.screen.device.name, "computed")
            costs |= self.costs.of_untrained(target / "model.onnx", bounds, progress, guesses)
        violated = {}
        for name, bound in bounds.items():
            cost = costs.get(name)
            # The trained model is read again: only what is beyond the bound by more than its own spread is refused.
            slack = 3 * cost.spread if isinstance(cost, Measurement) else 0.01 * bound
            if cost is not None and cost.value - slack > bound:
                progress.note(name, cost)
                violated[name] = cost.value - bound
        if violated:
            raise InfeasibleError(violated, f"with untrained weights {self.screen.explain(violated)}")

    def _score_proxies(self, module: nn.Module, graph: Graph, preprocessing: Encoding, progress: Progress) -> None:
        asked = list(self.proxies)
        needed = "" if isinstance(self.accuracy, Trainer) else self.accuracy.proxy
        if needed and needed not in asked:
            asked.append(needed)
        # A combination is made of scores that are noted too, each once.
        names = dict.fromkeys(part for name in asked for part in (DEFAULT if name == COMBINED else (name,)))
        if not names:
            return
        import torch

        from nas.accuracy.zero_cost import score_all

        images, labels = self.dataset.some("train", preprocessing, SCORED)
        unit = self.dataset.task.unit
        for name in names:
            try:
                with progress.phase("proxies"), self._busy():
                    scores = score_all(module, torch.from_numpy(images), torch.from_numpy(labels), [name], graph)
                progress.compute(f"proxy_{name}", scores[name], f"zero-cost proxy {name}, {SCORED} training {unit}")
            except CandidateError as error:
                # A score that is only noted may be absent; one that stands for the accuracy may not.
                if name == needed or (needed == COMBINED and name in DEFAULT):
                    raise
                print(f"{name} gave no score: {error}", flush=True)
        if COMBINED in asked and all(f"proxy_{name}" in progress.values for name in DEFAULT):
            assert self.population is not None
            value = self.population.combined({name: progress.values[f"proxy_{name}"] for name in DEFAULT})
            how = f"geometric mean of the ranks of {', '.join(DEFAULT)} among {self.population.members} networks"
            progress.compute(f"proxy_{COMBINED}", value, f"{how} of the space; 1 is the best")

    def _export(self, module: nn.Module, architecture: Architecture, target: Path, preprocessing: Encoding) -> None:
        from nas.quantize.static import needs_reduced_range, quantize_static
        from nas.quantize.torch_to_onnx import export_example

        full = target / "model_fp32.onnx"
        export_example(module, full, preprocessing.example())
        calibration, _ = self.dataset.some("train", preprocessing, self.calibration_images)
        known = self.screen.device.fingerprint
        reduced = known is not None and needs_reduced_range(known.isa, known.features)
        quantize_static(full, target / "model.onnx", calibration, architecture.precision, Precision.FP32, reduced)

    def score(self, model: Path, preprocessing: Encoding, split: str) -> float:
        """Return the task's metric of a model file on a split."""
        from nas.accuracy.scoring import score_split

        return score_split(self.runtime.load(model, threads=1), self.dataset, split, preprocessing)

    def _check_objectives(self, progress: Progress) -> None:
        for objective in self.screen.objectives:
            if objective.metric not in progress.values:
                raise ConfigError(
                    f"objective {objective.metric} has no source on device '{self.screen.device.name}'; "
                    f"have {', '.join(sorted(progress.values))}"
                )

    def _hold_bounds(self, progress: Progress) -> None:
        violated = {
            name: progress.values[name] - bound
            for name, bound in self.screen.bounds.items()
            if progress.values.get(name, -math.inf) > bound
        }
        for objective in self.screen.objectives:
            if objective.direction == "maximize" and objective.violation(progress.values[objective.metric]) > 0:
                violated[objective.metric] = objective.violation(progress.values[objective.metric])
        if violated:
            raise InfeasibleError(violated, self.screen.explain(violated))


def evaluation_job(evaluator: Evaluator) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the job that executors run: an architecture's dictionary in, an evaluation's out."""

    def job(payload: Mapping[str, Any]) -> dict[str, Any]:
        known, guesses = payload.get("known"), payload.get("guesses", {})
        return evaluator.evaluate(
            Architecture.from_dict(payload["architecture"]),
            payload.get("rung"),
            Evaluation.from_dict(known) if known else None,
            payload.get("least"),
            {device: Guess.from_dict(guess) for device, guess in guesses.items()},
        ).to_dict()

    return job
