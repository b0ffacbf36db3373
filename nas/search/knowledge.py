"""What a search knows of its candidates before anything is trained, from the lowered graph and the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.architecture import Architecture
from nas.graph import Graph
from nas.screen import Screen
from nas.search.candidates import Description, Problem
from nas.targets import on_device


def problem_of(screen: Screen, latency_is_predicted: bool, predicted_on: Sequence[str] = ()) -> Problem:
    """Return the problem of a real search.

    Args:
        screen: its space, costs, limits and objectives.
        latency_is_predicted: True where the front's latency is the latency model's own prediction.
        predicted_on: further devices of which the same is true.
    """
    describe = _Describe(screen, latency_is_predicted, predicted_on)
    return Problem(screen.space.suggest, describe, tuple(screen.objectives))


class _Describe:
    def __init__(self, screen: Screen, latency_is_predicted: bool, predicted_on: Sequence[str]) -> None:
        self._screen = screen
        self._exact = {"macs": "macs", "params": "params"}
        if latency_is_predicted:
            self._exact["latency_ms"] = "predicted_latency_ms"
        for name in predicted_on:
            self._exact[on_device("latency_ms", name)] = on_device("predicted_latency_ms", name)

    def __call__(self, architecture: Architecture) -> Description:
        graph = self._screen.space.lower(architecture)
        estimates = self._screen.costs(architecture, graph)
        costs = {name: estimate.value for name, estimate in estimates.items()}
        return Description(
            costs=costs,
            features=graph_features(graph),
            exact={metric: costs[source] for metric, source in self._exact.items()},
            admissible=not self._screen.violations(estimates),
        )


def graph_features(graph: Graph) -> dict[str, float]:
    """Return figures of a lowered graph on which accuracy may depend, counts and sizes as logarithms."""
    weighty = graph.mac_ops
    widths = [op.output_shape[1] if len(op.output_shape) == 4 else op.output_shape[-1] for op in weighty]
    features = {
        "depth": float(len(weighty)),
        "log_activation_bytes": math.log1p(graph.activation_bytes),
        "log_width": sum(math.log1p(width) for width in widths) / max(len(widths), 1),
        "log_macs_per_parameter": math.log1p(graph.macs / max(graph.parameters, 1)),
    }
    for kind in ("conv", "gemm", "matmul"):
        features[f"log_macs_{kind}"] = math.log1p(sum(op.macs for op in weighty if op.kind == kind))
    return features
