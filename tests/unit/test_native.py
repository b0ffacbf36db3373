"""The native runtime gives ONNX Runtime's bytes, refuses what it does not know, and survives damaged programs."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nas import _kernels
from nas.architecture import Precision
from nas.data import Task
from nas.errors import CandidateError, ModelFileError
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_fp32
from nas.runtime.model_file import check_model_file
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.plan import arithmetic
from nas.runtime.plan.arithmetic import BYTES, Quant
from nas.runtime.plan.model import known_operators, plan
from search_spaces.convnet import ConvNet
from search_spaces.reference import Reference
from search_spaces.transformer import Transformer

TASK = Task("image_classification", 3, 10)
VNNI = "avx512_vnni" in _kernels.available_isas()
# Without VNNI ONNX Runtime's own sums saturate, so there is nothing to equal.
needs_vnni = pytest.mark.skipif(not VNNI, reason="ONNX Runtime is exact only with AVX512-VNNI")
LEVELS = [isa for isa in ("portable", "avx2", "avx512_vnni") if isa in _kernels.available_isas()]


def exported(space, architecture, path, precision=None, batch=8):
    """Write a network with settled batch norms; weights from seed 0."""
    torch.manual_seed(0)
    network = space.build(architecture)
    side, _ = space.input_size(architecture)
    with torch.no_grad():
        network.train()
        network(torch.randn(batch, 3, side, side))
    export_fp32(network, path / "fp32.onnx", 3, side, side)
    pictures = np.random.default_rng(0).standard_normal((16, 3, side, side), dtype=np.float32)
    quantize_static(path / "fp32.onnx", path / "model.onnx", pictures, precision or architecture.precision)
    return path / "model.onnx"


def inputs(count, side, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, 3, side, side), dtype=np.float32) * (1 + i % 3) for i in range(count)]


def differing_bytes(path, isa, count=6):
    native, reference = NativeRuntime(isa).load(path), OnnxRuntime().load(path)
    (name, (shape, _)), *_ = reference.inputs.items()
    differing = 0
    for x in inputs(count, shape[-1]):
        ours, theirs = native.run({name: x})[0], reference.run({name: x})[0]
        assert ours.shape == theirs.shape
        differing += int((ours.view(np.uint8) != theirs.view(np.uint8)).sum())
    return differing


@needs_vnni
@pytest.mark.parametrize("isa", LEVELS)
def test_int8_convnets_equal_onnx_runtime(tmp_path, isa):
    space = ConvNet(TASK, [16], stem_widths=[4, 8, 20], precisions=["int8"])
    rng = np.random.default_rng(3)
    for index in range(3):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert differing_bytes(exported(space, space.sample(rng), folder), isa) == 0


@needs_vnni
@pytest.mark.parametrize("network", ["mobilenet_v2", "resnet20"])
def test_references_equal_onnx_runtime(tmp_path, network):
    space = Reference(TASK, [32], networks=[network], widths=[0.25], precisions=["int8"])
    path = exported(space, next(space.enumerate()), tmp_path)
    assert [differing_bytes(path, isa) for isa in LEVELS] == [0] * len(LEVELS)


@pytest.mark.parametrize("isa", LEVELS)
def test_mixed_precision_stays_close(tmp_path, isa):
    space = ConvNet(TASK, [16])
    rng = np.random.default_rng(4)
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = exported(space, space.sample(rng), folder)
        native, reference = NativeRuntime(isa).load(path), OnnxRuntime().load(path)
        given = np.concatenate(inputs(8, 16))
        ours, theirs = native.run({"input": given})[0], reference.run({"input": given})[0]
        # A quantum in a float block's output becomes a few in the logits.
        assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()
        assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.75


def test_transformers_run(tmp_path):
    space = Transformer(TASK, [16])
    path = exported(space, space.sample(np.random.default_rng(0)), tmp_path)
    given = np.concatenate(inputs(4, 16))
    ours = NativeRuntime().load(path).run({"input": given})[0]
    theirs = OnnxRuntime().load(path).run({"input": given})[0]
    assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()


def test_levels_agree_and_say_what_ran(tmp_path):
    space = ConvNet(TASK, [16], blocks=["mbconv"], precisions=["int8"], activations=["relu"])
    path = exported(space, space.sample(np.random.default_rng(0)), tmp_path)
    planned = plan(path, check_model_file(path), {}).to_bytes()
    given = [np.concatenate(inputs(3, 16))]
    results = {isa: _kernels.Program(planned, isa) for isa in LEVELS}
    for isa, program in results.items():
        assert program.isa == isa
        assert np.array_equal(program.run(given, 3)[0], results["portable"].run(given, 3)[0])
        kernels = {kernel for _, kind, kernel, _, _ in program.steps if kind.endswith("_u8")}
        own = {"portable": "portable", "avx2": "avx2", "avx512_vnni": "avx512"}[isa]
        assert all(own in kernel for kernel in kernels), kernels


def test_forced_isa_is_obeyed(monkeypatch, tmp_path):
    space = Reference(TASK, [16], networks=["resnet20"], widths=[0.25], precisions=["int8"])
    path = exported(space, next(space.enumerate()), tmp_path)
    monkeypatch.setenv("NAS_FORCE_ISA", "portable")
    session = NativeRuntime().load(path)
    assert session.program({}).isa == "portable"
    assert NativeRuntime().version.endswith("-portable")


def one_node(path, node, shape, opset=17, stored=(), out=None):
    """Write a model of one node."""
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, out or shape)]
    graph = helper.make_graph([node], "one", values, results, list(stored))
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_unknown_operator_is_named(tmp_path):
    path = one_node(tmp_path / "det.onnx", helper.make_node("Det", ["x"], ["y"], "/a/Det"), [2, 2], out=[])
    with pytest.raises(ModelFileError, match=r"'/a/Det': operator Det is not known.*Conv.*runtime=onnxruntime"):
        NativeRuntime().load(path)
    assert "Det" not in known_operators()


def test_dilation_is_refused(tmp_path):
    weights = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "/c/Conv", dilations=[2, 2])
    path = one_node(tmp_path / "conv.onnx", node, [1, 1, 9, 9], stored=[weights], out=[1, 1, 5, 5])
    with pytest.raises(ModelFileError, match="dilations"):
        NativeRuntime().load(path)


def test_wrong_inputs_are_refused(tmp_path):
    session = NativeRuntime().load(one_node(tmp_path / "relu.onnx", helper.make_node("Relu", ["x"], ["y"]), [2, 3]))
    good = np.ones((2, 3), np.float32)
    assert session.run({"x": good})[0].tolist() == good.tolist()
    for wrong in ({}, {"x": good.astype(np.float64)}, {"x": good[:1]}, {"x": good, "z": good}):
        with pytest.raises(CandidateError):
            session.run(wrong)


def test_damaged_programs_are_errors(tmp_path):
    space = Reference(TASK, [16], networks=["resnet20"], widths=[0.25], precisions=["int8"])
    path = exported(space, next(space.enumerate()), tmp_path)
    whole = plan(path, check_model_file(path), {}).to_bytes()
    given = [inputs(1, 16)[0]]
    head = len(whole) - 60_000 if len(whole) > 90_000 else len(whole) // 2
    rng = np.random.default_rng(0)
    for size in (0, 7, 40, 64, 200, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match="refused"):
            _kernels.Program(whole[:size])
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(8, min(head, 6000), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        try:
            program = _kernels.Program(bytes(damaged))
        except ValueError:
            refused += 1
            continue
        if program.inputs == [((1, 3, 16, 16), "float")]:
            program.run(given, 1)
    assert refused > 30


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_formulas_equal_onnx_runtime(op):
    a, b = (side.reshape(-1).astype(np.uint8) for side in np.meshgrid(BYTES, BYTES, indexing="ij"))
    rng = np.random.default_rng(0)
    combine = arithmetic.add if op == "QLinearAdd" else arithmetic.multiply
    for _ in range(20):
        scales, zeros = rng.uniform(1e-3, 0.1, 3).astype(np.float32), rng.integers(0, 256, 3)
        quants = [Quant(float(scale), int(zero)) for scale, zero in zip(scales, zeros, strict=True)]
        stored = [numpy_helper.from_array(np.array(q.scale, np.float32), f"s{i}") for i, q in enumerate(quants)]
        stored += [numpy_helper.from_array(np.array(q.zero, np.uint8), f"z{i}") for i, q in enumerate(quants)]
        names = ["a", "s0", "z0", "b", "s1", "z1", "s2", "z2"]
        node = helper.make_node(op, names, ["c"], domain="com.microsoft")
        values = [helper.make_tensor_value_info(name, TensorProto.UINT8, [65536]) for name in "abc"]
        graph = helper.make_graph([node], "pair", values[:2], values[2:], stored)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        assert np.array_equal(session.run(None, {"a": a, "b": b})[0], combine(a, b, *quants))


def test_fp32_network_matches_numerically(tmp_path):
    space = Reference(TASK, [16], networks=["mobilenet_v2"], widths=[0.25], precisions=["fp32"])
    architecture = next(space.enumerate())
    path = exported(space, architecture, tmp_path, dict.fromkeys(architecture.precision, Precision.FP32))
    given = np.concatenate(inputs(3, 16))
    ours, theirs = (runtime.load(path).run({"input": given})[0] for runtime in (NativeRuntime(), OnnxRuntime()))
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1, np.abs(theirs).max())
