"""The verb ``nas score-latency`` and the encoders behind it, on tables made here and, where present, on real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latency_models.encodings import encoder
from latency_models.encodings.nasbench201 import EDGES, OPS
from latency_models.tables import Table
from nas.cli import main
from nas.errors import ConfigError, DataError

SHARED = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data"))


def cell(*operations: str) -> str:
    words = [f"{operation}~{source}" for operation, (source, _) in zip(operations, EDGES, strict=True)]
    return f"|{words[0]}|+|{words[1]}|{words[2]}|+|{words[3]}|{words[4]}|{words[5]}|"


def _cells(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [cell(*(OPS[code] for code in rng.integers(0, 5, 6))) for _ in range(count)]


def _encoded(*cells: str) -> dict[str, np.ndarray]:
    return dict(encoder("nasbench201")(Table({"arch_str": list(cells)}, "t")).blocks)


def test_a_dead_branch_shows_in_the_cell_as_written_only() -> None:
    # Node 1 is computed, but nothing reads it.
    dead = cell("nor_conv_3x3", "none", "none", "skip_connect", "none", "none")
    alive = cell("none", "none", "none", "skip_connect", "none", "none")
    blocks = _encoded(dead, alive)
    for name in ("pruned", "live", "live_graph"):
        np.testing.assert_array_equal(blocks[name][0], blocks[name][1])
    assert (blocks["written"][0] != blocks["written"][1]).any()
    assert (blocks["folded"][0] != blocks["folded"][1]).any()


def test_a_constant_branch_is_folded() -> None:
    # Node 1 is nothing, so what reads it computes on zeros.
    zeros = cell("none", "none", "none", "avg_pool_3x3", "nor_conv_3x3", "none")
    without = cell("none", "none", "none", "avg_pool_3x3", "none", "none")
    blocks = _encoded(zeros, without)
    for name in ("folded", "live", "live_graph"):
        np.testing.assert_array_equal(blocks[name][0], blocks[name][1])
    assert (blocks["pruned"][0] != blocks["pruned"][1]).any()


def test_the_contracted_graph_does_not_depend_on_detours() -> None:
    through_1 = cell("skip_connect", "none", "none", "none", "nor_conv_1x1", "none")
    through_2 = cell("none", "skip_connect", "none", "none", "none", "nor_conv_1x1")
    direct = cell("none", "none", "none", "nor_conv_1x1", "none", "none")
    graph = _encoded(through_1, through_2, direct)["live_graph"]
    np.testing.assert_array_equal(graph[0], graph[2])
    np.testing.assert_array_equal(graph[1], graph[2])


def test_bad_rows_are_named() -> None:
    with pytest.raises(DataError, match=r"row 1, column 'arch_str'"):
        _encoded(cell(*["none"] * 6), "|conv~0|")
    with pytest.raises(DataError, match=r"row 0, column 'op_idx'.*22 codes"):
        encoder("fbnet")(Table({"op_idx": ["[1, 2]"]}, "t"))
    with pytest.raises(DataError, match=r"row 0, column 'arch'"):
        encoder("hw_gpt_bench")(Table({"arch": ["[192, 3, [1], [2], true]"]}, "t"))
    with pytest.raises(DataError, match="is it a HAT table"):
        encoder("hat")(Table({"a": [1]}, "t"))
    with pytest.raises(ConfigError, match="Did you mean 'nasbench201'"):
        encoder("nasbench2001")


def test_encoding_needs_no_torch() -> None:
    code = "import sys, latency_models.encodings, latency_models.score; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_last_line_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = _cells(200)
    rng = np.random.default_rng(1)
    cost = {"none": 0.0, "skip_connect": 0.1, "nor_conv_1x1": 1.0, "nor_conv_3x3": 4.0, "avg_pool_3x3": 0.5}
    lines = ["arch_str,ms"]
    for text in cells:
        total = 1 + sum(cost[word.split("~")[0]] for word in text.replace("+", "").strip("|").split("|") if word)
        lines.append(f"{text},{total * rng.normal(1, 0.01):.4f}")
    lines.append(f"{cells[0]},")
    table = tmp_path / "cells.csv"
    table.write_text("\n".join(lines) + "\n")
    words = [f"table={table}", "space=nasbench201", "target=ms", "train=120", "seeds=1"]
    assert main(["score-latency", *words]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["spearman"] > 0.98
    assert report["within_10_pct"] > 0.95
    assert report["n_dropped"] == 1
    assert (report["n_train"], report["n_test"]) == (120, 80)
    assert set(report["baseline"]) == {"linear_per_choice", "roofline"}
    assert 0.7 <= report["coverage_90"] <= 1
