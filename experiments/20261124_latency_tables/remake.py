"""Scores the cost models on every row of the table of bars: python experiments/20261124_latency_tables/remake.py [ROW ...].

Rows already scored lie in runs/experiments/latency_tables/ and are not scored again; the code that scored them is noted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from report import table, write_between

SHARED = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data"))
RUNS = Path("runs/experiments/latency_tables")
NASBENCH = "nasbench201/nasbench201.parquet"
FBNET = "fbnet/fbnet.parquet"
GPT = "hw_gpt_bench/gpt_s.parquet"
HAT_TARGET = "latency_mean_encoder+latency_mean_decoder"


@dataclass(frozen=True)
class Row:
    """One call of the verb and the bars that it is held against.

    Args:
        name: of the row and of its file.
        file: table, below the shared folder.
        space: of the architectures.
        target: column.
        train: measured rows.
        bars: score to what it must reach; ``mape`` is an upper limit.
        latency: column of the measured latency.
        transfer: adapt from all other latency columns of the file, those of the same card left out.
    """

    name: str
    file: str
    space: str
    target: str
    train: int
    bars: dict[str, float]
    latency: str = ""
    transfer: bool = False


ROWS = (
    Row("pi5_latency", NASBENCH, "nasbench201", "latency_pi5_onnx_ms", 900,
        {"spearman": 0.998, "within_5_pct": 0.97, "within_10_pct": 0.99}),
    Row("pi5_energy", NASBENCH, "nasbench201", "energy_pi5_onnx_mj", 900,
        {"spearman": 0.982, "within_10_pct": 0.96, "mape": 0.032}, latency="latency_pi5_onnx_ms"),
    Row("raspi4", NASBENCH, "nasbench201", "latency_raspi4_ms", 900, {"spearman": 0.975, "within_10_pct": 0.70}),
    Row("pixel3", NASBENCH, "nasbench201", "latency_pixel3_ms", 900, {"spearman": 0.975, "within_10_pct": 0.70}),
    Row("xeon_6226", NASBENCH, "nasbench201", "latency_xeon_gold_6226_ms", 900,
        {"spearman": 0.992, "within_10_pct": 0.96}),
    Row("cortex_a76", NASBENCH, "nasbench201", "latency_cortex_a76_tflite_ms", 500,
        {"within_5_pct": 0.95, "within_10_pct": 0.997}),
    Row("few_raspi4", NASBENCH, "nasbench201", "latency_raspi4_ms", 10, {"spearman": 0.95}, transfer=True),
    Row("few_xeon_6226", NASBENCH, "nasbench201", "latency_xeon_gold_6226_ms", 10, {"spearman": 0.98}, transfer=True),
    Row("few_titan_rtx_256", NASBENCH, "nasbench201", "latency_titan_rtx_batch256_ms", 10, {"spearman": 0.985},
        transfer=True),
    Row("few_fbnet_raspi4", FBNET, "fbnet", "latency_raspi4_ms", 10, {"spearman": 0.93}, transfer=True),
    Row("hat_raspi4", "hat/wmt14ende_cpu_raspberrypi_all.csv", "hat", HAT_TARGET, 1600,
        {"within_10_pct": 0.97, "mape": 0.03}),
    Row("hat_xeon", "hat/wmt14ende_cpu_xeon_all.csv", "hat", HAT_TARGET, 1600, {"within_10_pct": 0.97, "mape": 0.03}),
    Row("gpt_latency", GPT, "hw_gpt_bench", "latency_cpu_mlgpu_s", 2000, {"spearman": 0.98}),
    Row("gpt_energy", GPT, "hw_gpt_bench", "energy_cpu_mlgpu_wh", 2000, {"spearman": 0.97},
        latency="latency_cpu_mlgpu_s"),
)  # fmt: skip


def sources(row: Row) -> list[str]:
    """Return the latency columns of all other devices with a value in every row, the same card at another batch left out."""
    from latency_models.tables import read_table

    read = read_table(SHARED / row.file)
    card = row.target.split("_batch")[0] if "_batch" in row.target else row.target
    names = [name for name in read.columns if name.startswith("latency_") and not name.startswith(card)]
    return [name for name in names if all(value is not None for value in read.values(name))]


def score(row: Row) -> dict[str, Any]:
    """Return the report of the verb, from a file where the row was scored before."""
    kept = RUNS / f"{row.name}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    words = [
        f"table={SHARED / row.file}",
        f"space={row.space}",
        f"target={row.target}",
        f"train={row.train}",
        "seeds=5",
    ]
    words += [f"latency={row.latency}"] if row.latency else []
    words += [f"transfer_from=[{','.join(sources(row))}]"] if row.transfer else []
    print("$ nas score-latency", *words, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "nas", "score-latency", *words, "output=json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    report: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    RUNS.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(report, indent=1))
    return report


def shown(name: str, value: float | None) -> str:
    """Return a score as a reader wants it."""
    if value is None:
        return "-"
    return f"{value:.4f}" if name in ("spearman", "kendall") else f"{value:.1%}"


def reached(name: str, value: float, bar: float) -> bool:
    """Tell whether a score reaches its bar."""
    return value <= bar if name == "mape" else value >= bar


def bars_table(reports: dict[str, dict[str, Any]]) -> str:
    """Return measured against bar, a line per bar, with the baselines beside."""
    lines = []
    for row in ROWS:
        report = reports.get(row.name)
        if report is None:
            continue
        baselines = report["baseline"]
        for name, bar in row.bars.items():
            against = [
                shown(name, baselines.get(key, {}).get(name))
                for key in ("linear_per_choice", "roofline", "latency_x_constant_watts")
            ]
            verdict = "yes" if reached(name, report[name], bar) else "**no**"
            lines.append([row.name, name, shown(name, bar), shown(name, report[name]), verdict, *against])
        covered = report["coverage_90"]
        verdict = "yes" if 0.85 <= covered <= 0.95 else "**no**"
        lines.append([row.name, "coverage_90", "85 to 95 %", shown("coverage_90", covered), verdict, "-", "-", "-"])
    columns = ["row", "score", "bar", "measured", "reached", "linear per choice", "roofline", "latency x watts"]
    return table(columns, lines)


def whole_table(reports: dict[str, dict[str, Any]]) -> str:
    """Return all scores of each row."""
    names = ("spearman", "kendall", "within_5_pct", "within_10_pct", "mape", "coverage_90")
    lines = []
    for row in ROWS:
        report = reports.get(row.name)
        if report is not None:
            chosen = "/".join(sorted(set(report["chosen"])))
            numbers = [shown(name, report[name]) for name in names]
            lines.append([row.name, *numbers, report["n_train"], report["n_test"], chosen, f"{report['seconds']:.0f}"])
    return table(["row", *names, "train", "test", "chosen", "seconds"], lines)


def main() -> None:
    """Score the named rows, or all, and write the tables of what is there."""
    wanted = sys.argv[1:] or [row.name for row in ROWS]
    for row in ROWS:
        if row.name in wanted:
            score(row)
    have = {row.name: score(row) for row in ROWS if (RUNS / f"{row.name}.json").is_file()}
    write_between(HERE / "README.md", "bars", bars_table(have))
    write_between(HERE / "README.md", "scores", whole_table(have))


if __name__ == "__main__":
    main()
