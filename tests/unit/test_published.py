"""Estimates from shipped parameters: where they hold, where the interval widens, and what the cards say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latency_models.library import FOLDER, open_library
from latency_models.published import Published
from latency_models.tables import Table
from nas.architecture import Precision
from nas.cost_protocols import Documented, EnergyModel
from nas.data import Task
from nas.device import Device, Peaks
from nas.errors import ConfigError, DataError
from nas.graph import Graph, Op
from nas.measurement import Measurement
from search_spaces.nasbench201 import NasBench201

CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
PEAKS = Peaks(7.2, 14.4, 12.8, 5.0, "sheet")
RPI4 = Device("rpi4", "aarch64", 4, transport="none", peaks=PEAKS)
RPI5 = replace(RPI4, name="rpi5", peaks=Peaks(19.2, 76.8, 17.1, 3.0, "sheet"))
PIXEL3 = Device("pixel3", "aarch64", 8, transport="none")


def lowered(resolution: int = 32, precision: str = "fp32", text: str = CELL) -> Graph:
    space = NasBench201(Task("image_classification", 3, 10), [resolution])
    return space.lower(space.of_string(text, precision=precision))


def other() -> Graph:
    shape = (1, 32, 16, 16)
    conv = Op("conv", "conv", ("input",), (shape,), shape, Precision.FP32, {"weight": (32, 32, 3, 3), "bias": (32,)})
    return Graph((conv,), shape)


def test_a_cell_as_it_was_measured_gets_the_fitted_regression() -> None:
    for device in (RPI4, PIXEL3):
        found = Published().predict(lowered(), device)
        assert (found.kind, found.unit, found.note) == ("predicted", "ms", "")
        assert found.model.startswith("nasbench201_")
        assert 0 < found.std < 0.25 * found.mean


def test_dead_edges_do_not_count_as_the_search_leaves_them_out() -> None:
    # Node 1 is computed, but nothing reads it.
    dead = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    alive = "|none~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    assert Published().predict(lowered(text=dead), RPI4) == Published().predict(lowered(text=alive), RPI4)


def test_away_from_what_was_measured_the_interval_widens_and_says_why() -> None:
    model = Published()
    inside = model.predict(lowered(), RPI4)
    int8 = model.predict(lowered(precision="int8"), RPI4)
    assert "int8 was not measured" in int8.note
    assert int8.kind == "modelled"
    assert int8.mean < inside.mean
    assert int8.std / int8.mean > 2 * inside.std / inside.mean
    small = model.predict(lowered(resolution=16), RPI4)
    assert "reads 16 x 16" in small.note
    elsewhere = model.predict(other(), RPI4)
    assert "another space" in elsewhere.note
    assert Published().cards(RPI4)["roofline_raspi4"]["log_error_across_spaces"] > 1
    for found in (small, elsewhere):
        assert found.model == "roofline_raspi4"
        assert found.std / found.mean > 2 * inside.std / inside.mean


def test_the_board_of_which_nothing_may_be_fitted_says_how_it_was_validated() -> None:
    found = Published().predict(other(), RPI5)
    assert (found.model, found.kind) == ("roofline", "modelled")
    assert "nothing was fitted on this device; its peaks: sheet" in found.note
    checked = Published().cards(RPI5)["roofline"]["validated_on"]
    assert checked["licence"].startswith("none stated")
    assert checked["scores"]["latency, roofline of the data sheet"]["coverage_90"] > 0.8


def test_without_a_fit_the_data_sheet_serves_and_without_that_nothing() -> None:
    unknown = replace(RPI4, name="somewhere")
    assert Published().predict(other(), unknown).model == "roofline"
    assert Published().predict(lowered(), unknown).model == "roofline"
    with pytest.raises(ConfigError, match="has no peaks"):
        Published().predict(other(), replace(unknown, peaks=None))


def test_energy_is_modelled_and_wide_and_follows_the_latency() -> None:
    model = Published()
    found = model.predict_energy(lowered(), RPI4)
    assert (found.kind, found.unit) == ("modelled", "mJ")
    assert "no energy was measured" in found.note
    assert found.std > 0.5 * found.mean
    assert found.interval_90[0] == 0.0
    less = model.predict_energy(lowered(precision="int8"), RPI4)
    assert less.mean < found.mean
    assert isinstance(model, EnergyModel)
    assert isinstance(model, Documented)


def test_measurements_move_it() -> None:
    graphs = [lowered(text=CELL.replace("skip_connect", word)) for word in ("none", "nor_conv_1x1", "avg_pool_3x3")]
    model = Published()
    before = [model.predict(graph, RPI4).mean for graph in graphs]
    model.fit(
        [(g, RPI4, Measurement(3 * ms, ms, 0, 1, 0, "ms", "d", "r", 0.0)) for g, ms in zip(graphs, before, strict=True)]
    )
    assert model.predict(graphs[0], RPI4).mean == pytest.approx(3 * before[0])


def test_every_card_says_on_what_it_was_fitted_and_under_which_licence() -> None:
    library = open_library()
    assert len(library.entries) > 15
    for entry in library.entries:
        if entry.kind == "validation":
            continue
        assert entry.card["licence"] in ("MIT", "Apache-2.0")
        for field in ("device", "space", "runtime", "precision", "source", "rows"):
            assert entry.card[field], f"{entry.name} lacks {field}"
        if entry.kind == "graph":
            assert {"spearman", "within_10_pct", "coverage_90"} <= set(entry.card["scores"])


def test_the_files_are_small_and_hold_no_measured_value() -> None:
    files = list(FOLDER.iterdir())
    assert {file.suffix for file in files} == {".npz", ".json"}
    assert sum(file.stat().st_size for file in files) < 2_000_000
    for file in FOLDER.glob("*.npz"):
        with np.load(file, allow_pickle=False) as arrays:
            # A regression has a number per feature; a column of measurements would have one per row.
            assert max(arrays[name].size for name in arrays.files) < 600


def test_a_genotype_of_a_space_that_is_not_searched_can_be_asked() -> None:
    entry = next(found for found in open_library().entries if found.name == "fbnet_raspi4")
    mean, std = entry.predict(Table({"op_idx": [[7] * 22, [0] * 22]}, "chains"))
    assert mean[0] > mean[1] > 0
    assert (std > 0).all()


def test_a_changed_card_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        Published(folder=str(tmp_path / "none")).predict(other(), RPI4)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x\.json is no card"):
        open_library(tmp_path)


def test_predicting_needs_no_torch_and_no_scikit_learn() -> None:
    code = (
        "import sys; from latency_models.published import Published; from nas.device import Device\n"
        "from nas.graph import Graph, Op; shape = (1, 8, 8, 8)\n"
        "op = Op('c', 'conv', ('input',), (shape,), shape, weights={'weight': (8, 8, 3, 3)})\n"
        "print(Published().predict(Graph((op,), shape), Device('pixel3', 'aarch64', 8)).mean > 0)\n"
        "sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.lower())
