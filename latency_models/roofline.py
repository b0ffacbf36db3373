"""The roofline: each operator takes what its arithmetic or its memory traffic takes at the peaks, plus an overhead.

Williams, Waterman, Patterson: Roofline, an insightful visual performance model for multicore architectures, CACM 52(4),
2009: attainable rate = min(peak compute, peak bandwidth x operational intensity), here written as a time per operator,
``max(macs / peak, bytes / bandwidth) + overhead``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas.architecture import Precision
from nas.cost_protocols import PredictedPart
from nas.device import Device, Peaks
from nas.errors import ConfigError, MeasurementError
from nas.graph import Graph, Op
from nas.measurement import Estimate, Measurement

# Horowitz: Computing's energy problem (and what we can do about it), ISSCC 2014, figure 1.1.9, 45 nm at 0.9 V, in pJ:
# fp32 multiply 3.7 and add 0.9; fp16 1.1 and 0.4; int8 multiply 0.2, with int32 accumulation 0.1; int4 taken as int8,
# since the figure ends there. DRAM 1300 to 2600 pJ for 64 bits; the middle over 8 bytes.
PICOJOULES_PER_MAC: Mapping[Precision, float] = {
    Precision.FP32: 4.6,
    Precision.FP16: 1.5,
    Precision.INT8: 0.3,
    Precision.INT4: 0.3,
}
PICOJOULES_PER_DRAM_BYTE = 1950 / 8

# Ops that only rename or view their input; runtimes make nothing of them.
FREE_KINDS = frozenset({"identity", "dropout", "flatten", "reshape", "squeeze", "unsqueeze", "constant"})


@dataclass(frozen=True)
class OpCost:
    """Where the roofline puts an operator.

    Args:
        name: of the op.
        kind: of the op.
        latency_ms: ``max`` of the two terms plus overhead, times the fitted factor.
        compute_ms: MACs at the peak of the op's precision.
        memory_ms: bytes at the peak bandwidth.
        bound: ``compute``, ``memory`` or ``overhead``, whichever is largest.
    """

    name: str
    kind: str
    latency_ms: float
    compute_ms: float
    memory_ms: float
    bound: str


class Roofline:
    """Latency and energy from peaks and published constants; satisfies LatencyModel and EnergyModel.

    The deviation is a share of the mean, since the model errs by a factor: it lets every operator run at a peak that
    real kernels miss by a factor of 1 to 6 (ONNX Runtime on a Zen 4 core: dense 3 x 3 convolutions reach the roofline,
    int8 depthwise ones a sixth of it), and charges every activation to memory that often comes from a cache. Fitting
    replaces the stated share by the one that the measurements show.

    Args:
        relative_std: standard deviation of the latency as a share of its mean, before fitting.
        energy_relative_std: likewise of the energy: the constants are those of a 45 nm process, caches and control are
            not in them, and a whole processor takes several times as much.
    """

    name = "roofline"

    def __init__(self, relative_std: float = 0.6, energy_relative_std: float = 1.0) -> None:
        for field, value in (("relative_std", relative_std), ("energy_relative_std", energy_relative_std)):
            if not value > 0:
                raise ConfigError(f"roofline {field}={value}; expected more than 0: an estimate is never exact")
        self._relative_std = relative_std
        self._energy_relative_std = energy_relative_std
        self.factor = 1.0
        self._fitted = False

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]]) -> None:
        """Scale all predictions by one factor, the geometric median of measured over modelled.

        Three measurements or more also replace the relative deviation by that of the ratios around the factor. No
        measurements leave the model as it is.
        """
        if not measurements:
            return
        logs = []
        for graph, device, measured in measurements:
            modelled = sum(cost.latency_ms for cost in self._costs(graph, device, factor=1.0))
            if not (modelled > 0 and measured.median > 0):
                raise MeasurementError(
                    f"roofline.fit: {measured.median} ms measured, {modelled} modelled; expected > 0"
                )
            logs.append(math.log(measured.median / modelled))
        middle = _median(logs)
        self.factor = math.exp(middle)
        self._fitted = True
        if len(logs) >= 3:
            # 1.48 x median absolute deviation estimates a normal deviation and shrugs off one odd network.
            self._relative_std = max(1.4826 * _median([abs(value - middle) for value in logs]), 0.05)

    def predict(self, graph: Graph, device: Device) -> Estimate:
        """Return milliseconds; kind ``modelled`` from constants, ``predicted`` once fitted.

        Raises:
            ConfigError: the device has no peaks.
        """
        mean = sum(cost.latency_ms for cost in self.breakdown(graph, device))
        kind = "predicted" if self._fitted else "modelled"
        return Estimate(mean, self._relative_std * mean, "ms", self.name, device.name, kind)  # type: ignore[arg-type]

    def breakdown(self, graph: Graph, device: Device) -> list[OpCost]:
        """Return the cost of each op in the order of the graph; the sum is the prediction."""
        return self._costs(graph, device, self.factor)

    def parts(self, graph: Graph, device: Device) -> list[PredictedPart]:
        """Return each op as a part of the prediction, and what bounds it as its kind."""
        return [
            PredictedPart(cost.name, f"{cost.kind}, bound by {cost.bound}", cost.latency_ms, True, (cost.name,))
            for cost in self.breakdown(graph, device)
        ]

    def doubts(self, graph: Graph, device: Device) -> list[str]:
        """Return that it is a roofline, which knows peaks alone."""
        return ["a roofline: what the ops take at the device's peaks, at which no runtime runs throughout"]

    def predict_energy(self, graph: Graph, device: Device) -> Estimate:
        """Return millijoules of arithmetic and of moving each op's tensors from DRAM, kind ``modelled``."""
        picojoules = sum(
            op.macs * PICOJOULES_PER_MAC[op.dtype] + _bytes(op) * PICOJOULES_PER_DRAM_BYTE for op in graph.ops
        )
        mean = picojoules * 1e-9
        return Estimate(mean, self._energy_relative_std * mean, "mJ", self.name, device.name, "modelled")

    def cards(self, device: Device) -> Mapping[str, Any]:
        """Return what its constants are and where they come from."""
        fitted = f"{device.name}, one factor: {self.factor:.3g}" if self._fitted else "nothing"
        peaks = asdict(device.peaks) if device.peaks else None
        return {self.name: {"fitted_on": fitted, "peaks": peaks, "relative_std": self._relative_std}}

    def _costs(self, graph: Graph, device: Device, factor: float) -> list[OpCost]:
        if device.peaks is None:
            raise ConfigError(
                f"device '{device.name}' has no peaks, which the roofline needs; expected fp32_gmacs, int8_gmacs, "
                "bandwidth_gbs and op_overhead_us. Set device.peaks=auto on a local device, or give its data sheet's."
            )
        return [_op_cost(op, device.peaks, device.threads, factor) for op in graph.ops]


def _op_cost(op: Op, peaks: Peaks, threads: int, factor: float) -> OpCost:
    if op.kind in FREE_KINDS:
        return OpCost(op.name, op.kind, 0.0, 0.0, 0.0, "overhead")
    # Giga per second is million per millisecond. int4 weights are widened to int8 before they are multiplied. Cores add
    # up in arithmetic; one core's bandwidth is taken as the machine's, which is on the safe side.
    gmacs = peaks.int8_gmacs if op.dtype in (Precision.INT8, Precision.INT4) else peaks.fp32_gmacs
    terms = {
        "compute": op.macs / (gmacs * threads * 1e6),
        "memory": _bytes(op) / (peaks.bandwidth_gbs * 1e6),
        "overhead": peaks.op_overhead_us / 1e3,
    }
    latency = (max(terms["compute"], terms["memory"]) + terms["overhead"]) * factor
    bound = max(terms, key=lambda name: terms[name])
    return OpCost(op.name, op.kind, latency, terms["compute"], terms["memory"], bound)


def _bytes(op: Op) -> int:
    return op.activation_bytes + op.weight_bytes


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
