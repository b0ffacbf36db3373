"""How well trainings alone agree with each other: python experiments/20261124_supernet/ceiling.py [SETTING ...]

Trains the architectures of a setting once more with another seed. Their rank correlation with the first trainings bounds what
any score can reach against one training.
"""

import json
import sys
import time

import numpy as np
import torch
from remake import HERE, SETTINGS, Setting, read
from scipy.stats import kendalltau, spearmanr

SEED = 1


def run(name: str, setting: Setting) -> str:
    torch.set_num_threads(1)
    data, path = setting.load(), HERE / f"{name}_again.jsonl"
    space, rows = setting.space(data), read(path)
    first = {row["id"]: float(row["alone"]) for row in read(HERE / f"{name}.jsonl") if "id" in row}
    for architecture in setting.architectures(space):
        if any(row["id"] == architecture.id for row in rows):
            continue
        torch.manual_seed(SEED)
        module, began = space.build(architecture), time.process_time()
        encoding = data.preprocessing(*space.input_size(architecture))
        alone = setting.alone.train(module, data, encoding, seed=SEED)
        rows.append({"id": architecture.id, "again": alone.accuracy_fp32, "again_s": time.process_time() - began})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = [float(row["again"]) for row in rows]
    before = [first[row["id"]] for row in rows]
    rho, tau = (rank(before, again).statistic for rank in (spearmanr, kendalltau))
    return f"| {name} | {len(rows)} | {rho:.3f} | {tau:.3f} | {np.std(before):.3f} |"


def main(names: list[str]) -> None:
    lines = ["Rank correlation of two trainings alone, seeds 0 and 1.", ""]
    lines += [
        "| setting | architectures | Spearman rho | Kendall tau | deviation of accuracies |",
        "|---|---|---|---|---|",
    ]
    for name in SETTINGS:
        if name in names or (HERE / f"{name}_again.jsonl").is_file():
            lines.append(run(name, SETTINGS[name]))
    (HERE / "ceiling.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETTINGS))
