"""Costs on a device that nobody can reach, from parameters fitted on published measurements of it or of its kin.

Best first: a regression on the choices of the space, where one was fitted for device and space; the roofline with
constants calibrated on the device; the roofline with the data sheet's. Each step away from what was measured (another
space, precision, size or runtime) widens the interval, and the estimate says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from latency_models.calibration import Calibration
from latency_models.encodings import nasbench201
from latency_models.energy import PRIOR_PICOJOULES, STATIC_WATTS, TERMS, EnergyFormula, work_of
from latency_models.graph import GraphRegressor
from latency_models.library import FOLDER, Entry, open_library
from latency_models.roofline import Roofline
from latency_models.tables import Table
from nas.architecture import Precision
from nas.device import Device, Peaks
from nas.errors import MeasurementError
from nas.graph import Graph
from nas.measurement import Estimate, Measurement, Provenance

_SPACE = "nasbench201"
_INT8_SHARE = 0.4  # deviation that a ratio of peaks from a data sheet adds, where int8 was never measured


@dataclass(frozen=True)
class _Guess:
    """A latency before its unit and device are known."""

    mean: float
    std: float
    model: str
    kind: Provenance
    notes: tuple[str, ...] = ()

    def times(self, factor: float) -> _Guess:
        return replace(self, mean=self.mean * factor, std=self.std * factor)

    def widened(self, share: float, note: str) -> _Guess:
        """Return it with a deviation of a share of the mean added, and the reason."""
        return replace(self, std=math.hypot(self.std, share * self.mean), notes=(*self.notes, note))


class Published:
    """Latency and energy from shipped parameters; satisfies LatencyModel, EnergyModel and Documented.

    Args:
        folder: of fitted models; None takes those of the package.
        relative_std: of the roofline where nothing was fitted for the device.
        cache_kib: last level of the device's caches, which decides where traffic goes for the energy.
    """

    name = "published"

    def __init__(self, folder: str | None = None, relative_std: float = 0.6, cache_kib: float = 1024.0) -> None:
        self._folder = Path(folder) if folder else FOLDER
        self._roofline = Roofline(relative_std)
        self._cache_kib = cache_kib
        self._log_factor = 0.0
        self._share: float | None = None
        self._load_graph = lru_cache(maxsize=None)(GraphRegressor.load)
        self._load_peaks = lru_cache(maxsize=None)(Calibration.load)
        self._load_energy = lru_cache(maxsize=None)(EnergyFormula.load)
        self._of_cell = lru_cache(maxsize=20000)(self._predict_cell)

    @cached_property
    def _library(self) -> Any:
        return open_library(self._folder)

    def fit(self, measurements: Sequence[tuple[Graph, Device, Measurement]]) -> None:
        """Scale all predictions by the geometric median of measured over predicted; three also set the deviation."""
        if not measurements:
            return
        logs = []
        for graph, device, measured in measurements:
            if not measured.median > 0:
                raise MeasurementError(f"published.fit: {measured.median} ms measured; expected more than 0")
            logs.append(math.log(measured.median / self._guess(graph, device).mean))
        self._log_factor = float(np.median(logs))
        if len(logs) >= 3:
            self._share = max(1.4826 * float(np.median(np.abs(np.array(logs) - self._log_factor))), 0.05)

    def predict(self, graph: Graph, device: Device) -> Estimate:
        """Return milliseconds; ``modelled`` as soon as a constant in it was not fitted.

        Raises:
            ConfigError: nothing was fitted for the device and it has no peaks.
        """
        guess = self._guess(graph, device).times(math.exp(self._log_factor))
        if self._share is not None:
            guess = replace(guess, std=self._share * guess.mean, kind="predicted", notes=())
        return Estimate(guess.mean, guess.std, "ms", guess.model, device.name, guess.kind, "; ".join(guess.notes))

    def predict_energy(self, graph: Graph, device: Device) -> Estimate:
        """Return millijoules from work, predicted latency and what was fitted; without a fit ``modelled``, and wide."""
        latency = self.predict(graph, device)
        entry = self._library.serving(device.name, "energy")
        formula = self._load_energy(entry.path)[0] if entry else _prior_of(device)
        work = work_of(graph, self._cache_kib)[None]
        mean, std = formula.predict(work, np.array([latency.mean]), latency.std)
        kind = formula.kind if latency.kind == "predicted" else "modelled"
        notes = [] if entry else ["no energy was measured on this device: coefficients are published constants"]
        notes += [f"its latency is {latency.kind}: {latency.note}"] if latency.note else []
        model = f"{entry.name if entry else EnergyFormula.name} on {latency.model}"
        return Estimate(float(mean[0]), float(std[0]), "mJ", model, device.name, kind, "; ".join(notes))  # type: ignore[arg-type]

    def cards(self, device: Device) -> Mapping[str, Any]:
        """Return the cards of what may serve a device, model name to card."""
        kinds = ("graph", "calibration", "energy")
        found = [entry for kind in kinds if (entry := self._library.serving(device.name, kind)) is not None]
        cards: dict[str, Any] = {entry.name: dict(entry.card) for entry in found}
        if not any(entry.kind == "calibration" for entry in found):
            cards |= self._roofline.cards(device)
        if not any(entry.kind == "energy" for entry in found):
            formula = _prior_of(device)
            cards["energy"] = {
                "fitted_on": "nothing",
                "formula": "a MACs(precision) + b bytes(level) + static power x latency",
                "priors_pj": dict(zip(TERMS, PRIOR_PICOJOULES.tolist(), strict=True)),
                "static_watts": formula.static_watts,
                "sources": "Horowitz, ISSCC 2014, figure 1.1.9; Raspberry Pi documentation, power supplies",
                "verdict": formula.verdict,
            }
        checked = self._library.serving(device.name, "validation")
        if checked is not None:
            cards = {name: {**card, "validated_on": dict(checked.card)} for name, card in cards.items()}
        return cards

    def _guess(self, graph: Graph, device: Device) -> _Guess:
        chosen = graph.architecture.space if graph.architecture else None
        entry = self._library.serving(device.name, "graph", chosen) if chosen == _SPACE else None
        if entry is None:
            return self._calibrated(graph, device)
        assert graph.architecture is not None
        cell = nasbench201.live_text(graph.architecture.choices)
        reason = _outside(graph, cell)
        if reason:
            return self._calibrated(graph, device, f"{entry.name} was fitted on 32 x 32 pixels: {reason}")
        guess = self._of_cell(entry.path, cell)
        return self._at_precision(guess, graph, device)

    def _predict_cell(self, path: Path, cell: str) -> _Guess:
        model, card = self._load_graph(path)
        blocks = nasbench201.encode(Table({"arch_str": [cell]}, "cell")).blocks
        mean, std = model.predict({name: blocks[name] for name in card["blocks"]})
        return _Guess(float(mean[0]), float(std[0]), path.name, "predicted")

    def _at_precision(self, guess: _Guess, graph: Graph, device: Device) -> _Guess:
        """Return a guess made for fp32, scaled by what the roofline says of the graph's own precisions."""
        if all(op.dtype is Precision.FP32 for op in graph.ops):
            return guess
        _, peaks = self._peaks(device)
        floats = Graph(tuple(replace(op, dtype=Precision.FP32) for op in graph.ops), graph.input_shape)
        known = replace(device, peaks=peaks)
        ratio = self._roofline.predict(graph, known).mean / self._roofline.predict(floats, known).mean
        note = "int8 was not measured: the ratio to fp32 is the roofline's"
        return replace(guess.times(ratio).widened(_INT8_SHARE, note), kind="modelled")

    def _calibrated(self, graph: Graph, device: Device, note: str = "") -> _Guess:
        entry, peaks = self._peaks(device)
        if entry is None:
            found = self._roofline.predict(graph, device)
            known = f"nothing was fitted on this device; its peaks: {device.peaks.source if device.peaks else 'none'}"
            return _Guess(found.mean, found.std, found.model, found.kind, (note, known) if note else (known,))
        mean = self._roofline.predict(graph, replace(device, peaks=peaks)).mean
        calibration = self._load_peaks(entry.path)[0]
        guess = _Guess(mean, 0.0, entry.name, "predicted", (note,) if note else ())
        guess = guess.widened(calibration.outside, str(entry.card["outside"]))
        if any(op.dtype is not Precision.FP32 for op in graph.ops):
            guess = replace(guess.widened(_INT8_SHARE, "int8 was not measured"), kind="modelled")
        return guess

    def _peaks(self, device: Device) -> tuple[Entry | None, Peaks | None]:
        """Return the calibration of a device and peaks made of it; int8 keeps the data sheet's ratio to fp32."""
        entry = self._library.serving(device.name, "calibration")
        if entry is None:
            return None, device.peaks
        found = self._load_peaks(entry.path)[0]
        sheet = device.peaks
        ratio = sheet.int8_gmacs / sheet.fp32_gmacs if sheet else 1.0
        return entry, Peaks(
            found.fp32_gmacs, found.fp32_gmacs * ratio, found.bandwidth_gbs, found.op_overhead_us, f"{entry.name}"
        )


def _prior_of(device: Device) -> EnergyFormula:
    return EnergyFormula(STATIC_WATTS.get(device.name))


def _outside(graph: Graph, cell: str) -> str:
    """Return why a graph is not the published network around its cell, or an empty text."""
    if graph.input_shape[2:] != (32, 32):
        return f"this network reads {graph.input_shape[2]} x {graph.input_shape[3]}"
    macs = sum(op.macs for op in graph.ops if op.block.startswith("stage"))
    published = nasbench201.convolution_macs(cell)
    return "" if macs == published else f"its cells have {macs} MACs, the published ones {published:.0f}"
