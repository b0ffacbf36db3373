"""A device of a search: takes the costs of a candidate there; on a further one their names carry the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.architecture import Architecture
from nas.cost_protocols import EnergyModel
from nas.errors import CandidateError, MeasurementError, NasError
from nas.graph import Graph
from nas.measurement import Estimate, Measurement
from nas.protocols import CostMeter
from nas.screen import Screen
from nas.targets import on_device


@dataclass(frozen=True)
class Target:
    """A device of a search.

    Args:
        name: as the search calls it; empty for the first or only one.
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
        except (CandidateError, MeasurementError) as error:
            if not self.name:
                raise
            raise self._named(error) from error
        return {
            on_device(metric, self.name): reading
            for metric, reading in readings.items()
            if metric != "energy_mj" or self.energy_model is None
        }

    def _named(self, error: CandidateError | MeasurementError) -> NasError:
        if isinstance(error, CandidateError):
            return CandidateError(error.kind, f"on device '{self.name}': {error.reason}")
        return MeasurementError(f"device '{self.name}': {error}")

    def timings(self, model: Path, architecture: Architecture, graph: Graph) -> dict[str, Measurement | Estimate]:
        """Return the costs of a candidate there, measured or predicted, a modelled energy left out.

        Raises:
            CandidateError, MeasurementError: as :meth:`measured`.
        """
        if self.meter is not None:
            return self.measured(model)
        predicted = self.screen.timings(architecture, graph)
        return {on_device(metric, self.name): estimate for metric, estimate in predicted.items()}

    def energy(self, graph: Graph) -> dict[str, Estimate]:
        """Return the modelled energy, where there is a model."""
        if self.energy_model is None:
            return {}
        return {on_device("energy_mj", self.name): self.energy_model.predict_energy(graph, self.screen.device)}
