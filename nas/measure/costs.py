"""The costs of one candidate on all devices of a search: measured, predicted, or measured where that could matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.architecture import Architecture
from nas.doubt import LATENCY, PREDICTION, Guess, why_measure
from nas.graph import Graph
from nas.measure.target import Target
from nas.measurement import Estimate, Measurement
from nas.progress import InfeasibleError, Progress
from nas.screen import TIMED, Screen
from nas.targets import on_device, own_axes, own_values, split


@dataclass(frozen=True)
class Costs:
    """Takes costs and notes them in a candidate's progress.

    Args:
        screen: of the search; its bounds hold on every device.
        devices: the first one under an empty name.
    """

    screen: Screen
    devices: Sequence[Target]

    def of_untrained(
        self, model: Path, bounds: Mapping[str, float], progress: Progress, guesses: Mapping[str, Guess]
    ) -> Mapping[str, Measurement | Estimate]:
        """Return what bounds on time and memory are held against; where there is a guess only what is in doubt.

        Args:
            model: file with untrained weights.
            bounds: metric to the largest value allowed.
            progress: gets what was read under a guess, so that it is not read again.
            guesses: of the latency, by device.

        Raises:
            InfeasibleError: a whole interval lies beyond its bound.
        """
        for name, guess in guesses.items():
            self._refuse_as_predicted(on_device(LATENCY, name), guess, bounds, progress)
        bound_on = {device for metric, device in map(split, bounds) if metric in (*TIMED, "memory_kib")}
        found: dict[str, Measurement | Estimate] = {}
        for device in self.devices:
            guessed = guesses.get(device.name)
            sure = guessed is not None and not guessed.doubts_bound(bounds.get(on_device(LATENCY, device.name)))
            if device.name not in bound_on or sure:
                continue
            readings = device.measured(model)
            found |= readings
            if guessed is not None:
                progress.note_all(readings)
        return found

    def _refuse_as_predicted(self, metric: str, guess: Guess, bounds: Mapping[str, float], progress: Progress) -> None:
        bound = bounds.get(metric)
        if not guess.exceeds(bound):
            return
        assert bound is not None
        progress.note(metric, guess.estimate)
        violated = {metric: guess.estimate.mean - bound}
        raise InfeasibleError(violated, f"as predicted, with its whole interval, {self.screen.explain(violated)}")

    def take(
        self,
        model: Path,
        architecture: Architecture,
        graph: Graph,
        progress: Progress,
        guesses: Mapping[str, Guess],
        first: bool,
        top: bool,
    ) -> None:
        """Note all costs of a trained candidate.

        Args:
            model: quantized file.
            architecture: of it.
            graph: of it, lowered.
            progress: gets the costs; its values so far decide what is in doubt.
            guesses: of the latency, by device.
            first: whether this is the first rung of its training.
            top: whether it is the last one.
        """
        for device in self.devices:
            progress.note_all(device.energy(graph))
            # Between the first rung and the top the time of the first holds: it does not depend on the weights' values.
            if device.name not in guesses and (first or top):
                with progress.phase("measure"):
                    progress.note_all(device.timings(model, architecture, graph))
        guessed = [device for device in self.devices if device.name in guesses]
        unread = [device for device in guessed if not progress.is_measured(on_device(LATENCY, device.name))]
        for device in unread:
            for metric in (LATENCY, PREDICTION):
                progress.note(on_device(metric, device.name), guesses[device.name].estimate)
        if top:
            self._read_doubtful(unread, model, progress, guesses)

    def _read_doubtful(
        self, devices: Sequence[Target], model: Path, progress: Progress, guesses: Mapping[str, Guess]
    ) -> None:
        """Measure on each device only what could change its own front or what is feasible."""
        for device in devices:
            # What was read on one device may end the matter for all.
            if self._is_read_beyond_a_bound(progress):
                return
            axes = own_axes(device.screen.objectives)
            values = own_values(progress.values, axes, device.name)
            bound = self.screen.bounds.get(on_device(LATENCY, device.name))
            reason = why_measure(guesses[device.name], values, axes, bound)
            if not reason:
                continue
            where = f" on {device.name}" if device.name else ""
            print(f"{model.parent.name} is measured{where}: {reason}", flush=True)
            with progress.phase("measure"):
                progress.note_all(device.measured(model))

    def _is_read_beyond_a_bound(self, progress: Progress) -> bool:
        bounds = self.screen.bounds.items()
        return any(progress.is_measured(metric) and progress.values[metric] > bound for metric, bound in bounds)
