"""Serves what ``nas fit`` saved: shares per kernel, and an interval that widens beyond what was fitted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.additive import times_of
from latency_models.graph_latency import GraphLatency
from nas.cost_protocols import PredictedPart
from nas.device import Device
from nas.errors import DataError
from nas.graph import Graph
from nas.measurement import Estimate, Measurement
from nas.protocols import Runtime

Array = NDArray[np.float64]

CARD = "card.json"
_OTHER_DEVICE = 4.0  # times the deviation: two processors differ by far more than one model errs
_OTHER_VERSION = 1.5
_MOST_WIDENING = 20.0
_TRUSTED = 20  # measurements until the deviation is their own and no longer the card's


class FittedLatency:
    """A fitted model of one runtime; satisfies LatencyModel.

    Further measurements shift all predictions by one factor, and then say themselves how far predictions are off.

    Args:
        folder: that ``nas fit`` wrote.
        runtime: whose latency is predicted; None where the folder holds one runtime only.

    Raises:
        DataError: the folder holds no model of this runtime, or was damaged.
    """

    name = "fitted"

    def __init__(self, folder: str, runtime: Runtime | None = None) -> None:
        place = Path(folder)
        try:
            self.card: dict[str, Any] = json.loads((place / CARD).read_text(encoding="utf-8"))
            models = sorted(self.card["models"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{place} is no folder of nas fit ({error}); expected {CARD} and its models") from error
        wanted = runtime.name if runtime is not None else models[0] if len(models) == 1 else ""
        if wanted not in models:
            raise DataError(
                f"{place} holds no model of runtime '{wanted or '?'}'; have {', '.join(models)}. "
                f"Fit one by nas fit runtime={wanted or 'NAME'}, or choose another runtime="
            )
        self._model, _ = GraphLatency.load(place / wanted)
        self._version = self.card["runtimes"].get(wanted)
        self._asked = runtime.version if runtime is not None else self._version
        self.factor = 1.0
        self._std_factor = 1.0

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]]) -> None:
        """Shift all predictions to a few measurements; none leave the model as it is.

        Raises:
            MeasurementError: a time that is not positive.
        """
        if not measurements:
            return
        measured = times_of(measurements, self.name, fewest=1)
        before = [self._model.predict(graph, device) for graph, device, _ in measurements]
        mean = np.array([estimate.mean for estimate in before])
        share = np.array([estimate.std / estimate.mean for estimate in before])
        logs = np.log(measured / mean)
        # One measurement moves the factor half of the way, many all of it.
        self.factor = math.exp(float(np.median(logs)) * len(logs) / (len(logs) + 1))
        left = np.abs(logs - math.log(self.factor))
        seen = float(np.sqrt(np.mean((left / np.maximum(share, 1e-6)) ** 2)))
        weight = len(logs) / (len(logs) + _TRUSTED)
        self._std_factor = math.sqrt((1 - weight) + weight * seen**2)

    def predict(self, graph: Graph, device: Device) -> Estimate:
        """Return milliseconds; the deviation grows with each doubt."""
        return self.predict_all([graph], device)[0]

    def predict_all(self, graphs: Sequence[Graph], device: Device) -> list[Estimate]:
        """Return :meth:`predict` of each graph, in less time than one by one."""
        made = self._model.predict_all(graphs, device)
        return [
            Estimate(
                estimate.mean * self.factor,
                estimate.std * self.factor * self._std_factor * self._widening(graph, device),
                "ms",
                self.name,
                device.name,
            )
            for graph, estimate in zip(graphs, made, strict=True)
        ]

    def parts(self, graph: Graph, device: Device) -> list[PredictedPart]:
        """Return the kernels; their shares sum to the prediction."""
        return [
            PredictedPart(part.name, part.kind, part.latency_ms * self.factor, part.known, part.ops)
            for part in self._model.parts(graph, device)
        ]

    def doubts(self, graph: Graph, device: Device) -> list[str]:
        """Return why the interval is wider than the card's."""
        found = []
        if not self._same_device(device):
            found.append(
                f"fitted on device '{self.card['device']}' ({self.card['device_key']}), not on '{device.name}' "
                f"({device.key}); the interval is {_OTHER_DEVICE:g} times as wide"
            )
        if self._asked != self._version:
            wide = f"{_OTHER_VERSION:g} times as wide"
            found.append(f"fitted with {self._version}, not with {self._asked}; the interval is {wide}")
        return [*found, *self._model.doubts(graph, device)]

    def _same_device(self, device: Device) -> bool:
        return bool(self.card["device_key"] == device.key)

    def _widening(self, graph: Graph, device: Device) -> float:
        factor = 1.0 if self._same_device(device) else _OTHER_DEVICE
        factor *= 1.0 if self._asked == self._version else _OTHER_VERSION
        return min(factor, _MOST_WIDENING)
