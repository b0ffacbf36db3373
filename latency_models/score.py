"""Scores a model on a table of measurements: splits, fits, predicts what was held out, and compares with baselines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.encodings import encoder
from latency_models.encodings.blocks import Encoding
from latency_models.energy import EnergyFormula, work_of_rows
from latency_models.graph import GraphRegressor
from latency_models.metrics import average, scores
from latency_models.tables import Groups, group_rows, read_table, split_rows
from latency_models.transfer import FewShot

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_ENERGY_UNITS = {"_mj": 1.0, "_j": 1e3, "_wh": 3.6e6}
_TIME_UNITS = {"_ms": 1.0, "_us": 1e-3, "_s": 1e3}
POOL = 900  # architectures that the known devices have measured, and among which few-shot adaptation chooses


@dataclass(frozen=True)
class Task:
    """One column to predict.

    Args:
        encoding: of all rows of the table.
        target: measured values, NaN where missing.
        groups: of its rows.
        latency: measured latency of each row, for an energy target.
        millijoules: (unit of the target in mJ, unit of the latency in ms), where both columns name their unit.
    """

    encoding: Encoding
    target: Array
    groups: Groups
    latency: Array | None = None
    millijoules: tuple[float, float] | None = None

    def blocks(self, rows: Rows) -> dict[str, Array]:
        """Return the features of the graphs that were measured for ``rows``, measured latency among them."""
        found = self.encoding.rows(self.groups.source[rows])
        return found if self.latency is None else {**found, "latency": self.latency[rows, None]}


@dataclass(frozen=True)
class TableScorer:
    """Holds architectures out whole and scores predictions of them, as means over several splits.

    Args:
        candidates: regressors that take part, see ``latency_models.graph.CANDIDATES``; None for the usual ones.

    Raises:
        ConfigError: one is unknown.
    """

    candidates: Sequence[str] | None = None

    def __post_init__(self) -> None:
        GraphRegressor(self.candidates)

    def score(
        self,
        table: str,
        space: str,
        target: str,
        train: int,
        seeds: int,
        latency: str | None = None,
        transfer_from: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return scores of the model and of the baselines, JSON-ready.

        Args:
            table: CSV or Parquet file.
            space: names the encoder.
            target: column to predict, or columns joined by ``+`` whose sum is predicted.
            train: rows to learn from.
            seeds: splits, numbered from 0.
            latency: column of the measured latency, where the target is an energy: the model then knows how long each
                architecture ran, as the baseline of constant watts does.
            transfer_from: columns of the devices known already; ``train`` rows are measured on the target then.
        """
        started = time.monotonic()
        read = read_table(table)
        values = read.numbers(target)
        times = read.numbers(latency) if latency else None
        known = np.where(np.isfinite(times) & (times > 0), values, np.nan) if times is not None else values
        task = Task(encoder(space)(read), known, group_rows(read, known), times, _units(target, latency))
        if transfer_from:
            known_devices = np.stack([read.numbers(column) for column in transfer_from], axis=1)
            runs = [_run_transfer(task, known_devices, train, seed) for seed in range(seeds)]
        else:
            runs = [_run(task, train, seed, self.candidates) for seed in range(seeds)]
        report: dict[str, Any] = average([run["scores"] for run in runs])
        report["baseline"] = {name: average([run["baseline"][name] for run in runs]) for name in runs[0]["baseline"]}
        if task.latency is not None:
            report["beats_constant_watts"] = _beats(report, report["baseline"]["latency_x_constant_watts"])
        return {
            **report,
            "chosen": [run["chosen"] for run in runs],
            "n_train": round(sum(run["n_train"] for run in runs) / seeds),
            "n_test": round(sum(run["n_test"] for run in runs) / seeds),
            "n_dropped": task.groups.dropped,
            "n_inherited": task.groups.inherited,
            "target": target,
            "space": space,
            "seeds": seeds,
            "seconds": round(time.monotonic() - started, 1),
        }


def _run(task: Task, train: int, seed: int, candidates: Sequence[str] | None) -> dict[str, Any]:
    learn, test = split_rows(task.groups, train, seed)
    model = GraphRegressor(candidates).fit(task.blocks(learn), task.target[learn], task.groups.of_row[learn])
    mean, std = model.predict(task.blocks(test))
    return {
        "scores": scores(task.target[test], mean, std),
        "baseline": _baselines(task, learn, test),
        "chosen": model.chosen.name,
        "n_train": len(learn),
        "n_test": len(test),
    }


