"""A whole quantized graph as one operator in an ordinary session of ONNX Runtime, and operators of a user's own."""

import ctypes
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from nas import _kernels
from nas.data import Task
from nas.errors import ConfigError, ModelFileError
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_fp32
from nas.runtime import custom_ops
from nas.runtime.custom_op import CustomOp, Example
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.take_over import take_over
from nas.testing.custom_op_suite import node_model, run_node
from nas.testing.runtime_suite import write_tokens
from nas.testing.zoo import ZOO, write_zoo_model
from search_spaces.convnet import ConvNet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def batched(tmp_path_factory):
    """A quantized convnet with a free batch, and the same as one node."""
    folder = tmp_path_factory.mktemp("batched")
    space = ConvNet(Task("image_classification", 3, 10), [16], stem_widths=[8], precisions=["int8"])
    torch.manual_seed(0)
    export_fp32(space.build(space.sample(np.random.default_rng(0))), folder / "fp32.onnx", 3, 16, 16)
    quantize_static(folder / "fp32.onnx", folder / "model.onnx", pictures(16), {})
    return folder / "model.onnx", take_over(folder / "model.onnx", folder / "whole.onnx")


def pictures(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 16, 16), dtype=np.float32)


def session_of(path):
    """What a user of onnxruntime writes."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(custom_ops.library()))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["mobilenetv2_32", "deit_small_block"])
def test_known_networks_give_the_bytes_of_the_native_runtime(tmp_path, name):
    _, model = write_zoo_model(name, tmp_path)
    session, native = session_of(take_over(model, tmp_path / "whole.onnx")), NativeRuntime().load(model)
    for seed in range(3):
        given = {"input": ZOO[name].example(seed).numpy()}
        (ours,), (theirs,) = session.run(None, given), native.run(given)
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()


def test_inputs_of_several_types_and_other_free_sizes_than_a_batch(tmp_path):
    write_tokens(tmp_path / "model.onnx", np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32))
    session = session_of(take_over(tmp_path / "model.onnx", tmp_path / "whole.onnx", {"batch": 2, "length": 3}))
    assert [value.shape for value in session.get_inputs()] == [[2, 3], [2, 3], [1]]
    given = {
        "tokens": np.array([[4, 0, 1], [2, 2, 3]], np.int64),
        "mask": np.array([[True, False, True], [True, True, False]]),
        "scale": np.array([2.0], np.float32),
    }
    expected = NativeRuntime().load(tmp_path / "model.onnx").run(given)[0]
    assert session.run(None, given)[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", _kernels.available_isas())
def test_every_level_serves_a_free_batch(batched, monkeypatch, isa):
    model, whole = batched
    monkeypatch.setenv("NAS_FORCE_ISA", isa)
    session, native = session_of(whole), NativeRuntime().load(model)
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "batch"
    for count in (1, 3):
        given = {session.get_inputs()[0].name: pictures(count, seed=count)}
        assert session.run(None, given)[0].tobytes() == native.run(given)[0].tobytes()


def test_it_is_one_node_and_keeps_names_and_metadata(batched, tmp_path):
    model, _ = batched
    named = onnx.load(model)
    helper.set_model_props(named, {"hwnas.variants": '{"latency_ms": {}}'})
    onnx.save(named, tmp_path / "named.onnx")
    whole = onnx.load(take_over(tmp_path / "named.onnx", tmp_path / "whole.onnx"))
    (node,) = whole.graph.node
    assert (node.domain, node.op_type) == ("hwnas", "QuantizedProgram")
    assert [value.name for value in whole.graph.input] == [value.name for value in named.graph.input]
    assert [value.name for value in whole.graph.output] == [value.name for value in named.graph.output]
    assert {entry.key: entry.value for entry in whole.metadata_props} == {"hwnas.variants": '{"latency_ms": {}}'}


def test_our_runtime_loads_and_profiles_such_a_file(batched):
    model, whole = batched
    given = {onnx.load(model).graph.input[0].name: pictures(2)}
    assert OnnxRuntime().load(whole).run(given)[0].tobytes() == NativeRuntime().load(model).run(given)[0].tobytes()
    (operator,) = OnnxRuntime().profile(whole, runs=2)
    assert operator.kind == "QuantizedProgram"
    with pytest.raises(ModelFileError, match="QuantizedProgram is not known"):
        NativeRuntime().load(whole)


def test_what_cannot_be_taken_over_is_refused_by_name(tmp_path):
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Atan", ["x"], ["y"])], "g", floats[:1], floats[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="Atan is not known"):
        take_over(tmp_path / "m.onnx", tmp_path / "whole.onnx")
    assert not (tmp_path / "whole.onnx").exists()


def changed(whole, tmp_path, change):
    """Write the file with its node, inputs and outputs changed."""
    model = onnx.load(whole)
    change(model.graph)
    onnx.save(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def set_type(value, elem_type):
    value.type.tensor_type.elem_type = elem_type


def set_attribute(graph, name, **value):
    kept = [item for item in graph.node[0].attribute if item.name != name]
    del graph.node[0].attribute[:]
    graph.node[0].attribute.extend([*kept, *(helper.make_attribute(key, item) for key, item in value.items())])


def add_output(graph):
    graph.node[0].output.append("more")
    graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda graph: set_type(graph.output[0], TensorProto.DOUBLE), "declared with ONNX type 11"),
        (lambda graph: set_type(graph.input[0], TensorProto.UINT8), "has ONNX type 2"),
        (lambda graph: graph.input[0].type.tensor_type.ClearField("shape"), "shape \\(1, 2\\)"),
        (add_output, "the node has 2 outputs; the program gives 1"),
        (lambda graph: graph.node[0].input.append(graph.input[0].name), "2 inputs were given; the program takes 1"),
        (lambda graph: set_attribute(graph, "program"), "program"),
        (lambda graph: set_attribute(graph, "batched"), "batched"),
        (lambda graph: set_attribute(graph, "program", program=b""), "planned model was refused"),
        (lambda graph: set_attribute(graph, "program", program=b"NASPLAN1" * 99), "planned model was refused"),
    ],
)
def test_files_that_contradict_themselves_are_errors(batched, tmp_path, change, told):
    _, whole = batched
    with pytest.raises(Exception, match=told):
        run_anything(changed(whole, tmp_path, change))


def run_anything(path):
    session = session_of(path)
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in given.shape] or [1, 2]
    return session.run(None, {given.name: np.zeros(shape, np.uint8 if "uint8" in given.type else np.float32)})


def test_a_level_that_does_not_exist_is_an_error(batched, monkeypatch):
    monkeypatch.setenv("NAS_FORCE_ISA", "avx1024")
    with pytest.raises(Exception, match="avx1024"):
        session_of(batched[1])


def test_damaged_programs_never_crash(batched, tmp_path):
    """In a process of its own, whose end would show."""
    script = """
        import sys
        import numpy as np, onnx, onnxruntime
        whole, library = sys.argv[1:]
        model = onnx.load(whole)
        program = next(item for item in model.graph.node[0].attribute if item.name == "program")
        sound, rng = program.s, np.random.default_rng(0)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.register_custom_ops_library(library)
        refused = 0
        for index in range(100):
            damaged = bytearray(sound[: rng.integers(len(sound))] if index % 10 == 0 else sound)
            for at in rng.integers(0, min(len(damaged), 4096), rng.integers(1, 4)) if damaged else ():
                damaged[at] = rng.integers(256)
            program.s = bytes(damaged)
            try:
                session = onnxruntime.InferenceSession(model.SerializeToString(), options)
                session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 16, 16), np.float32)})
            except Exception as error:
                assert "QuantizedProgram" in str(error), error
                refused += 1
        print(refused)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(batched[1]), str(custom_ops.library())]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 20


