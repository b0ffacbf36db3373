"""From a resolved config to the objects that it names, the same in the driver and in every worker."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.accuracy.combined import COMBINED
from nas.accuracy.population import Population
from nas.accuracy.trainers import Resumable, Scorer, SharedTrainer, Trainer
from nas.architecture import Architecture
from nas.config.instantiate import allow_files, instantiate
from nas.config.models import latency_model
from nas.cost_protocols import Documented, EnergyModel, LatencyModel
from nas.data import Dataset, Encoding
from nas.device import Device, local_fingerprint
from nas.errors import ConfigError
from nas.evaluate import SCORED, Evaluator, evaluation_job, fidelity_key
from nas.evaluation import EvaluationKey
from nas.executor.gate import FileGate
from nas.measure.devices import as_known
from nas.measure.meters import make_meter
from nas.measure.replay import Meter
from nas.measure.target import Target
from nas.objective import Objective
from nas.protocols import DataSource, Job, Runtime, SearchSpace
from nas.screen import Screen
from nas.search.foresight import Foresight, Outlook
from nas.search.front import resolve_references
from nas.search.halving import Halving
from nas.targets import expanded, on_device, own_axes, seen_from

_PACKAGES = ("hwnas", "torch", "optuna", "onnx", "onnxruntime", "numpy", "mlflow", "scikit-learn", "pillow")


@dataclass(frozen=True)
class Parts:
    """The objects of one search, each made when it is first asked for.

    Args:
        config: resolved config of ``nas search`` as plain containers.
        folder: folder of the study.
        references: objectives with resolved references, once the driver has them.
    """

    config: Mapping[str, Any]
    folder: Path
    references: tuple[Objective, ...] = field(default=())

    def __post_init__(self) -> None:
        # A worker is another process than the one that read the command line.
        allow_files(self.config.get("plugins") or ())

    @cached_property
    def dataset(self) -> Dataset:
        """The data, loaded and split; ``recipe`` is for the accuracy's config."""
        node = {key: value for key, value in self.config["data"].items() if key != "recipe"}
        source: DataSource = instantiate(node)
        return source.load()

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, posed the data's task."""
        space: SearchSpace = instantiate(self.config["space"], task=self.dataset.task)
        return space

    @cached_property
    def device(self) -> Device:
        """The target."""
        device: Device = instantiate(self.config["device"])
        return device

    @property
    def names(self) -> tuple[str, ...]:
        """The devices of a search that names several, the first one first; empty for a search for one device."""
        return tuple(self.config.get("devices") or {})

    @cached_property
    def others(self) -> dict[str, Parts]:
        """The same search for each of its further devices alone, by the device's name.

        Data, space and runtime are shared. An energy to be measured is modelled where nothing is timed.
        """
        found = {}
        for name in self.names[1:]:
            cost = self.config["costs"].get(name, self.config["cost"])
            predicted = cost["mode"] == "predicted" and self.config.get("energy") == "measured"
            config = {**self.config, "device": self.config["devices"][name], "cost": cost, "devices": {}, "costs": {}}
            seen = (replace(axis, metric=seen_from(axis.metric, self.names[0], name)) for axis in self.references)
            alone = Parts({**config, "energy": None} if predicted else config, self.folder, own_axes(tuple(seen)))
            for shared in ("dataset", "space", "runtime", "gate"):
                alone.__dict__[shared] = getattr(self, shared)
            found[name] = alone
        return found

    @property
    def each(self) -> dict[str, Parts]:
        """All devices of a search that names several, the first one included, by name; else empty."""
        return {name: self.others.get(name, self) for name in self.names}

    @property
    def device_keys(self) -> dict[str, str]:
        """Name of each device, ``device`` for the first one, to what stored costs are bound to."""
        return {"device": self.device.key, **{f"device {name}": part.device.key for name, part in self.others.items()}}

    def config_of_workers(self) -> dict[str, Any]:
        """Return the config with what boards have said of themselves, so that no worker asks them again."""
        devices = {name: as_known(self.config["devices"][name], part.device) for name, part in self.each.items()}
        return {**self.config, "device": as_known(self.config["device"], self.device), "devices": devices}

    @cached_property
    def runtime(self) -> Runtime:
        """What ships, and therefore what is timed."""
        runtime: Runtime = instantiate(self.config["runtime"])
        return runtime

    @cached_property
    def gate(self) -> FileGate:
        """Keeps training and timing apart on this machine, whatever each search's target is."""
        return FileGate(local_fingerprint().id)

    @cached_property
    def meter(self) -> Meter | None:
        """Takes costs on the device, or None where they are predicted."""
        if self.config["cost"]["mode"] == "predicted":
            return None
        energy = "measured" if self.config.get("energy") == "measured" else None
        timing = instantiate(self.config["cost"]["timing"])
        return make_meter(self.device, self.runtime, timing, self.gate, energy)

    @cached_property
    def latency_model(self) -> LatencyModel:
        """Predicts before anything is built."""
        return latency_model(self.config["cost"]["model"], self.runtime)

    @cached_property
    def foresight(self) -> Foresight | None:
        """The model that learns this device's latencies while the search runs, where ``cost=auto`` asks for one."""
        node = self.config["cost"]
        if node["mode"] != "auto":
            return None
        learner: LatencyModel = instantiate(node["learner"], start=self.latency_model)
        screen = replace(self.screen, objectives=own_axes(self.screen.objectives))
        return Foresight(learner, screen, float(node["least_gain"]))

    @property
    def outlook(self) -> Outlook | None:
        """What is foreseen on each device whose latencies ``cost=auto`` predicts first; None where there is none."""
        parts = {"": self, **self.others}
        found = {name: part.foresight for name, part in parts.items() if part.foresight is not None}
        return Outlook(found, self.names[0] if self.names else "") if found else None

    @cached_property
    def energy_model(self) -> EnergyModel | None:
        """The estimate of the energy, where it was asked for, or where an axis needs it and nothing is timed."""
        axis = any(objective.metric == "energy_mj" for objective in self.objectives)
        predicted = axis and self.config.get("energy") is None and self.config["cost"]["mode"] == "predicted"
        if self.config.get("energy") != "modelled" and not predicted:
            return None
        model = self.latency_model
        if not isinstance(model, EnergyModel):
            raise ConfigError(
                f"energy=modelled: cost.model={self.config['cost']['model']} says nothing of energy. "
                "Drop energy=modelled, or take the roofline as the model"
            )
        return model

    @property
    def any_energy_model(self) -> EnergyModel | None:
        """The estimate of the energy even where energy is measured, for what needs no more than its magnitude."""
        model = self.latency_model
        return model if isinstance(model, EnergyModel) else None

    def cost_cards(self) -> Mapping[str, Any]:
        """Return what the models behind estimates rest on, JSON-ready; empty where the model does not say."""
        model = self.latency_model
        return model.cards(self.device) if isinstance(model, Documented) else {}

    @cached_property
    def accuracy(self) -> Trainer | Scorer:
        """Short training, or a zero-cost score in its place."""
        accuracy: Trainer | Scorer = instantiate(self.config["accuracy"])
        return accuracy

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """The axes of the front, references as configured unless resolved ones were given."""
        if self.references:
            return self.references
        axes = tuple(Objective(metric=metric, **fields) for metric, fields in self.config["objective"].items())
        return expanded(axes, self.names[1:])

    def resolved_objectives(self) -> tuple[Objective, ...]:
        """Return the axes with references, each device's by its own latency model; see ``resolve_references``."""
        known = {}
        for name, part in self.others.items():
            for objective in part.resolved_objectives():
                known[on_device(objective.metric, name)] = objective.reference
        axes = [
            replace(objective, reference=known[objective.metric])
            if objective.reference is None and objective.metric in known
            else objective
            for objective in self.objectives
        ]
        return resolve_references(axes, self.screen, self.any_energy_model)

    @cached_property
    def screen(self) -> Screen:
        """The constraints that need no training."""
        limits = {name: value for name, value in self.config.get("limits", {}).items() if value is not None}
        # A predicted latency that is never measured is held against its limit as it is.
        margin = 1.0 if self.config["cost"]["mode"] == "predicted" else 2.0
        others = {name: part.screen for name, part in self.others.items()}
        return Screen(self.space, self.device, self.latency_model, limits, self.objectives, margin, others)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Evaluates candidates; torch is imported when the first one is built."""
        calibration, seed = int(self.config["calibration_images"]), int(self.config["seed"])
        return Evaluator(
            screen=self.screen,
            dataset=self.dataset,
            accuracy=self.accuracy,
            runtime=self.runtime,
            meter=self.meter,
            energy_model=self.energy_model,
            fidelity=fidelity_key(self.dataset, self.accuracy.key, seed, calibration),
            folder=self.folder,
            proxies=self.proxies,
            calibration_images=calibration,
            seed=seed,
            gate=self.gate,
            rungs=self.halving.rungs,
            others=tuple(
                Target(name, part.screen, part.meter, part.energy_model) for name, part in self.others.items()
            ),
            population=self.population,
        )

    @cached_property
    def population(self) -> Population | None:
        """The networks among which ``combined`` ranks, or None where nothing asks for it."""
        scored = None if isinstance(self.accuracy, Trainer) else self.accuracy.proxy
        return Population(self.folder / "population.json") if COMBINED in (*self.proxies, scored) else None

    @cached_property
    def proxies(self) -> tuple[str, ...]:
        """Names of the zero-cost scores to note; a user's own class, such as ``my_proxy.MyProxy``, is made here."""
        names = []
        for index, given in enumerate(self.config["proxies"]):
            if "." not in given:
                names.append(str(given))
                continue
            from nas.accuracy.zero_cost import own_proxy  # torch, which a search without such a class does without

            names.append(own_proxy(instantiate({"_target_": given}, path=f"proxies[{index}]")))
        return tuple(names)

    @cached_property
    def halving(self) -> Halving:
        """How populations are thinned; without rungs they are not.

        Raises:
            ConfigError: the rungs do not fit the training.
        """
        node = self.config.get("halving") or {}
        rungs = tuple(int(epochs) for epochs in node.get("rungs", ()))
        if not rungs:
            return Halving()
        if not isinstance(self.accuracy, Resumable):
            raise ConfigError(
                f"halving.rungs={list(rungs)} needs a training that can stop and go on, which this "
                "accuracy= cannot. Choose accuracy=short_training, or drop the rungs"
            )
        if rungs[-1] >= self.accuracy.epochs:
            raise ConfigError(
                f"halving.rungs={list(rungs)}: the last rung must lie below accuracy.epochs={self.accuracy.epochs}, "
                "the epochs of a candidate that reaches the top"
            )
        return Halving(rungs, int(node["population"]), float(node["keep"]))

    def key_of(self, architecture: Architecture, rung: int | None = None) -> EvaluationKey:
        """Return the store's key of an architecture at a rung; None is the top."""
        return self.evaluator.key(architecture, rung)

    def preprocessing(self, architecture: Architecture) -> Encoding:
        """Return the pre-processing of an architecture's input."""
        return self.dataset.preprocessing(*self.space.input_size(architecture))

    def prepare(self) -> list[str]:
        """Train what candidates share where they share weights, and score what they are ranked among.

        What is done already is reused, and a training that was cut goes on.

        Returns:
            Notes on it for the report.
        """
        seed = int(self.config["seed"])
        if self.population is not None:
            self.population.prepare(self.space, self.dataset, seed, SCORED, self.gate)
        if not isinstance(self.accuracy, SharedTrainer):
            return []
        path = self.accuracy.prepare(self.space, self.dataset, seed, self.gate)
        return [
            f"weights of all candidates are parts of the supernet {path}; another search reuses it by accuracy.file"
        ]


def make_job(payload: Mapping[str, Any]) -> Job:
    """Make the job of a worker: everything that is slow to load is loaded here, once.

    Args:
        payload: ``config``, ``folder`` and ``objectives`` (with resolved references), JSON-ready.
    """
    objectives = tuple(Objective(**fields) for fields in payload["objectives"])
    parts = Parts(payload["config"], Path(payload["folder"]), objectives)
    # A standby that starts while a candidate is timed would disturb it.
    with parts.gate.training():
        import torch  # noqa: F401  # a warm worker has it before the first candidate comes

        return evaluation_job(parts.evaluator)


def environment() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
