"""Remakes the table and the picture of the default search: python experiments/20261123_digits_default/remake.py."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from report import card, machine, search, table, write_between

from nas.plots import pareto_png
from nas.search.front import snapshot_of
from nas.store import StudyStore


def main() -> None:
    """Run the default search, then write README and picture."""
    report = search("study=digits_default", "folder=runs/experiments")
    others = {
        name: search(f"sampler={name}", f"study=digits_{name}", "folder=runs/experiments") for name in ("tpe", "random")
    }
    folder = Path("runs/experiments/digits_default")
    store = StudyStore(folder / "store.sqlite")
    snapshot = snapshot_of(store, folder)
    pareto_png(snapshot, HERE / "pareto.png")
    evaluations = dict(snapshot.evaluations)
    rows = []
    for member in report["front"]:
        evaluation = evaluations[member["trial"]]
        levels = list(evaluation.architecture.precision.values())
        origin = evaluation.provenance["latency_ms"]
        rows.append(
            [
                f"**{member['trial']}**" if member["trial"] == report["shipped"] else member["trial"],
                f"{member['accuracy']:.2%}",
                f"{evaluation.values['accuracy_fp32']:.2%}",
                f"{member['latency_ms']:.4f} ± {origin['spread']:.4f}",
                f"{member['size_kib']:.1f}",
                f"{evaluation.values['macs'] / 1e6:.2f} M",
                f"{levels.count('int8')} of {len(levels)}",
            ]
        )
    columns = ["trial", "accuracy", "before quantization", "latency (ms)", "size (KiB)", "MACs", "blocks in int8"]
    shipped = card(report)
    latency = shipped["verified"]
    text = "\n\n".join(
        [
            table(columns, rows),
            f"{sum(report['trials'].values())} trials ({', '.join(f'{n} {s}' for s, n in report['trials'].items())}) in "
            f"{report['elapsed_s'] / 60:.1f} minutes, hypervolume {report['hypervolume']:.4f}. Shipped: trial "
            f"{report['shipped']} by the rule {report['rule']}; on the {shipped['data']['pictures']['test']} test pictures "
            f"{shipped['accuracy']['test_quantized']:.2%} (fp32 {shipped['accuracy']['test_fp32']:.2%}); when reloaded, "
            f"its ratio to the anchor model moved by {latency['ratio_change']:+.1%} (allowed {latency['tolerance']:.1%}, "
            f"try {latency['tries']}).",
            "Other samplers with the same budget and seed: "
            + "; ".join(
                f"{name} hypervolume {other['hypervolume']:.4f}, {len(other['front'])} members, "
                f"{other['elapsed_s'] / 60:.1f} minutes"
                for name, other in others.items()
            )
            + ".",
            f"Machine: {machine(folder)}.",
        ]
    )
    write_between(HERE / "README.md", "table", text)


if __name__ == "__main__":
    main()