def test_an_older_onnx_runtime_is_told_what_is_missing():
    """Its table of functions is too short for version 16 and has what makes a status."""
    told = []
    make_status = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p)(
        lambda code, text: told.append((code, text.decode())) or 77
    )
    table = (ctypes.c_void_p * 102)(ctypes.cast(make_status, ctypes.c_void_p))
    get_api = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_uint32)(
        lambda version: ctypes.addressof(table) if version < 16 else 0
    )
    version = ctypes.create_string_buffer(b"1.15.1")
    get_version = ctypes.CFUNCTYPE(ctypes.c_size_t)(lambda: ctypes.addressof(version))
    base = (ctypes.c_void_p * 2)(ctypes.cast(get_api, ctypes.c_void_p), ctypes.cast(get_version, ctypes.c_void_p))
    register = ctypes.CDLL(str(custom_ops.library())).RegisterCustomOps
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]
    assert register(None, ctypes.addressof(base)) == 77
    assert told == [(1, "the operators of hwnas need ONNX Runtime 1.16 or newer; this is 1.15.1")]


@pytest.fixture
def empty_registry(monkeypatch):
    monkeypatch.setattr(custom_ops, "_registered", {})


def example(rng):
    return Example([rng.standard_normal((2, 5), dtype=np.float32)], {})


def plus_one(inputs, attributes):
    return [inputs[0] + np.float32(1)]


