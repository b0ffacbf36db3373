"""Scores untrained networks of NAS-Bench-201 on CIFAR-10 pictures, one cell after the other, into scores.jsonl.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/20261124_proxies/score.py [CELLS] [PROXY,PROXY,...]

Cells are drawn with seed 0; of those that are the same without dead branches the first stands for all. What stands in
the file is not scored again, so that a run may be stopped and gone on with, with other proxies too.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from nas.accuracy.block_scores import block_entropies
from nas.accuracy.zero_cost import PROXIES, make_proxy
from nas.data.cifar10 import Cifar10
from nas.errors import CandidateError
from search_spaces.cells import cell_of_index
from search_spaces.nasbench201 import NasBench201

HERE = Path(__file__).parent
DATA = Path(os.environ.get("NAS_SHARED_DATA", HERE.parents[2] / "shared" / "data"))
SCORES = HERE / "scores.jsonl"
CELLS, PICTURES, SIDE, PUBLISHED = 1000, 16, 16, 15_625
COUNTED = ("params", "macs")


def drawn(count: int) -> Iterator[int]:
    """Give the numbers of the cells, those without a path from input to output left out."""
    seen: set[tuple[tuple[int, int, str], ...]] = set()
    for index in np.random.default_rng(0).permutation(PUBLISHED):
        live = cell_of_index(int(index)).live
        if live and live not in seen:
            seen.add(live)
            yield int(index)
        if len(seen) == count:
            return


def known() -> set[tuple[int, str]]:
    if not SCORES.is_file():
        return set()
    rows = map(json.loads, SCORES.read_text().splitlines())
    return {(row["idx"], name) for row in rows for name in row["scores"]}


def main(count: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    data = Cifar10(str(DATA / "cifar10"), (SIDE,), 256, 256, 64).load()
    inputs, targets = data.some("train", data.preprocessing(SIDE, SIDE), PICTURES)
    images, labels = torch.from_numpy(inputs), torch.from_numpy(targets)
    space, done = NasBench201(data.task, (SIDE,)), known()
    for index in drawn(count):
        missing = [name for name in names if (index, name) not in done]
        if not missing:
            continue
        torch.manual_seed(0)
        architecture = space.of_index(index)
        module, graph = space.build(architecture), space.lower(architecture)
        scores: dict[str, float | None] = {}
        seconds: dict[str, float] = {}
        if {"expressivity", "progressivity"} <= set(missing):
            # Both are made of the same figures.
            began = time.process_time()
            entropies = block_entropies(module, images)
            spent = round(time.process_time() - began, 4)
            scores |= {"expressivity": float(np.sum(entropies)), "progressivity": float(np.diff(entropies).min())}
            seconds |= {"expressivity": spent, "progressivity": spent}
        for name in missing:
            if name in scores:
                continue
            # Of the process, so that what else runs on the machine does not count; there is one thread.
            began = time.process_time()
            try:
                if name in COUNTED:
                    scores[name] = float(graph.parameters if name == "params" else graph.macs)
                else:
                    scores[name] = make_proxy(name).score(module, images, labels)
            except CandidateError:
                scores[name] = None
            seconds[name] = round(time.process_time() - began, 4)
        with SCORES.open("a") as file:
            file.write(json.dumps({"idx": index, "scores": scores, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else CELLS,
        sys.argv[2].split(",") if len(sys.argv) > 2 else list(PROXIES),
    )
