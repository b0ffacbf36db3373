"""Fits this machine to language models, texts and pictures by ``nas fit`` and writes cards and the table of the README.

python experiments/20261124_fit_words/remake.py [NAME ...]   # decoder, texts, pictures; without a name all, 29 minutes
python experiments/20261124_fit_words/remake.py tables       # from the cards that are here
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from report import table, write_between

BOTH = "runtime=onnxruntime,native"
FITS = {
    "decoder": ("space=decoder", "minutes=16", "batch=16"),
    "texts": ("space=transformer", "data.tasks=[text_classification]", "minutes=6"),
    "pictures": ("space=convnet,hybrid,transformer", "minutes=7"),
}
COLUMNS = ("kendall", "spearman", "within_5_pct", "within_10_pct", "mape", "coverage_90")
ROWS = {"additive_profiles": "additive, blocks of profiles alone", "additive": "additive", "roofline": "roofline"}


def main() -> None:
    """Fit what was asked for and write the tables."""
    asked = sys.argv[1:] or list(FITS)
    for name in asked if asked != ["tables"] else ():
        command = [sys.executable, "-m", "nas", "fit", *FITS[name], BOTH, f"name=words_{name}", "output=json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE.parents[1])
        report = json.loads(done.stdout.splitlines()[-1])
        (HERE / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lines = []
    for name in FITS:
        if (HERE / f"{name}.json").exists():
            lines += rows_of(name, json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")))
    heads = ["networks", "runtime", "predicted by", *COLUMNS, "learned from / profiled / held out"]
    write_between(HERE / "README.md", "fits", table(heads, lines))


def rows_of(name: str, card: dict) -> list[list[str]]:
    """Return a row per model and runtime of a card, and one for a second reading."""
    found = []
    for runtime, fit in card["models"].items():
        counts = f"{fit['n_train']} / {fit.get('n_profiled', 0)} / {fit['n_test']}"
        models = {f"graph regressor ({fit['chosen']['model']})": fit["scores"]}
        models |= {ROWS[kind]: scores for kind, scores in fit["baseline"].items()}
        if fit["repeats"]:
            models["a second reading in another process"] = fit["repeats"]
        for said, scores in models.items():
            cells = [f"{scores[column]:.3f}" if scores.get(column) is not None else "-" for column in COLUMNS]
            found.append([name, runtime, said, *cells, counts])
    return found


if __name__ == "__main__":
    main()
