"""A latency model that learns while a search runs, from a handful of measurements on.

A network takes the sum of what its operators take: overhead, arithmetic and memory traffic by kind and precision, each
the roofline's term times a factor of its own. The factors have logarithms that scatter around one common value for
overhead, one for arithmetic and one for traffic, so that few measurements scale the whole, and more tell the kinds
apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from latency_models.bayes import LogSum
from latency_models.conformal import Z_90, widening
from latency_models.roofline import FREE_KINDS
from nas.architecture import Precision
from nas.cost_protocols import LatencyModel
from nas.device import Device, Peaks
from nas.errors import ConfigError, MeasurementError
from nas.graph import Graph, Op
from nas.measurement import Estimate, Measurement

Array = NDArray[np.float64]
Term = tuple[str, str]

GROUPS = ("overhead", "arithmetic", "traffic")
_LANES = 16  # channels that vector kernels handle at a time; fewer take as long
_DEPTH = 4  # 8-bit products that are summed at a time
# Where a device says nothing of itself; the common factors learn the rest.
_SMALL = {Precision.INT8, Precision.INT4}
_NOMINAL = Peaks(50.0, 150.0, 10.0, 1.0, "nominal")


class OnlineLatency:
    """Latency as a sum of learned terms; satisfies LatencyModel.

    Args:
        start: predicts until there are measurements enough, such as :class:`latency_models.roofline.Roofline`; what it
            says has the kind ``modelled``, on which nothing should be decided.
        fewest: measurements from which on this model speaks itself, and says ``predicted``.
    """

    name = "online"

    def __init__(self, start: LatencyModel, fewest: int = 6) -> None:
        if fewest < 4:
            raise ConfigError(f"online latency model: fewest={fewest}; expected 4 or more, a deviation needs company")
        self._start, self._fewest = start, fewest
        self._terms: tuple[Term, ...] = ()
        self._sum: LogSum | None = None
        self._widening = 1.0

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]]) -> None:
        """Learn anew from all measurements; of fewer than ``fewest`` it forgets."""
        for graph, _, measured in measurements:
            if not measured.median > 0:
                raise MeasurementError(f"a latency of {measured.median} ms for a graph of {len(graph.ops)} operators")
        if len(measurements) < self._fewest:
            self._sum = None
            return
        found = [_terms(graph, device) for graph, device, _ in measurements]
        self._terms = tuple(sorted({term for terms in found for term in terms}))
        rows = np.array([[terms.get(term, 0.0) for term in self._terms] for terms in found])
        groups = np.array([GROUPS.index(group) for group, _ in self._terms])
        target = np.log([measured.median for _, _, measured in measurements])
        self._sum = LogSum.fit(rows, groups, len(GROUPS), target)
        # Left-out readings have to lie in the interval; of few, a normal interval would promise too much.
        residuals, deviations = self._sum.left_out()
        few = float(student_t.ppf(0.95, max(len(target) / 2, 2.0))) / Z_90
        self._widening = max(widening(residuals, deviations), 1.0) * few

    def predict(self, graph: Graph, device: Device) -> Estimate:
        """Return milliseconds; kind ``modelled`` until there were measurements enough, then ``predicted``."""
        if self._sum is None:
            start = self._start.predict(graph, device)
            return Estimate(start.mean, start.std, "ms", f"{self.name}, {start.model}", device.name, "modelled")
        terms = _terms(graph, device)
        row = np.array([terms.get(term, 0.0) for term in self._terms])
        unknown = np.zeros(len(GROUPS))
        for term, value in terms.items():
            if term not in self._terms:
                unknown[GROUPS.index(term[0])] += value
        mean, std = self._sum.predict(row, unknown)
        share = math.expm1(min(self._widening * std, 3.0))
        return Estimate(mean, share * mean, "ms", self.name, device.name, "predicted")


def _terms(graph: Graph, device: Device) -> dict[Term, float]:
    """Return milliseconds at the device's peaks by (group, kind and precision), and those of changes of precision."""
    peaks = device.peaks or _NOMINAL
    precision = {op.name: op for op in graph.ops}
    terms: dict[Term, float] = {}

    def add(group: str, kind: str, value: float) -> None:
        if value > 0:
            terms[group, kind] = terms.get((group, kind), 0.0) + value

    for op in graph.ops:
        if op.kind in FREE_KINDS:
            continue
        small = op.dtype in _SMALL
        kind = f"{_kind(op)} {'int8' if small else 'float'}"
        gmacs = peaks.int8_gmacs if small else peaks.fp32_gmacs
        add("arithmetic", kind, _filled_macs(op, small) / (gmacs * device.threads * 1e6))
        add("overhead", kind, peaks.op_overhead_us / 1e3)
        add("traffic", kind, (op.activation_bytes + op.weight_bytes) / (peaks.bandwidth_gbs * 1e6))
        for producer in op.inputs:
            made = precision.get(producer)
            if made is not None and made.dtype != op.dtype and {made.dtype, op.dtype} != _SMALL:
                add("overhead", "change", peaks.op_overhead_us / 1e3)
                add("traffic", "change", 5 * math.prod(made.output_shape) / (peaks.bandwidth_gbs * 1e6))
    return terms


def _kind(op: Op) -> str:
    if op.kind != "conv":
        return op.kind
    shape = op.weights["weight"]
    if _is_depthwise(op):
        return "depthwise"
    return "pointwise" if all(side == 1 for side in shape[2:]) else "conv"


def _is_depthwise(op: Op) -> bool:
    weights: Mapping[str, tuple[int, ...]] = op.weights
    shape = weights["weight"]
    return shape[1] == 1 and shape[0] > 1


def _filled_macs(op: Op, small: bool) -> float:
    """Return the MACs with channels filled up to whole vectors, as kernels compute them."""
    if op.kind != "conv":
        return float(op.macs)
    shape = op.weights["weight"]
    pixels, channels = math.prod(op.output_shape[2:]), _up(shape[0], _LANES)
    if _is_depthwise(op):
        return float(channels * math.prod(shape[2:]) * pixels)
    return float(channels * _up(math.prod(shape[1:]), _DEPTH if small else 1) * pixels)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
