"""A search without training or timing: candidates get made-up values by a formula, for tests of the driver."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.architecture import Architecture
from nas.device import Device
from nas.evaluation import Evaluation, EvaluationKey, State
from nas.graph import Graph
from nas.measurement import Estimate, Measurement
from nas.protocols import Job
from nas.screen import Screen


@dataclass(frozen=True)
class MacsLatency:
    """Says that a device does one billion multiply-accumulates per second, whatever they are."""

    name: str = "macs"

    def fit(self, measurements: Any, /) -> None:
        """Learn nothing."""

    def predict(self, graph: Graph, device: Device, /) -> Estimate:
        """Return 1 ms per million MACs."""
        return Estimate(graph.macs / 1e6, math.inf, "ms", self.name, device.name, "modelled")


def synthetic_key(architecture: Architecture, rung: int = 0) -> EvaluationKey:
    """Return the key of a made-up evaluation, the same at every rung."""
    return EvaluationKey(architecture.id, "synthetic", "synthetic/t1", "synthetic")


def synthetic_evaluation(screen: Screen, architecture: Architecture) -> Evaluation:
    """Return made-up values: accuracy grows with MACs and falls with stride, latency and size by the lowered graph."""
    costs = {name: estimate.value for name, estimate in screen.costs(architecture).items()}
    costs |= {"latency_ms": costs["predicted_latency_ms"], "size_kib": costs["weights_kib"]}
    wobble = int(architecture.id[:4], 16) / 0xFFFF
    accuracy = 1 - 1 / (2 + math.log1p(costs["macs"] / 1e3)) - 0.05 * wobble
    latency = Measurement(costs["latency_ms"], costs["latency_ms"], 0.01, 100, 5, "ms", "synthetic", "synthetic", 0.0)
    return Evaluation(
        architecture=architecture,
        key=synthetic_key(architecture),
        state=State.COMPLETE,
        values={**costs, "accuracy": accuracy},
        provenance={"latency_ms": latency.to_dict()},
        seconds={"synthetic": 0.001},
        created=time.time(),
    )


def synthetic_job(screen: Screen) -> Job:
    """Return a job that evaluates by :func:`synthetic_evaluation`."""

    def job(payload: Mapping[str, Any]) -> dict[str, Any]:
        return synthetic_evaluation(screen, Architecture.from_dict(payload["architecture"])).to_dict()

    return job
