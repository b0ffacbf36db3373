"""A regressor on real graphs: the additive model first, then what a regression adds to it, whatever validates best.

The additive model knows what kernels are and that they add up; it does not know caches, threads of a pipeline, or
shapes that a kernel likes less. A regression on the same sums of features, on the additive prediction and on its
make-up may know; several are tried, the additive model alone among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.additive import Additive, Profile, relative_deviation, rows_of, times_of
from latency_models.conformal import widening
from latency_models.graph import CANDIDATES, Regressor, validation_error
from latency_models.kernels import kernels
from latency_models.stored import load, save
from nas.cost_protocols import PredictedPart
from nas.device import Device
from nas.graph import Graph
from nas.measurement import Estimate, Measurement

Array = NDArray[np.float64]
Blocks = dict[str, Array]

ALONE = "additive"
_SLACK = 1.25  # of the largest sum seen: up to there a prediction is no extrapolation
_UNKNOWN = 1.0  # added to the relative deviation where a whole network is of unknown kernels


def _sums(model: Additive, rows: Array, base: Array) -> Blocks:
    return {"sums": rows, "base": base[:, None]}


def _makeup(model: Additive, rows: Array, base: Array) -> Blocks:
    shares = model.shares(rows)
    return {
        "base": np.log(base)[:, None],
        "shares": shares,
        "sums": np.log1p(rows / model.typical),
    }


# Name to the regressor, what it sees, and whether it predicts the ratio to the additive model.
CHOICES: Mapping[str, tuple[str, Callable[[Additive, Array, Array], Blocks], bool]] = {
    "ridge_on_sums": ("ridge", _sums, False),
    "log_process": ("log_process", _makeup, False),
    "process_on_ratio": ("log_process", _makeup, True),
    "trees_on_ratio": ("trees", _makeup, True),
}


class GraphLatency:
    """Latency of real graphs; satisfies LatencyModel.

    Args:
        choices: which of ``CHOICES`` take part beside the additive model; None for all.
    """

    name = "graph_latency"

    def __init__(self, choices: Sequence[str] | None = None) -> None:
        self._choices = tuple(CHOICES if choices is None else choices)
        self._regressor: Regressor | None = None
        self.profiled = False

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]], profiles: Sequence[Profile] = ()) -> None:
        """Fit the additive model and all choices, keep what errs least on left-out networks, calibrate its interval.

        Args:
            measurements: whole networks.
            profiles: of parts of them; they take part where the additive model errs less with them.

        Raises:
            MeasurementError: as :meth:`Additive.fit`.
        """
        target = times_of(measurements, self.name)
        graphs = [graph for graph, _, _ in measurements]
        self.additive = Additive()
        self.additive.fit(measurements)
        if profiles:
            told = Additive()
            told.fit(measurements, profiles)
            self.additive = min(self.additive, told, key=lambda model: model.errors[model.fusion])
            self.profiled = self.additive is told
        rows, base, groups = self.additive.rows(graphs), self.additive.outside, np.arange(len(target))
        weights = np.ones(len(target))
        share = relative_deviation(target, base)
        outside: dict[str, tuple[Array, Array]] = {ALONE: (base, share * base)}
        fitted: dict[str, Regressor] = {}
        for name in self._choices:
            kind, sees, ratio = CHOICES[name]
            scale = base if ratio else np.ones_like(base)
            # The base that a regression learns from is one that has not seen the network either.
            fitted[name] = CANDIDATES[kind]().fit(sees(self.additive, rows, base), target / scale, groups)
            mean, std = fitted[name].left_out()
            outside[name] = mean * scale, std * scale
        self.errors = {name: validation_error(target, mean, weights) for name, (mean, _) in outside.items()}
        self.kind = min(self.errors, key=lambda name: self.errors[name])
        self._regressor = fitted.get(self.kind)
        mean, std = outside[self.kind]
        self._widening = widening(target - mean, std)
        self._share = share
        self._largest = rows.max(axis=0)
        self._smallest = float(target.min())

    @property
    def chosen(self) -> dict[str, Any]:
        """What was chosen by which errors on left-out networks, and what is fused."""
        return {
            "model": self.kind,
            "errors": self.errors,
            "fusion": self.additive.fusion,
            "profiled": self.profiled,
            "widening": self._widening,
        }

    def predict(self, graph: Graph, device: Device) -> Estimate:
        """Return milliseconds; the deviation widens with what no measurement has shown."""
        return self.predict_all([graph], device)[0]

    def predict_all(self, graphs: Sequence[Graph], device: Device) -> list[Estimate]:
        """Return :meth:`predict` of each graph, in less time than one by one."""
        made = [kernels(graph, self.additive.fusion) for graph in graphs]
        rows = rows_of(made, self.additive.columns)
        base = np.maximum(self.additive.means(rows), self._smallest / 2)
        mean, std = base, self._share * base
        if self._regressor is not None:
            _, sees, ratio = CHOICES[self.kind]
            mean, std = self._regressor.predict(sees(self.additive, rows, base))
            if ratio:
                mean, std = mean * base, std * base
        found = []
        known = {family for family, _ in self.additive.columns}
        for one, row, one_mean, one_std in zip(made, rows, mean.tolist(), std.tolist(), strict=True):
            beyond = self._beyond(row)
            unknown = sum(kernel.family not in known for kernel in one) / max(len(one), 1)
            middle = max(one_mean, self._smallest / 2)
            wide = one_std * self._widening * (1 + beyond) + middle * _UNKNOWN * unknown
            found.append(Estimate(middle, wide, "ms", self.name, device.name))
        return found

    def parts(self, graph: Graph, device: Device) -> list[PredictedPart]:
        """Return the kernels as the additive model shares the prediction out among them."""
        costs = self.additive.breakdown(graph)
        factor = self.predict(graph, device).mean / max(sum(cost.latency_ms for cost in costs), 1e-9)
        return [PredictedPart(cost.name, cost.family, cost.latency_ms * factor, cost.known, cost.ops) for cost in costs]

    def doubts(self, graph: Graph, device: Device) -> list[str]:
        """Return which kernels are unknown and which sums lie beyond those that were fitted."""
        found = []
        unknown = [cost for cost in self.additive.breakdown(graph) if not cost.known]
        if unknown:
            names = ", ".join(cost.name for cost in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            kinds = ", ".join(sorted({cost.family for cost in unknown}))
            found.append(
                f"{len(unknown)} kernels of kinds that were never timed ({kinds}): {names}; they count as nothing"
            )
        row = self.additive.rows([graph])[0]
        beyond = [
            (size / largest, column)
            for size, largest, column in zip(row, self._largest, self.additive.columns, strict=True)
            if largest > 0 and size > _SLACK * largest
        ]
        if beyond:
            ratio, (family, feature) = max(beyond)
            found.append(
                f"{len(beyond)} of {len(row)} sums of features lie beyond what was timed, most of all {feature} of "
                f"{family} at {ratio:.1f} times the largest; the interval is {1 + self._beyond(row):.1f} times as wide"
            )
        return found

    def _beyond(self, row: Array) -> float:
        """Return by how much the deviation grows: the logarithm of the largest excess."""
        ratios = row[self._largest > 0] / (_SLACK * self._largest[self._largest > 0])
        return float(np.log2(max(ratios.max(initial=1.0), 1.0)))

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write arrays and a JSON card beside them; see ``stored``."""
        arrays = {f"additive/{name}": values for name, values in self.additive.to_arrays().items()}
        if self._regressor is not None:
            arrays |= {f"regressor/{name}": values for name, values in self._regressor.to_arrays().items()}
        arrays |= {
            "largest": self._largest,
            "numbers": np.array([self._widening, self._share, self._smallest]),
        }
        facts = {"kind_of_model": self.kind, "errors": self.errors, "additive": self.additive.facts()}
        save(path, self.name, arrays, {**facts, "card": dict(card)})

    @staticmethod
    def load(path: Path) -> tuple[GraphLatency, dict[str, Any]]:
        """Return the model of a file and its card.

        Raises:
            DataError: as :func:`latency_models.stored.load`.
        """
        arrays, facts = load(path, GraphLatency.name)
        model = GraphLatency()
        model.kind, model.errors = facts["kind_of_model"], dict(facts["errors"])
        model.additive = Additive.from_arrays(_under("additive/", arrays), facts["additive"])
        if model.kind != ALONE:
            model._regressor = CANDIDATES[CHOICES[model.kind][0]].from_arrays(_under("regressor/", arrays))
        model._largest = arrays["largest"]
        model._widening, model._share, model._smallest = (float(number) for number in arrays["numbers"])
        return model, facts["card"]


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
