"""Threads in the native runtime: the bytes of one thread, refusals, and processes that fork, spawn or pin."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
import torch

from nas import _kernels
from nas.architecture import Precision
from nas.data import Task
from nas.errors import ConfigError
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example, export_fp32
from nas.runtime.inputs import empty_inputs, random_inputs
from nas.runtime.model_file import check_model_file
from nas.runtime.native import NativeRuntime
from nas.runtime.plan.cache import find_cache
from nas.runtime.plan.model import plan, plan_cached
from search_spaces.convnet import ConvNet
from search_spaces.decoder import Decoder
from search_spaces.hybrid import Hybrid
from search_spaces.transformer import Transformer

torch.set_num_threads(1)
LEVELS = _kernels.available_isas()
SIDE, WORDS, CONTEXT = 24, 90, 24
# Depthwise 3x3 and 5x5, gates, attention, several heads; floats between quantized blocks.
SPACES = {
    "convnet": (ConvNet, {"kernels": [3, 5]}),
    "hybrid": (Hybrid, {}),
    "transformer": (Transformer, {}),
}
needs_two = pytest.mark.skipif(_kernels.most_threads() < 2, reason="this process may use one processor only")


def pictures_network(name, folder, precision):
    kind, lists = SPACES[name]
    space = kind(Task("image_classification", 3, 10), [SIDE], **lists)
    architecture = space.sample(np.random.default_rng(3))
    torch.manual_seed(0)
    export_fp32(space.build(architecture), folder / "fp32.onnx", 3, SIDE, SIDE)
    samples = np.random.default_rng(0).standard_normal((8, 3, SIDE, SIDE), dtype=np.float32)
    blocks = dict.fromkeys(architecture.precision, precision)
    path = folder / "model.onnx"
    default = Precision.INT8 if precision is Precision.INT8 else Precision.FP32
    quantize_static(folder / "fp32.onnx", path, samples, blocks, default)
    return path


def language_model(folder, precision):
    lists = {"widths": [64], "depths": [2], "heads": [4], "kv_heads": [2], "head_sizes": [16], "mlp_ratios": [2]}
    lists |= {"activations": ["gelu"], "norms": ["rmsnorm"], "embeddings": ["tied"], "precisions": ["int8"]}
    task = Task("language_model", channels=0, classes=WORDS, vocabulary=WORDS)
    space = Decoder(task, contexts=[CONTEXT], prompt=7, **lists)
    architecture = space.sample(np.random.default_rng(0))
    torch.manual_seed(1)
    tokens = np.random.default_rng(0).integers(0, WORDS, (8, CONTEXT))
    export_example(space.build(architecture), folder / "fp32.onnx", tokens[:1])
    path = folder / "model.onnx"
    blocks = dict.fromkeys(architecture.precision, precision)
    quantize_static(folder / "fp32.onnx", path, tokens, blocks, Precision.FP32)
    return path


def in_threads(planned, isa, threads):
    """A program that shares every step that can be shared, however small."""
    program = _kernels.Program(planned, isa, threads, 0.0)
    assert program.threads == threads
    return program


KINDS = [(name, kind) for name in SPACES for kind in ("int8", "fp32", "int4")]


@pytest.fixture(scope="module", params=KINDS, ids="_".join)
def pictures(request, tmp_path_factory):
    name, kind = request.param
    return pictures_network(name, tmp_path_factory.mktemp(name), Precision(kind))


@pytest.mark.parametrize("isa", LEVELS)
def test_same_bytes_whatever_the_threads(pictures, isa):
    model = check_model_file(pictures)
    planned = plan(pictures, model, {}).to_bytes()
    (given,) = random_inputs(NativeRuntime().load(pictures).inputs).values()
    programs = [in_threads(planned, isa, threads) for threads in (1, 2, 3)]
    assert [max(program.parts) for program in programs] == [1, 2, 3]
    for scale in (1, 4):
        x = given * np.float32(scale)
        expected, *others = (program.run([x])[0].tobytes() for program in programs)
        assert others == [expected, expected]


@pytest.mark.parametrize("kind", ["int8", "int4", "fp32"])
@pytest.mark.parametrize("isa", LEVELS)
def test_same_bytes_with_a_cache(kind, isa, tmp_path):
    path = language_model(tmp_path, Precision(kind))
    model = check_model_file(path)
    cache = find_cache(model.graph)
    text = np.random.default_rng(5).integers(0, WORDS, (1, CONTEXT))
    spoken = []
    for threads in (1, 2, 3):
        pool, said = _kernels.CachePool(), []
        past = [np.zeros(shape, np.float32) for shape in empty_shapes(path, cache)]
        for part in (text[:, :9], text[:, 9:10], text[:, 10:]):
            program = in_threads(plan_cached(path, model, cache, part.shape[1])[0], isa, threads)
            (logits,), past = program.run_cached(pool, [np.ascontiguousarray(part)], past)
            said.append(logits.tobytes())
        spoken.append(said + [array.tobytes() for array in past])
    assert spoken[1] == spoken[0]
    assert spoken[2] == spoken[0]


def empty_shapes(path, cache):
    inputs = NativeRuntime().load(path).inputs
    first = next(name for name in inputs if name not in cache.outputs)
    return [array.shape for array in empty_inputs(inputs, {first}).values()]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A network with operators that are worth sharing."""
    space = ConvNet(Task("image_classification", 3, 10), [96], kernels=[3], precisions=["int8"])
    architecture = space.sample(np.random.default_rng(0))
    folder = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    export_fp32(space.build(architecture), folder / "fp32.onnx", 3, 96, 96)
    samples = np.random.default_rng(0).standard_normal((4, 3, 96, 96), dtype=np.float32)
    quantize_static(folder / "fp32.onnx", folder / "model.onnx", samples, architecture.precision)
    return folder / "model.onnx"


