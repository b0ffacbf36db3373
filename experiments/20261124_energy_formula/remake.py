"""Scores the formula of energy against latency x constant watts: python experiments/20261124_energy_formula/remake.py

The splits are those of nas score-latency, whose table shows the same numbers as ``energy_formula`` beside slower models.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from report import table, write_between

from latency_models.encodings import encoder
from latency_models.energy import EnergyFormula, work_of_rows
from latency_models.metrics import average, scores
from latency_models.tables import group_rows, read_table, split_rows

SHARED = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data"))
GPT = "hw_gpt_bench/gpt_s.parquet"
ROWS = (
    (
        "Raspberry Pi 5, CPU rail",
        "nasbench201/nasbench201.parquet",
        "nasbench201",
        "energy_pi5_onnx_mj",
        1.0,
        "latency_pi5_onnx_ms",
        1.0,
    ),
    ("x86 server CPU", GPT, "hw_gpt_bench", "energy_cpu_mlgpu_wh", 3.6e6, "latency_cpu_mlgpu_s", 1e3),
    ("A100", GPT, "hw_gpt_bench", "energy_a100_wh", 3.6e6, "latency_a100_ms", 1.0),
)
SHOWN = ("spearman", "within_5_pct", "within_10_pct", "mape", "coverage_90")
SIZES = (10, 100, 900)


def main() -> None:
    """Score each column at three sizes of the training set, five splits each."""
    lines = []
    for name, file, space, target, to_mj, latency, to_ms in ROWS:
        read = read_table(SHARED / file)
        energy, time = read.numbers(target) * to_mj, read.numbers(latency) * to_ms
        groups = group_rows(read, np.where(time > 0, energy, np.nan))
        macs_and_bytes = encoder(space)(read).roofline
        assert macs_and_bytes is not None
        work = work_of_rows(macs_and_bytes[groups.source])
        for size in SIZES:
            runs: dict[str, list[dict[str, float | None]]] = {"formula": [], "latency x watts": []}
            for seed in range(5):
                learn, test = split_rows(groups, size, seed)
                model = EnergyFormula().fit(work[learn], time[learn], energy[learn], groups.of_row[learn])
                runs["formula"].append(scores(energy[test], *model.predict(work[test], time[test])))
                watts = np.median(energy[learn] / time[learn])
                runs["latency x watts"].append(scores(energy[test], watts * time[test]))
            for kind, found in runs.items():
                means = average(found)
                shown = [
                    "-" if means[s] is None else f"{means[s]:.4f}" if s == "spearman" else f"{means[s]:.1%}"
                    for s in SHOWN
                ]
                lines.append([name, size, kind, *shown])
            last = ", ".join(f"{term} {value:.3g}" for term, value in model.coefficients.items())
            print(f"{name}, {size}: {last}; {model.verdict}", flush=True)
    write_between(HERE / "README.md", "scores", table(["column", "train", "model", *SHOWN], lines))


if __name__ == "__main__":
    main()