def _run_transfer(task: Task, known: Array, count: int, seed: int) -> dict[str, Any]:
    """Adapt to the target from ``count`` measurements; what is scored was seen on no device, known ones included."""
    pool, test = split_rows(task.groups, POOL, seed)
    usable = pool[(np.isfinite(known[pool]) & (known[pool] > 0)).all(axis=1)]
    model = FewShot().fit_sources(task.encoding.rows(usable), known[usable])
    picked = model.choose(count)
    model.adapt(picked, task.target[usable[picked]])
    mean, std = model.predict(task.encoding.rows(test))
    learn = usable[picked]
    return {
        "scores": scores(task.target[test], mean, std),
        "baseline": _baselines(task, learn, test),
        "chosen": "transfer",
        "n_train": len(learn),
        "n_test": len(test),
    }


def _units(target: str, latency: str | None) -> tuple[float, float] | None:
    """Return what an energy column and a latency column count in, in mJ and ms, by the endings of their names."""
    joules = next((factor for ending, factor in _ENERGY_UNITS.items() if target.endswith(ending)), None)
    seconds = next((factor for ending, factor in _TIME_UNITS.items() if (latency or "").endswith(ending)), None)
    return None if joules is None or seconds is None else (joules, seconds)


def _formula(task: Task, macs_and_bytes: Array, learn: Rows, test: Rows) -> tuple[Array, Array]:
    """Return what E = a MACs + b bytes + static power x latency makes of the test rows, in the unit of the target."""
    assert task.latency is not None
    assert task.millijoules is not None
    energy, time_unit = task.millijoules
    work, latency_ms = work_of_rows(macs_and_bytes[task.groups.source]), task.latency * time_unit
    model = EnergyFormula().fit(work[learn], latency_ms[learn], task.target[learn] * energy, task.groups.of_row[learn])
    mean, std = model.predict(work[test], latency_ms[test])
    return mean / energy, std / energy


def _beats(model: Mapping[str, Any], baseline: Mapping[str, Any]) -> bool:
    """Tell whether the model errs less than the baseline; one that does not is not worth its parameters."""
    return bool(model["mape"] < baseline["mape"])


def _baselines(task: Task, learn: Rows, test: Rows) -> Mapping[str, Mapping[str, float | None]]:
    found = {}
    measured = task.target[test]
    rows = task.encoding.per_choice
    found["linear_per_choice"] = scores(measured, _least_squares(rows, task.target, learn, test))
    if task.encoding.roofline is not None:
        found["roofline"] = scores(measured, _roofline(task.encoding.roofline, task.target, learn, test))
    if task.latency is not None:
        watts = float(np.median(task.target[learn] / task.latency[learn]))
        if task.encoding.roofline is not None and task.millijoules:
            found["energy_formula"] = scores(measured, *_formula(task, task.encoding.roofline, learn, test))
        found["latency_x_constant_watts"] = scores(measured, watts * task.latency[test])
        alone = replace(task, latency=None)
        model = GraphRegressor().fit(alone.blocks(learn), task.target[learn], task.groups.of_row[learn])
        found["same_model_without_latency"] = scores(measured, *model.predict(alone.blocks(test)))
    return found


def _least_squares(rows: Array, target: Array, learn: Rows, test: Rows) -> Array:
    ones = np.ones((len(rows), 1))
    full = np.hstack([ones, rows])
    solution = np.linalg.lstsq(full[learn], target[learn], rcond=None)[0]
    predicted: Array = full[test] @ solution
    return predicted


def _roofline(work: Array, target: Array, learn: Rows, test: Rows) -> Array:
    """Return max(macs / peak, bytes / bandwidth), its two rates fitted so that no better ones of this form exist."""
    best, found = np.inf, np.empty(0)
    for log_ratio in np.linspace(-3, 3, 61):
        balance = 10**log_ratio * np.median(work[learn, 1]) / np.median(work[learn, 0])
        time_units = np.maximum(work[:, 0] * balance, work[:, 1])
        scale = np.median(target[learn] / time_units[learn])
        error = float(np.minimum(np.abs(scale * time_units[learn] / target[learn] - 1), 1).mean())
        if error < best:
            best, found = error, scale * time_units[test]
    return found
