"""Strings and numbers of NAS-Bench-201 are the published ones, and every cell lowers to what is exported."""

import itertools
import os
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nas.data import Task
from nas.errors import ConfigError, DegenerateArchitectureError
from search_spaces.cells import OPERATIONS, Cell, cell_of_index, cell_of_string
from search_spaces.nasbench201 import NasBench201, cell_of

TASK = Task("image_classification", channels=3, classes=10)
TABLE = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data")) / "nasbench201" / "nasbench201.parquet"


def test_a_cell_goes_through_its_string_and_its_number():
    for index in (0, 123, 15_624):
        cell = cell_of_index(index)
        assert cell_of_string(str(cell)) == cell
        assert cell.index == index
    assert str(Cell(OPERATIONS[:1] * 5 + OPERATIONS[3:4])) == "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"


def test_numbers_are_the_published_ones():
    # Two of the assertions in the authors' generator.
    assert str(cell_of_index(9)) == "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    assert str(cell_of_index(123)) == (
        "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    )


@pytest.mark.skipif(not TABLE.is_file(), reason=f"{TABLE} is missing; NAS_SHARED_DATA names the folder of the data")
def test_all_numbers_are_those_of_the_table():
    table = pq.read_table(TABLE, columns=["idx", "arch_str", "params_M"]).to_pydict()
    assert [str(cell_of_index(index)) for index in table["idx"]] == table["arch_str"]
    space, compared = NasBench201(TASK, [32]), 0
    for index in range(0, 15_625, 1500):
        cell = cell_of_index(index)
        if len(cell.live) == sum(operation != "none" for operation in cell.operations):
            module = space.build(space.of_index(index))
            count = sum(parameter.numel() for parameter in module.parameters()) / 1e6
            assert count == pytest.approx(table["params_M"][index], abs=2e-6), str(cell)
            compared += 1
    assert compared > 4


@pytest.mark.parametrize("text", ["", "|none~0|", "|none~0|+|none~1|none~0|+|none~0|none~1|none~2|"])
def test_what_is_no_string_is_refused(text):
    with pytest.raises(ConfigError, match="six operations"):
        cell_of_string(text)


def test_an_unknown_operation_is_refused_with_its_spelling():
    with pytest.raises(ConfigError, match="Did you mean 'nor_conv_3x3'"):
        cell_of_string("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conf_3x3~2|")
    with pytest.raises(ConfigError, match="0 to 15624"):
        cell_of_index(15_625)


def test_dead_edges_are_left_out():
    # Node 2 is fed by node 1 alone, which nothing feeds; node 3 reads the input.
    cell = cell_of_string("|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
    assert cell.live == ((3, 0, "skip_connect"),)
    cell = cell_of_string("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|none~1|none~2|")
    assert cell.live == ((3, 0, "avg_pool_3x3"),)


def test_strings_make_architectures_of_the_space():
    space = NasBench201(TASK, [16, 32], channels=4, cells=1)
    architecture = space.of_string("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|", 16, "int8")
    space.check(architecture)
    assert str(cell_of(architecture)).startswith("|nor_conv_3x3~0|")
    assert set(architecture.precision.values()) == {"int8"}
    with pytest.raises(DegenerateArchitectureError, match="no path"):
        space.of_string("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|")


def test_size_of_the_published_space():
    assert NasBench201(TASK, [32], precisions=["fp32"]).size() == 15_625


def test_unknown_operations_and_odd_sizes_are_refused():
    with pytest.raises(ConfigError, match="conv_9x9"):
        NasBench201(TASK, [32], operations=["conv_9x9"])
    with pytest.raises(ConfigError, match="cells is 0"):
        NasBench201(TASK, [32], cells=0)
    space = NasBench201(TASK, [10])
    with pytest.raises(DegenerateArchitectureError, match="multiple of 4"):
        space.of_index(0)


def test_every_kind_of_last_edge_lowers_to_the_exported_file(tmp_path):
    """Where a convolution alone ends the network, the exporter folds the head's norm into it."""
    import torch

    from nas.quantize.torch_to_onnx import export_fp32
    from nas.runtime.onnx_graph import graph_from_onnx

    torch.set_num_threads(1)
    space = NasBench201(TASK, [8], channels=4, cells=1)
    cells = [Cell(operations) for operations in itertools.product(("none", "skip_connect", "nor_conv_1x1"), repeat=6)]
    drawn = random.Random(0).sample([cell for cell in cells if cell.live], 24)
    single = [Cell(("none", "none", "none", operation, "none", "none")) for operation in OPERATIONS[1:]]
    for cell in (*single, *drawn):
        architecture = space.of_string(str(cell))
        export_fp32(space.build(architecture), tmp_path / "cell.onnx", 3, 8, 8)
        lowered, exported = space.lower(architecture), graph_from_onnx(tmp_path / "cell.onnx")
        assert sorted(op.name for op in lowered.ops) == sorted(op.name for op in exported.ops), str(cell)
        assert 4 * lowered.parameters == exported.weight_bytes, str(cell)
