"""Fits this machine by ``nas fit`` and writes its card and the tables of the README from it.

python experiments/20261124_fit_local/remake.py          # 10 minutes
python experiments/20261124_fit_local/remake.py tables   # from the card that is here
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COMMAND = (
    *("fit", "device=local", "space=convnet,hybrid,transformer", "runtime=onnxruntime,native", "minutes=10"),
    *("name=fit_local", "output=json"),
)
COLUMNS = ("kendall", "spearman", "within_5_pct", "within_10_pct", "mape", "coverage_90")


def main() -> None:
    """Fit, unless only tables are wanted, and write the tables."""
    card = HERE / "card.json"
    if sys.argv[1:] != ["tables"]:
        done = subprocess.run(
            [sys.executable, "-m", "nas", *COMMAND], stdout=subprocess.PIPE, text=True, check=True, cwd=HERE.parents[1]
        )
        report = json.loads(done.stdout.splitlines()[-1])
        card.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    write_tables(json.loads(card.read_text(encoding="utf-8")))


def write_tables(card: Mapping[str, Any]) -> None:
    """Write ``tables.md`` from a card."""
    lines = []
    for runtime, found in card["models"].items():
        lines += [
            f"{card['runtimes'][runtime]}: {found['n_train']} networks learned from, {found['n_test']} held out",
            "",
        ]
        rows = {f"model ({found['chosen']['model']})": found["scores"], **found["baseline"]}
        rows |= {f"model, {name}": scores for name, scores in {**found["by_space"], **found["by_precision"]}.items()}
        if found["repeats"]:
            rows["a second reading in another process"] = found["repeats"]
        lines += ["| predicted by | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        lines += [f"| {name} | " + " | ".join(shown(scores.get(column)) for column in COLUMNS) + " |" for name, scores in rows.items()]  # fmt: skip
        lines += ["", f"One prediction takes {found['predict_ms']:.1f} ms; fitting took {found['fit_s']:.0f} s.", ""]
    lines.append(f"{card['timing_s']:.0f} s of timing, {card['elapsed_s']:.0f} s in all; {card['failures']['count']} files failed.")  # fmt: skip
    (HERE / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def shown(value: float | None) -> str:
    """Return three decimals, or a dash where there is no value."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
