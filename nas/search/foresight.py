"""The latency model that learns while a search runs: predicts each candidate before it is evaluated, and is fed back.

Nothing of it is kept but what stands in the store: a search that goes on fits the model anew on the measurements there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nas.architecture import Architecture
from nas.cost_protocols import LatencyModel
from nas.doubt import LATENCY, Guess, Rival, interval
from nas.evaluation import Evaluation
from nas.graph import Graph
from nas.measurement import Estimate, Measurement, number_from_dict
from nas.screen import Screen
from nas.search.front import Members, front_of
from nas.targets import seen_on


class Foresight:
    """Predicts latencies from all that were measured so far.

    Args:
        model: learns online; fitted anew before the first prediction after new measurements.
        screen: its space lowers, its objectives span the front.
        least_gain: hypervolume, as a share of its box, below which a place on the front is not worth a measurement.
    """

    def __init__(self, model: LatencyModel, screen: Screen, least_gain: float = 0.0) -> None:
        self._model, self._screen, self.least_gain = model, screen, least_gain
        self._graphs: dict[str, Graph] = {}
        self._measured: dict[str, Measurement] = {}
        self._stale = False

    def learn(self, evaluations: Iterable[Evaluation]) -> None:
        """Take note of every latency that was measured; a later reading of an architecture replaces an earlier one."""
        for evaluation in evaluations:
            reading = latency_of(evaluation)
            if isinstance(reading, Measurement):
                self._graph(evaluation.architecture)
                self._measured[evaluation.architecture.id] = reading
                self._stale = True

    def predict(self, architecture: Architecture) -> Estimate:
        """Return the latency as the model sees it now."""
        if self._stale:
            device = self._screen.device
            self._model.fit([(self._graphs[name], device, reading) for name, reading in self._measured.items()])
            self._stale = False
        return self._model.predict(self._graph(architecture), self._screen.device)

    def guess(self, architecture: Architecture, members: Members) -> Guess:
        """Return a candidate's estimate and the front that it is to be held against.

        Args:
            architecture: about to be evaluated.
            members: complete candidates; those that were not measured are predicted anew.
        """
        front = front_of(self.renewed(members), self._screen.objectives)
        axes = [objective.metric for objective in self._screen.objectives]
        rivals = []
        for number, evaluation in front:
            latency = latency_of(evaluation)
            worst_ms = interval(latency)[1] if latency is not None else 0.0
            rivals.append(Rival(number, {axis: evaluation.values[axis] for axis in axes}, worst_ms))
        return Guess(self.predict(architecture), tuple(rivals), self.least_gain)

    def renewed(self, members: Members) -> Members:
        """Return the members with the latencies that nobody measured predicted anew."""
        return [
            (number, evaluation)
            if isinstance(latency_of(evaluation), Measurement)
            else (number, with_estimate(evaluation, self.predict(evaluation.architecture)))
            for number, evaluation in members
        ]

    def _graph(self, architecture: Architecture) -> Graph:
        if architecture.id not in self._graphs:
            self._graphs[architecture.id] = self._screen.space.lower(architecture)
        return self._graphs[architecture.id]


@dataclass(frozen=True)
class Outlook:
    """What is foreseen on each device of a search whose latencies are predicted first; each has a model of its own.

    Args:
        foresights: by device, under an empty name that of the first or only one.
        first: name of the first device, empty in a search for one.
    """

    foresights: Mapping[str, Foresight]
    first: str = ""

    def learn(self, evaluations: Iterable[Evaluation]) -> None:
        """Take note of what was measured on each device."""
        found = list(evaluations)
        for device, foresight in self.foresights.items():
            foresight.learn(self._seen(evaluation, device) for evaluation in found)

    def guesses(self, architecture: Architecture, members: Members) -> dict[str, Guess]:
        """Return per device a candidate's estimate and the device's own front, against which it is to be held.

        Args:
            architecture: about to be evaluated.
            members: complete candidates, as the search names their values.
        """
        return {
            device: foresight.guess(architecture, [(number, self._seen(one, device)) for number, one in members])
            for device, foresight in self.foresights.items()
        }

    def _seen(self, evaluation: Evaluation, device: str) -> Evaluation:
        return seen_on(evaluation, self.first, device) if device else evaluation


def latency_of(evaluation: Evaluation) -> Measurement | Estimate | None:
    """Return the latency with its provenance, or None where the evaluation did not get that far."""
    origin = evaluation.provenance.get(LATENCY)
    return number_from_dict(origin) if origin else None


def with_estimate(evaluation: Evaluation, estimate: Estimate) -> Evaluation:
    """Return an evaluation that was not measured with another estimate of its latency."""
    return replace(
        evaluation,
        values={**evaluation.values, LATENCY: estimate.mean},
        provenance={**evaluation.provenance, LATENCY: estimate.to_dict()},
    )
