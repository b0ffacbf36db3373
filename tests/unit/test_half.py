"""Blocks in half precision: what is stored and computed in 16 bits, and where that is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.architecture import Precision
from nas.cli import main
from nas.device import local_fingerprint
from nas.errors import CandidateError, ConfigError
from nas.quantize.half import require_half_precision, to_half
from nas.quantize.static import quantize_static
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.zoo import write_zoo_model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_zoo_model("mobilenetv2_32", tmp_path_factory.mktemp("zoo"))


def names(model: onnx.ModelProto, *blocks: str) -> set[str]:
    return {node.name for node in model.graph.node if node.name.strip("/").split("/")[0] in blocks}


def run(path: Path) -> np.ndarray:
    given = np.random.default_rng(1).standard_normal((1, 3, 32, 32), dtype=np.float32)
    session = OnnxRuntime().load(path)
    return session.run({next(iter(session.inputs)): given})[0]


def test_blocks_in_half_precision_are_close_and_half_as_large(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(files[0])
    blocks = {node.name.strip("/").split("/")[0] for node in model.graph.node}
    assert to_half(model, names(model, *blocks)) > 50
    assert {tensor.data_type for tensor in model.graph.initializer} <= {TensorProto.FLOAT16, TensorProto.INT64}
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < 0.55 * files[0].stat().st_size
    half, full = run(tmp_path / "half.onnx"), run(files[0])
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.01 * np.abs(full).max()


def test_other_blocks_keep_their_bytes(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(files[0])
    before = {tensor.name: tensor.raw_data for tensor in model.graph.initializer}
    changed = to_half(model, names(model, "4", "5"))
    constants = {node.name for node in onnx.load(files[0]).graph.node if node.op_type == "Constant"}
    assert changed == len(names(onnx.load(files[0]), "4", "5") - constants)
    kept = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in before}
    assert all(tensor.raw_data == before[name] for name, tensor in kept.items())
    assert 0 < len(before) - len(kept) < sum(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 2  # into block 4 and out of block 5
    onnx.save_model(model, tmp_path / "half.onnx")
    assert np.abs(run(tmp_path / "half.onnx") - run(files[0])).max() > 0


def test_a_block_beside_int8_blocks(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(files[1])
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    # Its convolutions read what was dequantized; the weights stay in 8 bits behind their DequantizeLinear.
    to_half(model, names(model, "4"))
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == pairs
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, tmp_path / "mixed.onnx")
    full = run(files[1])
    assert np.abs(run(tmp_path / "mixed.onnx") - full).max() < 0.1 * np.abs(full).max()


def test_nothing_chosen_changes_nothing(files: tuple[Path, Path]) -> None:
    model = onnx.load(files[0])
    assert to_half(model, ()) == 0
    assert model == onnx.load(files[0])


def test_a_weight_beyond_16_bits_is_refused() -> None:
    weight = numpy_helper.from_array(np.float32([[1e6]]), "w")
    node = helper.make_node("MatMul", ["input", "w"], ["output"], "/a/MatMul")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("input", "output")]
    model = helper.make_model(helper.make_graph([node], "one", values[:1], values[1:], [weight]))
    with pytest.raises(CandidateError, match="'w' is beyond 65504"):
        to_half(model, {"/a/MatMul"})


def test_it_is_refused_where_nothing_computes_in_it() -> None:
    require_half_precision("aarch64", ("asimd", "asimdhp"), "rpi5", "onnxruntime")
    with pytest.raises(ConfigError, match=r"device 'local' \(x86_64\) does not compute in half precision"):
        require_half_precision("x86_64", ("avx2",), "local", "onnxruntime")
    with pytest.raises(ConfigError, match="runtime 'native' has no kernels for it"):
        require_half_precision("aarch64", ("asimdhp",), "rpi5", "native")


def test_the_quantizer_halves_the_blocks_that_ask_for_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    pictures = np.random.default_rng(2).standard_normal((4, 3, 32, 32)).astype(np.float32)
    precision = {"4": Precision.FP16, "5": Precision.FP32}
    quantize_static(files[0], tmp_path / "mixed.onnx", pictures, precision, Precision.INT8)
    model = onnx.load(tmp_path / "mixed.onnx")
    halved = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    readers = {n.name.strip("/").split("/")[0] for n in model.graph.node if halved & set(n.input)}
    assert readers == {"4"}
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    full = run(files[0])
    assert np.abs(run(tmp_path / "mixed.onnx") - full).max() < 0.1 * np.abs(full).max()


def test_a_search_for_this_machine_refuses_it_or_computes_in_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "asimdhp" in local_fingerprint().features:
        pytest.skip("this machine computes in half precision")
    words = [
        "search",
        "space=convnet",
        "space.precisions=[fp16,int8]",
        "budget=1",
        "tracking=none",
        f"folder={tmp_path}",
    ]
    assert main(words) != 0
    assert "does not compute in half precision" in capfd.readouterr().err
