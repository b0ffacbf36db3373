"""A further device of a search: takes the costs of a candidate there, under names that carry the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.architecture import Architecture
from nas.cost_protocols import EnergyModel
from nas.errors import CandidateError, MeasurementError
from nas.graph import Graph
from nas.measurement import Estimate, Measurement
from nas.protocols import CostMeter
from nas.screen import Screen
from nas.targets import on_device


@dataclass(frozen=True)
class Target:
    """One of several devices of a search.

    Args:
        name: as the search calls it.
        screen: the device, its latency model and its limits.
        meter: measures there, or None to predict.
        energy_model: labelled estimate of the energy, or None.
    """

    name: str
    screen: Screen
    meter: CostMeter | None
    energy_model: EnergyModel | None

    def measured(self, model: Path) -> dict[str, Measurement | Estimate]:
        """Return what the meter reads of a model file; empty where nothing is measured.

        Raises:
            CandidateError: the model failed there; the device is named.
            MeasurementError: the device could not be used; it is named.
        """
        if self.meter is None:
            return {}
        try:
            readings = self.meter.measure(model)
        except CandidateError as error:
            raise CandidateError(error.kind, f"on device '{self.name}': {error.reason}") from error
        except MeasurementError as error:
            raise MeasurementError(f"device '{self.name}': {error}") from error
        return {
            on_device(metric, self.name): reading
            for metric, reading in readings.items()
            if metric != "energy_mj" or self.energy_model is None
        }

    def costs(self, model: Path, architecture: Architecture, graph: Graph) -> dict[str, Measurement | Estimate]:
        """Return all costs of a candidate there, measured or predicted.

        Raises:
            CandidateError, MeasurementError: as :meth:`measured`.
        """
        costs = self.measured(model)
        if self.meter is None:
            for metric, estimate in self.screen.timings(architecture, graph).items():
                costs[on_device(metric, self.name)] = estimate
        if self.energy_model is not None:
            energy = self.energy_model.predict_energy(graph, self.screen.device)
            costs[on_device("energy_mj", self.name)] = energy
        return costs
