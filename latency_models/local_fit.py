"""Fits latency models to networks that were timed here, scores them on networks held out whole, and saves the best."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latency_models.additive import FEWEST, Additive, BlockTime
from latency_models.fitted import CARD
from latency_models.graph_latency import GraphLatency
from latency_models.metrics import scores
from latency_models.roofline import Roofline
from nas.cost_protocols import TimedNetwork
from nas.device import Device
from nas.errors import ConfigError, MeasurementError
from nas.graph import Graph
from nas.measurement import Estimate, Measurement

Array = NDArray[np.float64]
Rows = list[tuple[Graph, Device, Measurement]]

SERVED_BY = "latency_models.fitted.FittedLatency"
_FEWEST_TEST = 4


class _Predicts(Protocol):
    def predict(self, graph: Graph, device: Device, /) -> Estimate: ...


@dataclass(frozen=True)
class LocalFitter:
    """Fits roofline, additive and graph model per runtime; satisfies LatencyFitter.

    Args:
        test_share: of the networks, held out whole.

    Raises:
        ConfigError: no share.
    """

    test_share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ConfigError(f"fitter.test_share={self.test_share}; expected a share between 0 and 1")

    def fit(
        self, timed: Sequence[TimedNetwork], device: Device, folder: Path, facts: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Write the models and ``card.json``, and return the card.

        Raises:
            MeasurementError: too few networks to learn from and to hold out.
        """
        held = self._held_out(len(timed), int(facts["settings"]["seed"]))
        models = {}
        fitted: dict[str, GraphLatency] = {}
        for runtime in facts["runtimes"]:
            known = [index for index, network in enumerate(timed) if network.times.get(runtime)]
            learn = [timed[index] for index in known if index not in held]
            test = [timed[index] for index in known if index in held]
            if len(learn) < FEWEST or len(test) < _FEWEST_TEST:
                raise MeasurementError(
                    f"runtime '{runtime}' has {len(learn)} networks to learn from and {len(test)} held out; expected "
                    f"{FEWEST} and {_FEWEST_TEST} at least. Give more minutes=, or see why others failed: "
                    f"{facts.get('failures')}"
                )
            fitted[runtime], models[runtime] = _fit_one(learn, test, runtime, device)
        card = {"_target_": SERVED_BY, **facts, "models": models}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).unlink(missing_ok=True)
        for runtime, model in fitted.items():
            model.save(folder / runtime, {"runtime": facts["runtimes"][runtime], "device_key": device.key})
        # Last, so that a folder with a card is whole.
        (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        return card

    def _held_out(self, count: int, seed: int) -> frozenset[int]:
        chosen = np.random.default_rng(seed).permutation(count)[: round(self.test_share * count)]
        return frozenset(int(index) for index in chosen)


def _fit_one(
    learn: Sequence[TimedNetwork], test: Sequence[TimedNetwork], runtime: str, device: Device
) -> tuple[GraphLatency, dict[str, Any]]:
    rows, held = _rows(learn, runtime, device), _rows(test, runtime, device)
    begun = time.perf_counter()
    model = GraphLatency()
    profiles = _profiles(learn, runtime)
    model.fit(rows, profiles)
    fit_s = time.perf_counter() - begun
    baselines: dict[str, _Predicts] = {"additive": model.additive}
    if profiles:
        alone = Additive(alone=True)
        alone.fit(rows, profiles)
        baselines["additive_profiles"] = alone
    roofline = Roofline()
    if device.peaks is not None:
        roofline.fit(rows)
        baselines["roofline"] = roofline
    measured = np.array([row[2].median for row in held])
    begun = time.perf_counter()
    mean, std = _predicted(model, held)
    predict_ms = (time.perf_counter() - begun) * 1000 / len(held)
    found = {
        "scores": scores(measured, mean, std),
        "baseline": {name: scores(measured, *_predicted(one, held)) for name, one in baselines.items()},
        "by_space": _by([network.space for network in test], measured, mean, std),
        "by_precision": _by([network.precision for network in test], measured, mean, std),
        "repeats": _repeats([*learn, *test], runtime),
        "disturbed": float(np.mean([row[2].disturbed for row in [*rows, *held]])),
        "latency_ms": {
            "least": float(measured.min()),
            "median": float(np.median(measured)),
            "most": float(measured.max()),
        },
        "chosen": model.chosen,
        "n_train": len(rows),
        "n_profiled": len({id(timed.graph) for timed in profiles}),
        "n_test": len(held),
        "fit_s": fit_s,
        "predict_ms": predict_ms,
    }
    return model, found


def _rows(networks: Sequence[TimedNetwork], runtime: str, device: Device) -> Rows:
    return [(network.graph, device, network.times[runtime][0]) for network in networks]


def _profiles(networks: Sequence[TimedNetwork], runtime: str) -> list[BlockTime]:
    """Return what the blocks of the profiled networks took: their shares of the time of the whole network."""
    return [
        BlockTime(network.graph, block, share * network.times[runtime][0].median)
        for network in networks
        for block, share in network.profiles.get(runtime, {}).items()
    ]


def _predicted(model: _Predicts, rows: Rows) -> tuple[Array, Array]:
    estimates = [model.predict(graph, device) for graph, device, _ in rows]
    return np.array([one.mean for one in estimates]), np.array([one.std for one in estimates])


def _by(labels: Sequence[str], measured: Array, mean: Array, std: Array) -> dict[str, dict[str, Any]]:
    found = {}
    for label in sorted(set(labels)):
        rows = np.array([one == label for one in labels])
        # Of one network there is no rank.
        if rows.sum() > 1:
            found[label] = {**scores(measured[rows], mean[rows], std[rows]), "n_test": int(rows.sum())}
    return found


def _repeats(networks: Sequence[TimedNetwork], runtime: str) -> dict[str, Any] | None:
    """Return how well a second process's reading agrees with the first: no model can agree better with one reading."""
    pairs = [network.times[runtime][:2] for network in networks if len(network.times.get(runtime, ())) > 1]
    if len(pairs) < 2:
        return None
    first, second = (np.array([pair[place].median for pair in pairs]) for place in (0, 1))
    return {**scores(first, second), "networks": len(pairs)}
