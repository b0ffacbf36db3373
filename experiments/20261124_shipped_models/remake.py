"""Fits the parameters that ship in latency_models/shipped: python experiments/20261124_shipped_models/remake.py

Needs the tables in the folder that NAS_SHARED_DATA names. Only fitted parameters are written, never a measured value. A
regression that is there is kept; remove its files to fit it again.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from networks import work_of_cells, work_of_chains
from report import table, write_between

from latency_models.calibration import BELIEVED, Calibration, Work, calibrate
from latency_models.encodings import encoder
from latency_models.energy import STATIC_WATTS, EnergyFormula, work_of_rows
from latency_models.graph import GraphRegressor
from latency_models.library import FOLDER, open_library
from latency_models.metrics import average, scores
from latency_models.tables import Groups, Table, group_rows, read_table, split_rows

SHARED = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data"))
SEEDS, SHARE = 5, 0.8
CELL_SAMPLE = 1500
HELP = "HELP, Lee and others, NeurIPS 2021; files of its repository"
NN_METER = "nn-Meter, Zhang and others, MobiSys 2021; logs of its repository"
UNSAID = "not stated with the data"
NASBENCH, FBNET = "nasbench201/nasbench201.parquet", "fbnet/fbnet.parquet"
BLOCKS = {
    "nasbench201": ("live", "written_graph", "live_graph"),
    "fbnet": ("choices", "counts", "stage_counts", "stage_work", "work", "after_skip"),
    "hat": ("numbers", "products"),
    "hw_gpt_bench": ("sums", "work"),
}
# conf/device/rpi4.yaml and rpi5.yaml, whose core is a Cortex-A76
SHEETS = {"Raspberry Pi 4": (7.2, 12.8, 5.0), "Cortex-A76 of a phone": (19.2, 17.1, 3.0)}
NOTHING_ELSE = "parameters only; fitted anew by experiments/20261124_shipped_models/remake.py"


@dataclass(frozen=True)
class Source:
    """One column of a table, and what is known of how it was measured.

    Args:
        name: of the fitted model.
        device: in words.
        serves: names in conf/device.
        file: below the shared folder.
        space: encoder.
        target: column, or a+b.
        unit: of it.
        runtime: as the data say.
        source: whose data.
        licence: of the data.
    """

    name: str
    device: str
    serves: tuple[str, ...]
    file: str
    space: str
    target: str
    unit: str = "ms"
    runtime: str = UNSAID
    source: str = HELP
    licence: str = "MIT"


def _help(name: str, device: str, serves: str, cells: str, chains: str = "") -> list[Source]:
    made = [Source(f"nasbench201_{name}", device, (serves,), NASBENCH, "nasbench201", f"latency_{cells}_ms")]
    if chains:
        made.append(Source(f"fbnet_{name}", device, (serves,), FBNET, "fbnet", f"latency_{chains}_ms"))
    return made


SOURCES = (
    *_help("raspi4", "Raspberry Pi 4", "rpi4", "raspi4", "raspi4"),
    *_help("pixel3", "Google Pixel 3", "pixel3", "pixel3", "pixel3"),
    *_help("samsung_a50", "Samsung Galaxy A50", "samsung_a50", "samsung_a50", "samsung_a50"),
    *_help("samsung_s7", "Samsung Galaxy S7", "samsung_s7", "samsung_s7", "samsung_s7"),
    *_help("xeon_gold_6226", "Intel Xeon Gold 6226", "xeon_gold_6226", "xeon_gold_6226", "gold_6226"),
    *_help("xeon_gold_6240", "Intel Xeon Gold 6240", "xeon_gold_6240", "xeon_gold_6240", "gold_6240"),
    *_help("xeon_silver_4210r", "Intel Xeon Silver 4210R", "xeon_silver_4210r", "xeon_silver_4210r"),
    Source("nasbench201_cortex_a76", "Cortex-A76 of a phone", ("cortex_a76",), NASBENCH, "nasbench201",
           "latency_cortex_a76_tflite_ms", runtime="TFLite 2.1", source=NN_METER),
    Source("hat_raspi4", "Raspberry Pi 4", (), "hat/wmt14ende_cpu_raspberrypi_all.csv", "hat",
           "latency_mean_encoder+latency_mean_decoder", source="HAT, Wang and others, ACL 2020"),
    Source("hat_xeon", "Intel Xeon", (), "hat/wmt14ende_cpu_xeon_all.csv", "hat",
           "latency_mean_encoder+latency_mean_decoder", source="HAT, Wang and others, ACL 2020"),
    Source("gpt_cpu", "x86 server CPU (mlgpu)", (), "hw_gpt_bench/gpt_s.parquet", "hw_gpt_bench",
           "latency_cpu_mlgpu_s", "s", source="HW-GPT-Bench, Sukthanker and others, 2024", licence="Apache-2.0"),
)  # fmt: skip


@cache
def encoded_of(file: str, space: str) -> Any:
    """Return the blocks of a table, encoded once."""
    return encoder(space)(table_of(file)).blocks


@cache
def table_of(file: str) -> Table:
    """Return a table, read once."""
    return read_table(SHARED / file)


def prepare(source: Source) -> tuple[Table, np.ndarray, Groups]:
    """Return table, target and groups; of NAS-Bench-201 only cells without dead edges, as the search builds them."""
    read = table_of(source.file)
    target = read.numbers(source.target)
    if source.space == "nasbench201":
        target = np.where(whole_cells(), target, np.nan)
    return read, target, group_rows(read, target)


@cache
def whole_cells() -> np.ndarray:
    """Tell which cells carry something to the output on every edge that is not ``none``."""
    encoded = encoded_of(NASBENCH, "nasbench201")
    return (encoded["written"] == encoded["live"]).all(axis=1) & (encoded["live"][:, ::5].sum(axis=1) < 6)


def fit_choices(source: Source) -> list[object]:
    """Fit one column, score it on held-out groups, write it, and return its line of the table."""
    if (FOLDER / f"{source.name}.json").is_file():
        return _line(source, GraphRegressor.load(FOLDER / source.name)[1])
    _, target, groups = prepare(source)
    encoded = encoded_of(source.file, source.space)
    rows = sum(map(len, groups.measured.values()))
    runs = []
    for seed in range(SEEDS):
        learn, test = split_rows(groups, int(SHARE * rows), seed)
        mean, std = _fit(source, encoded, target, groups, learn).predict(_blocks(source, encoded, groups.source[test]))
        runs.append(scores(target[test], mean, std))
    found = average(runs)
    everything = np.array(sorted(row for group in groups.measured.values() for row in group))
    model = _fit(source, encoded, target, groups, everything)
    card = {
        **_facts(source),
        "space": source.space,
        "blocks": list(BLOCKS[source.space]),
        "cells": "of NAS-Bench-201 those without dead edges" if source.space == "nasbench201" else "all",
        "rows": len(everything),
        "scores": {name: round(value, 4) for name, value in found.items() if value is not None},
        "protocol": f"groups held out whole, {SHARE:.0%} of the rows to learn from, mean of {SEEDS} splits; fitted on all then",
    }
    model.save(FOLDER / source.name, card)
    return _line(source, card)


def _line(source: Source, card: dict[str, Any]) -> list[object]:
    found = card["scores"]
    shown = [f"{found[name]:.4f}" if name == "spearman" else f"{found[name]:.1%}" for name in SHOWN]
    return [source.name, source.device, source.runtime, card["rows"], *shown, source.licence]


SHOWN = ("spearman", "within_5_pct", "within_10_pct", "mape", "coverage_90")


def _fit(source: Source, encoded: Any, target: np.ndarray, groups: Groups, rows: np.ndarray) -> GraphRegressor:
    taken = _blocks(source, encoded, groups.source[rows])
    return GraphRegressor(("ridge",)).fit(taken, target[rows], groups.of_row[rows])


def _blocks(source: Source, encoded: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: encoded[name][rows] for name in BLOCKS[source.space]}


def _facts(source: Source) -> dict[str, Any]:
    return {
        "device": source.device,
        "serves": list(source.serves),
        "target": source.target,
        "unit": source.unit,
        "runtime": source.runtime,
        "threads": UNSAID,
        "precision": "fp32",
        "batch": 1,
        "source": source.source,
        "licence": source.licence,
        "contains": NOTHING_ELSE,
    }


def calibrations() -> list[list[object]]:
    """Calibrate a roofline per device: on both tables where there are two, and say how far the two are apart."""
    read, chains_table = table_of(NASBENCH), table_of(FBNET)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(whole_cells()))[:CELL_SAMPLE]
    a76 = np.flatnonzero(whole_cells() & np.isfinite(read.numbers("latency_cortex_a76_tflite_ms")))
    texts = read.values("arch_str")
    cells, cells_a76 = (work_of_cells([texts[row] for row in rows]) for rows in (chosen, a76))
    chains = work_of_chains([json.loads(str(text)) for text in chains_table.values("op_idx")])
    by_device: dict[str, list[Source]] = {}
    for source in SOURCES:
        if source.serves:
            by_device.setdefault(source.device, []).append(source)
    made, crossed = [], []
    for mine in by_device.values():
        rows, work = (a76, cells_a76) if mine[0].name.endswith("cortex_a76") else (chosen, cells)
        known = [(work, read.numbers(mine[0].target)[rows])]
        across, sheet = None, SHEETS.get(mine[0].device, BELIEVED)
        if len(mine) == 2:
            known.append((chains, chains_table.numbers(mine[1].target)))
            errors = [calibrate([part], 0.0, sheet).log_error(*other) for part, other in (known, known[::-1])]
            across = max(errors)
            crossed += errors
        made.append((mine, calibrate(known, 0.0, sheet), across, sum(len(ms) for _, ms in known)))
    apart = float(np.sqrt(np.mean(np.square(crossed))))
    return [_save(mine, found, across, apart, rows) for mine, found, across, rows in made]


def _save(mine: list[Source], found: Calibration, across: float | None, apart: float, rows: int) -> list[object]:
    """Write a calibration; what it says of a third space is a judgement from how far apart two are.

    Constants of two tables stand between them, half of their distance away from each. No device gets less than half of the
    distance over all devices, and one that was measured on a single space gets the whole.
    """
    outside = apart if across is None else max(across, apart) / 2
    source, spaces = mine[0], [each.space for each in mine]
    made = replace(found, outside=outside)
    name = f"roofline_{source.name.removeprefix('nasbench201_')}"
    constants = {field: getattr(made, field) for field in ("fp32_gmacs", "bandwidth_gbs", "op_overhead_us")}
    card = {
        **_facts(source),
        "space": " and ".join(spaces),
        "rows": rows,
        "constants": {key: round(value, 4) for key, value in constants.items()},
        "log_error_inside": round(made.inside, 3),
        "log_error_across_spaces": None if across is None else round(across, 3),
        "outside": f"calibrated on {' and '.join(spaces)}; another space or runtime may be off by e^{outside:.2f}",
        "int8": "not measured: the data sheet's ratio of int8 to fp32 where conf/device has one, else as fast as fp32",
    }
    made.save(FOLDER / name, card)
    shown = [f"{value:.3g}" for value in constants.values()]
    far = "-" if across is None else f"{across:.2f}"
    return [name, " + ".join(spaces), rows, *shown, f"{made.inside:.2f}", far, f"{outside:.2f}"]


def validated() -> list[list[object]]:
    """Hold what could serve the Raspberry Pi 5 against measurements on one, on which nothing here is fitted."""
    read = table_of(NASBENCH)
    rows = np.random.default_rng(1).permutation(np.flatnonzero(whole_cells()))[:CELL_SAMPLE]
    texts = [read.values("arch_str")[row] for row in rows]
    work = work_of_cells(texts)
    latency, energy = read.numbers("latency_pi5_onnx_ms")[rows], read.numbers("energy_pi5_onnx_mj")[rows]
    kin = Calibration.load(FOLDER / "roofline_cortex_a76")[0]
    entries = {entry.name: entry for entry in open_library().entries}
    a76 = entries["nasbench201_cortex_a76"].predict(Table({"arch_str": texts}, "cells"))[0]
    sheet = work.latency_ms(19.2, 17.1, 3.0)  # conf/device/rpi5.yaml
    guess, std = EnergyFormula(STATIC_WATTS["rpi5"]).predict(_energy_work(work), latency)
    found = {
        "latency, roofline of the data sheet": scores(latency, sheet, 0.6 * sheet),
        "latency, roofline_cortex_a76": scores(latency, kin.latency_ms(work), kin.outside * kin.latency_ms(work)),
        "latency, nasbench201_cortex_a76": scores(latency, a76, kin.outside * a76),
        "energy, priors and measured latency": scores(energy, guess, std),
    }
    middles = [
        np.median(latency / sheet),
        np.median(latency / kin.latency_ms(work)),
        np.median(latency / a76),
        np.median(energy / guess),
    ]
    _note_validation(found, middles)
    return [
        [name, f"{each['spearman']:.4f}", f"{middle:.2f}", f"{each['mape']:.1%}", f"{each['coverage_90']:.1%}"]
        for (name, each), middle in zip(found.items(), middles, strict=True)
    ]


def _note_validation(found: dict[str, Any], middles: list[Any]) -> None:
    """Write the card, without parameters, of what serves the Raspberry Pi 5."""
    taken = {name: middle for name, middle in zip(found, middles, strict=True) if "cortex" not in name}
    card = {
        "serves": ["rpi5"],
        "device": "Raspberry Pi 5",
        "space": "nasbench201",
        "rows": CELL_SAMPLE,
        "runtime": "ONNX Runtime, one thread",
        "precision": "fp32",
        "source": "HW-NAS-Bench-360",
        "licence": "none stated: it validates, and nothing was fitted on it",
        "energy_is": "of the CPU core's rail with idle power subtracted, where the prior counts a whole board",
        "scores": {
            name: {
                **{key: round(found[name][key], 4) for key in ("spearman", "mape", "coverage_90")},
                "measured_over_predicted": round(float(middle), 3),
            }
            for name, middle in taken.items()
        },
    }
    text = json.dumps({"format": 1, "kind": "validation", "card": card}, indent=1)
    (FOLDER / "validation_rpi5.json").write_text(text + "\n", encoding="utf-8")


def _energy_work(work: Work) -> np.ndarray:
    found = np.zeros((len(work.counts), 5))
    found[:, 0], found[:, 3] = work.counts @ work.macs, work.counts @ work.bytes
    return found


def energies() -> None:
    """Fit the formula of energy where a licence allows it: GPT-2 variants on a server's CPU."""
    read = table_of("hw_gpt_bench/gpt_s.parquet")
    latency, energy = 1e3 * read.numbers("latency_cpu_mlgpu_s"), 3.6e6 * read.numbers("energy_cpu_mlgpu_wh")
    known = np.isfinite(latency) & np.isfinite(energy) & (latency > 0) & (energy > 0)
    macs_and_bytes = encoder("hw_gpt_bench")(read).roofline
    assert macs_and_bytes is not None
    model = EnergyFormula().fit(work_of_rows(macs_and_bytes)[known], latency[known], energy[known])
    gpt = next(source for source in SOURCES if source.name == "gpt_cpu")
    card = {
        **_facts(gpt),
        "target": "energy_cpu_mlgpu_wh",
        "unit": "mJ",
        "space": "hw_gpt_bench",
        "rows": int(known.sum()),
    }
    model.save(FOLDER / "energy_gpt_cpu", {**card, "verdict": model.verdict, "latency": "needs the measured one"})


def main() -> None:
    """Write all parameters, and the tables of the README."""
    FOLDER.mkdir(exist_ok=True)
    lines = [fit_choices(source) for source in SOURCES]
    write_between(
        HERE / "README.md", "choices", table(["model", "device", "runtime", "rows", *SHOWN, "licence"], lines)
    )
    columns = [
        "model",
        "tables",
        "networks",
        "GMAC/s",
        "GB/s",
        "us per op",
        "inside",
        "from the other table",
        "outside",
    ]
    write_between(HERE / "README.md", "rooflines", table(columns, calibrations()))
    energies()
    lines = validated()
    write_between(
        HERE / "README.md", "pi5", table(["model", "spearman", "measured / predicted", "mape", "coverage_90"], lines)
    )
    total = sum(file.stat().st_size for file in FOLDER.iterdir())
    write_between(
        HERE / "README.md", "size", f"{len(list(FOLDER.glob('*.npz')))} models, {total / 1024:.0f} KiB in all."
    )


if __name__ == "__main__":
    main()