LIBRARY = """
    #include "abi.h"
    namespace {
    // One tensor of shape (2, 5) to another.
    OrtStatus* compute(void* kernel, OrtKernelContext* context) {
      const Ort& ort = *static_cast<Ort*>(kernel);
      const OrtValue* given = nullptr;
      OrtValue* result = nullptr;
      void *x = nullptr, *y = nullptr;
      const std::int64_t sizes[] = {2, 5};
      if (OrtStatus* wrong = ort.input(context, 0, &given)) return wrong;
      if (OrtStatus* wrong = ort.output(context, 0, sizes, 2, &result)) return wrong;
      if (OrtStatus* wrong = ort.data(const_cast<OrtValue*>(given), &x)) return wrong;
      if (OrtStatus* wrong = ort.data(result, &y)) return wrong;
      for (int i = 0; i < 10; ++i) static_cast<float*>(y)[i] = static_cast<float*>(x)[i] + 1.0F;
      return nullptr;
    }
    OrtCustomOp op{};
    }
    extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
      const Ort ort(base->GetApi(kOrtApiVersion));
      op.version = kOrtApiVersion;
      op.GetName = [](const OrtCustomOp*) { return "PlusOne"; };
      op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
      op.GetInputType = op.GetOutputType = [](const OrtCustomOp*, std::size_t) { return kOrtFloat; };
      op.GetInputTypeCount = op.GetOutputTypeCount = [](const OrtCustomOp*) -> std::size_t { return 1; };
      op.GetInputCharacteristic = [](const OrtCustomOp*, std::size_t) { return kOrtRequired; };
      op.GetOutputCharacteristic = op.GetInputCharacteristic;
      op.GetInputMemoryType = [](const OrtCustomOp*, std::size_t) { return 0; };
      op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo*, void** kernel) -> OrtStatus* {
        *kernel = new Ort(api);
        return nullptr;
      };
      op.KernelComputeV2 = compute;
      op.KernelDestroy = [](void* kernel) { delete static_cast<Ort*>(kernel); };
      OrtCustomOpDomain* domain = nullptr;
      if (OrtStatus* wrong = ort.create_domain("my.ops", &domain)) return wrong;
      if (OrtStatus* wrong = ort.add(domain, &op)) return wrong;
      return ort.add(options, domain);
    }
"""


@pytest.mark.usefixtures("empty_registry")
def test_an_operator_of_ones_own_comes_from_a_library(tmp_path, batched):
    (tmp_path / "mine.cc").write_text(textwrap.dedent(LIBRARY))
    compiler = shutil.which("g++")
    assert compiler, "g++ compiled this package"
    include = ["-I", str(ROOT / "kernels/custom_op")]
    command = [compiler, "-std=c++17", "-shared", "-fPIC", *include, "mine.cc", "-o", "libmine.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    op = CustomOp("PlusOne", plus_one, example, "my.ops", tmp_path / "libmine.so")
    assert custom_ops.register(op) is op
    assert list(custom_ops.custom_ops()) == ["hwnas.QuantizedProgram", "my.ops.PlusOne"]
    call = example(np.random.default_rng(0))
    expected = plus_one(call.inputs, {})
    assert run_node(op, call, expected)[0].tobytes() == expected[0].tobytes()
    # A session that knows hers knows ours too, and a file by its path as well.
    onnx.save(node_model(op, call, expected), tmp_path / "node.onnx")
    assert OnnxRuntime().load(tmp_path / "node.onnx").run({"x0": call.inputs[0]})[0].tobytes() == expected[0].tobytes()


@pytest.mark.usefixtures("empty_registry")
def test_names_are_refused_with_the_corrected_spelling():
    with pytest.raises(ConfigError, match=r"Did you mean 'hwnas.QuantizedProgram'\?"):
        custom_ops.custom_op("hwnas.QuantisedProgram")
    node = helper.make_node("QuantizedProgramm", ["x"], ["y"], domain="hwnas")
    with pytest.raises(ConfigError, match="Did you mean"):
        custom_ops.with_functions(helper.make_model(helper.make_graph([node], "g", [], [])))


@pytest.mark.usefixtures("empty_registry")
def test_operators_that_nothing_can_run_or_tell_apart_are_refused(tmp_path):
    function = helper.make_function("my.ops", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [])
    for name, domain, more, told in (
        ("plus one", "my.ops", {"function": function}, "expected a word"),
        ("Twice", "com.microsoft", {"function": function}, "a domain of your own"),
        ("Twice", "my.ops", {}, "neither library nor function"),
        ("Twice", "my.ops", {"library": tmp_path / "none.so"}, "does not exist"),
        ("Thrice", "my.ops", {"function": function}, "its function is called 'my.ops.Twice'"),
        ("Twice", "my.ops", {"function": function, "tolerance": float("nan")}, "tolerance"),
    ):
        with pytest.raises(ConfigError, match=told):
            CustomOp(name, plus_one, example, domain, **more)
    custom_ops.register(CustomOp("Twice", plus_one, example, "my.ops", function=function))
    with pytest.raises(ConfigError, match="registered already"):
        custom_ops.register(CustomOp("Twice", plus_one, example, "my.ops", function=function, tolerance=1))


@pytest.mark.usefixtures("empty_registry")
def test_a_library_without_operators_is_refused(tmp_path):
    shutil.copy(str(_kernels.__file__), tmp_path / "other.so")
    custom_ops.register(CustomOp("Other", plus_one, example, "my.ops", tmp_path / "other.so"))
    with pytest.raises(ConfigError, match="refused by ONNX Runtime as a library of operators"):
        custom_ops.session_options()