@needs_two
def test_large_operators_are_shared_and_small_ones_are_not(large):
    session = NativeRuntime().load(large, threads=2)
    assert set(session.program({}).parts) == {1, 2}
    assert session.program({}).threads == 2


def test_one_thread_shares_nothing(large):
    program = NativeRuntime().load(large).program({})
    assert (set(program.parts), program.threads) == ({1}, 1)


@needs_two
def test_profile_has_the_operators_of_one_thread(large):
    one, two = (NativeRuntime().profile(large, runs=3, threads=threads) for threads in (1, 2))
    assert {(op.name, op.kind, op.output_shape, op.dtype) for op in one} == {
        (op.name, op.kind, op.output_shape, op.dtype) for op in two
    }
    assert sum(op.share for op in two) == pytest.approx(1)


@pytest.mark.parametrize("threads", [0, -1, 10_000])
def test_numbers_of_threads_that_cannot_be_are_refused(large, threads):
    expected = rf"threads={threads} in the native runtime; expected 1 to {_kernels.most_threads()}, the processors"
    with pytest.raises(ConfigError, match=expected):
        NativeRuntime().load(large, threads=threads)
    with pytest.raises(ConfigError, match=expected):
        NativeRuntime().profile(large, threads=threads)


def test_most_threads_are_the_processors_of_this_process():
    assert NativeRuntime().most_threads == min(16, len(os.sched_getaffinity(0)))


def ran(path, threads):
    session = NativeRuntime().load(path, threads=threads)
    return session.run(random_inputs(session.inputs))[0].tobytes()


def tell(path, threads, answers):
    answers.put(ran(path, threads))


@needs_two
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_have_threads_of_their_own(large, method):
    expected = ran(large, 2)
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    process = context.Process(target=tell, args=(large, 2, answers))
    process.start()
    assert answers.get() == expected
    process.join(30)
    assert process.exitcode == 0


@needs_two
def test_a_forked_process_runs_what_was_loaded_before(large):
    session = NativeRuntime().load(large, threads=2)
    given = random_inputs(session.inputs)
    expected = session.run(given)[0].tobytes()
    child = os.fork()
    if child == 0:
        os._exit(0 if session.run(given)[0].tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


@needs_two
def test_a_pinned_caller_gets_a_worker_on_another_processor(large):
    """And the caller's own thread stays where it was pinned."""
    expected, found = ran(large, 1), {}

    def pinned():
        (mine, *_) = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {mine})
        before = set(os.listdir("/proc/self/task"))
        session = NativeRuntime().load(large, threads=2)
        workers = set(os.listdir("/proc/self/task")) - before
        found["bytes"] = session.run(random_inputs(session.inputs))[0].tobytes()
        found["workers"] = [os.sched_getaffinity(int(worker)) for worker in workers]
        found["caller"] = (os.sched_getaffinity(0), {mine})

    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    assert found["bytes"] == expected
    assert found["caller"][0] == found["caller"][1]
    assert found["workers"]
    assert all(not allowed & found["caller"][1] for allowed in found["workers"])


@needs_two
def test_threads_end_with_the_program(large):
    """By their ids: a thread of an earlier test may end in between, and a joined one is listed for a moment longer."""
    before = set(os.listdir("/proc/self/task"))
    session = NativeRuntime().load(large, threads=2)
    helpers = set(os.listdir("/proc/self/task")) - before
    assert len(helpers) == 1
    del session
    deadline = time.monotonic() + 10
    while helpers & set(os.listdir("/proc/self/task")):
        assert time.monotonic() < deadline, "the helper thread is still there after its program"
        time.sleep(0.01)


@needs_two
def test_several_sessions_serve_several_callers(large):
    """Each thread with a session of its own, and two of them on one session."""
    expected = ran(large, 1)
    shared = NativeRuntime().load(large, threads=2)
    answers = []

    def call(session):
        for _ in range(20):
            answers.append(session.run(random_inputs(session.inputs))[0].tobytes() == expected)

    sessions = [shared, shared, NativeRuntime().load(large, threads=2)]
    callers = [threading.Thread(target=call, args=(session,)) for session in sessions]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert answers == [True] * 60
