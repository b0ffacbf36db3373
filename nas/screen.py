"""Constraints that need neither torch nor training, checked before anything dear."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nas.architecture import Architecture
from nas.cost_protocols import LatencyModel
from nas.device import Device
from nas.graph import Graph
from nas.measurement import Estimate
from nas.objective import Objective
from nas.protocols import ExactCosts, SearchSpace, StepLowering
from nas.targets import on_device, split

TIMED = ("latency_ms", "ttft_ms", "token_ms")
NEEDS_NO_TRAINING = (*TIMED, "size_kib", "memory_kib")
# What is known of a constraint before anything is built.
_STANDS_FOR = {
    "latency_ms": "predicted_latency_ms",
    "ttft_ms": "predicted_latency_ms",
    "token_ms": "predicted_token_ms",
    "size_kib": "weights_kib",
}


@dataclass(frozen=True)
class Screen:
    """Constraints that need neither torch nor training; a few milliseconds per candidate.

    Args:
        space: lowers the architectures.
        device: target.
        latency_model: predicts what a bound on latency is held against.
        limits: ``macs``, ``params``, ``size_kib``, ``latency_ms`` to the largest value allowed.
        objectives: their bounds count too.
        margin: a predicted latency is refused only beyond ``margin`` times the limit, since it is an estimate.
        others: further devices' screens by name; their predictions carry the device in their names.
    """

    space: SearchSpace
    device: Device
    latency_model: LatencyModel
    limits: Mapping[str, float]
    objectives: Sequence[Objective]
    margin: float = 2.0
    others: Mapping[str, Screen] = field(default_factory=dict)

    def costs(self, architecture: Architecture, graph: Graph | None = None) -> dict[str, Estimate]:
        """Return ``macs``, ``params``, ``weights_kib``, ``predicted_latency_ms`` and the space's own costs.

        Of a language model the prompt's latency is predicted, and beside it ``predicted_token_ms``.

        Args:
            architecture: of the space.
            graph: of it, where the caller has lowered it already.
        """
        graph = graph or self.space.lower(architecture)
        exact = {
            "macs": (graph.macs, ""),
            "params": (graph.parameters, ""),
            "weights_kib": (graph.weight_bytes / 1024, "KiB"),
            **(self.space.exact_costs(architecture) if isinstance(self.space, ExactCosts) else {}),
        }
        costs = {
            name: Estimate(float(value), 0.0, unit, "lowered graph", self.device.name, "computed")
            for name, (value, unit) in exact.items()
        }
        costs |= self._predicted(architecture, graph)
        for name, other in self.others.items():
            predicted = other._predicted(architecture, graph)
            costs |= {on_device(metric, name): estimate for metric, estimate in predicted.items()}
        return costs

    def _predicted(self, architecture: Architecture, graph: Graph) -> dict[str, Estimate]:
        whole, *rest = self.timings(architecture, graph).items()
        return {"predicted_latency_ms": whole[1], **{f"predicted_{name}": value for name, value in rest}}

    def timings(self, architecture: Architecture, graph: Graph) -> dict[str, Estimate]:
        """Return the predicted times, by metric: of one inference, or of the prompt and of one more token.

        Args:
            architecture: of the space.
            graph: of it, lowered.
        """
        names = self.space.task.timings
        predicted = {names[0]: self.latency_model.predict(graph, self.device)}
        if "token_ms" in names and isinstance(self.space, StepLowering):
            predicted["token_ms"] = self.latency_model.predict(self.space.lower_step(architecture), self.device)
        return predicted

    @property
    def bounds(self) -> dict[str, float]:
        """Metric to the largest value allowed, from limits and minimised objectives, the tighter of the two.

        A limit on a time holds on every device.
        """
        bounds = {name: float(limit) for name, limit in self.limits.items()}
        for device in self.others:
            bounds |= {on_device(name, device): float(limit) for name, limit in self.limits.items() if name in TIMED}
        for objective in self.objectives:
            if objective.bound is not None and objective.direction == "minimize":
                bounds[objective.metric] = min(objective.bound, bounds.get(objective.metric, math.inf))
        return bounds

    def violations(self, costs: Mapping[str, Estimate]) -> dict[str, float]:
        """Return constraint name to how far it is exceeded; empty when all hold.

        A file is never smaller than its weights, so they are held against ``size_kib``.
        """
        violated = {}
        for name, bound in self.bounds.items():
            metric, device = split(name)
            stands = _STANDS_FOR.get(metric, metric)
            cost = costs.get(on_device(stands, device) if device else stands)
            margin = self.others[device].margin if device in self.others else self.margin
            allowed = bound * (margin if metric in TIMED else 1.0)
            if cost is not None and cost.value > allowed:
                violated[name] = cost.value - bound
        return violated

    def explain(self, violations: Mapping[str, float]) -> str:
        """Return a sentence part per violation: the value, what it is held against, and by how much it is beyond."""
        said = []
        for name, amount in violations.items():
            bound = self.bounds.get(name)
            if bound is None:
                said.append(f"{name} misses its bound by {amount:.4g}")
            else:
                said.append(f"{name} {bound + amount:.4g} is above the limit of {bound:.4g}")
        return ", ".join(said)
