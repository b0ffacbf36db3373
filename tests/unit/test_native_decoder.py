"""Language models with a cache in the native runtime: a prompt, then token by token, as in ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nas import _kernels
from nas.architecture import Precision
from nas.data import Task
from nas.device import Device
from nas.errors import CandidateError
from nas.measure.local import LocalMeter
from nas.measure.settings import TimingSettings
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.inputs import empty_inputs
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.runtime.program_file import write_program
from search_spaces.decoder import Decoder

torch.set_num_threads(1)
WORDS, CONTEXT, PROMPT = 90, 24, 7
LEVELS = [isa for isa in ("portable", "avx2", "avx512_vnni") if isa in _kernels.available_isas()]
# Of the largest logit. In float both sum in another order; in int8 and int4 a value near the middle between two quanta
# may for that reason fall to the other side.
TOLERANCE = {"fp32": 2e-5, "int8": 0.02, "int4": 0.02}
SMALL = {"widths": [64], "depths": [2], "heads": [4], "head_sizes": [16], "mlp_ratios": [2], "activations": ["gelu"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Networks with tied embeddings and grouped keys, without either, in three precisions."""
    folder = tmp_path_factory.mktemp("decoder")
    task = Task("language_model", channels=0, classes=WORDS, vocabulary=WORDS)
    tokens = np.random.default_rng(0).integers(0, WORDS, (8, CONTEXT))
    written = {}
    for embedding, kv_heads, norm in (("tied", 2, "rmsnorm"), ("own", 4, "layernorm")):
        lists = {**SMALL, "kv_heads": [kv_heads], "norms": [norm], "embeddings": [embedding]}
        space = Decoder(task, contexts=[CONTEXT], prompt=PROMPT, precisions=["int8"], **lists)
        architecture = space.sample(np.random.default_rng(0))
        torch.manual_seed(1)
        full = folder / f"{embedding}_fp32.onnx"
        module = space.build(architecture)
        with torch.no_grad():
            # Larger than fresh weights, so that tokens and positions tell.
            for parameter in module.parameters():
                parameter.mul_(3.0 if parameter.ndim > 1 else 1.0)
        export_example(module, full, tokens[:1])
        written[f"{embedding}_fp32"] = full
        for kind in (Precision.INT8, Precision.INT4):
            path = folder / f"{embedding}_{kind}.onnx"
            quantize_static(full, path, tokens, dict.fromkeys(architecture.precision, kind), Precision.FP32)
            written[f"{embedding}_{kind}"] = path
    return written


def spoken(session, tokens, splits):
    """Return the logits of all tokens, given in parts, and the last keys and values."""
    cache = empty_inputs(session.inputs, {"input"})
    said = []
    for part in np.split(tokens, splits, axis=1):
        logits, *grown = session.run({"input": part, **cache})
        cache = dict(zip(cache, grown, strict=True))
        said.append(logits)
    return np.concatenate(said, axis=1), list(cache.values())


def texts(count, seed=5):
    return np.random.default_rng(seed).integers(0, WORDS, (count, 1, CONTEXT))


@pytest.mark.parametrize("kind", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("embedding", ["tied", "own"])
def test_prompt_and_tokens_as_in_onnx_runtime(files, embedding, kind):
    path, limit = files[f"{embedding}_{kind}"], TOLERANCE[kind]
    native, reference = NativeRuntime().load(path), OnnxRuntime().load(path)
    assert native.inputs == reference.inputs
    splits = [PROMPT, *range(PROMPT + 2, CONTEXT)]
    same = []
    for text in texts(4):
        (ours, our_cache), (theirs, their_cache) = (spoken(one, text, splits) for one in (native, reference))
        assert np.abs(ours - theirs).max() <= limit * np.abs(theirs).max()
        for mine, other in zip(our_cache, their_cache, strict=True):
            assert mine.shape == other.shape == (1, 4 if embedding == "own" else 2, CONTEXT, 16)
            assert np.abs(mine - other).max() <= limit * np.abs(other).max()
        # Where the best is ahead of the second by more than the tolerance, it is the same.
        best, second = np.sort(theirs, axis=-1)[..., -1], np.sort(theirs, axis=-1)[..., -2]
        clear = best - second > 2 * limit * np.abs(theirs).max()
        same.append((ours.argmax(-1) == theirs.argmax(-1))[clear])
    assert np.concatenate(same).all()
    assert np.concatenate(same).size > 10


@pytest.mark.parametrize("kind", ["fp32", "int8", "int4"])
def test_one_program_for_every_length_without_moves_of_memory(files, kind):
    session = NativeRuntime().load(files[f"tied_{kind}"])
    steps = session.program({"tokens": 1, "past": 3}).steps
    assert session.program({"tokens": 1, "past": 9}) is session.program({"tokens": 1, "past": 3})
    kinds = [kind for _, kind, *_ in steps]
    assert kinds.count("attention_cached") == 2
    assert kinds.count("rows_at") == 1
    assert not {"transpose", "slice", "concat", "softmax_f32", "matmul_f32", "where", "constant"} & set(kinds)
    assert kinds.count("matmul_int4") == (2 * 4 + 1 if kind == "int4" else 0)
    assert {"fp32": "gather", "int8": "gather_s8", "int4": "gather_int4"}[kind] == kinds[0]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_every_level_says_the_same_with_its_own_kernels(files, isa, kind):
    session, portable = (NativeRuntime(name).load(files[f"own_{kind}"]) for name in (isa, "portable"))
    for tokens in (1, PROMPT):
        kernels = {kernel for _, step, kernel, *_ in session.program({"tokens": tokens}).steps if "cached" in step}
        assert kernels == {f"attention_cached_f32_{isa}"}
    splits = [PROMPT, PROMPT + 1, PROMPT + 4]
    for text in texts(2):
        (ours, cache), (theirs, reference) = (spoken(one, text, splits) for one in (session, portable))
        assert ours.tobytes() == theirs.tobytes()
        assert all(np.array_equal(mine, other) for mine, other in zip(cache, reference, strict=True))


def test_arrays_that_were_handed_out_never_change(files):
    session = NativeRuntime().load(files["tied_fp32"])
    text = texts(1)[0]
    empty = empty_inputs(session.inputs, {"input"})

    def step(token, cache):
        logits, *grown = session.run({"input": np.full((1, 1), token), **cache})
        return logits, dict(zip(empty, grown, strict=True))

    _, *grown = session.run({"input": text[:, :PROMPT], **empty})
    start = dict(zip(empty, grown, strict=True))
    kept = {name: array.copy() for name, array in start.items()}
    first, behind = step(3, start)
    copies = {name: array.copy() for name, array in behind.items()}
    # The cache that goes on in place is the same memory.
    assert all(np.shares_memory(behind[name], start[name]) for name in empty)
    # Another continuation of the same start: what the first one said must stay.
    other, branch = step(4, start)
    assert not np.array_equal(first, other)
    assert not any(np.shares_memory(branch[name], start[name]) for name in empty)
    further = step(5, behind)[0]
    for now, then in ((start, kept), (behind, copies)):
        assert all(np.array_equal(now[name], then[name]) for name in empty)
    # From copies the same is said.
    assert np.array_equal(step(4, kept)[0], other)
    assert np.array_equal(step(5, copies)[0], further)
    with pytest.raises(ValueError, match="read-only"):
        next(iter(start.values()))[:] = 0.0
    # Once nobody looks at the first continuation, its place is written again.
    del behind, branch, now
    assert all(np.shares_memory(array, start[name]) for name, array in step(4, start)[1].items())


@pytest.mark.parametrize("seed", range(5))
def test_blocks_of_8_and_4_bits_mix(tmp_path, seed):
    task = Task("language_model", channels=0, classes=WORDS, vocabulary=WORDS)
    lists = {"widths": [32, 64], "depths": [2], "heads": [2, 4], "head_sizes": [16], "mlp_ratios": [1, 2]}
    space = Decoder(task, contexts=[CONTEXT], prompt=PROMPT, precisions=["int8", "int4"], **lists)
    rng = np.random.default_rng(seed)
    architecture = next(a for a in iter(lambda: space.sample(rng), None) if len({*a.precision.values()}) > 1)
    torch.manual_seed(seed)
    tokens = rng.integers(0, WORDS, (8, CONTEXT))
    export_example(space.build(architecture), tmp_path / "fp32.onnx", tokens[:1])
    path = tmp_path / "mixed.onnx"
    quantize_static(tmp_path / "fp32.onnx", path, tokens, architecture.precision, Precision.FP32)
    native, reference = NativeRuntime().load(path), OnnxRuntime().load(path)
    kinds = [kind for _, kind, *_ in native.program({"tokens": 1}).steps]
    assert kinds.count("attention_cached") == 2
    assert kinds.count("rows_at") == 1
    text = texts(1, seed)[0]
    (ours, our_cache), (theirs, their_cache) = (spoken(one, text, [PROMPT, PROMPT + 1]) for one in (native, reference))
    for mine, other in zip([ours, *our_cache], [theirs, *their_cache], strict=True):
        assert np.abs(mine - other).max() <= TOLERANCE["int8"] * np.abs(other).max()


def test_what_does_not_fit_is_refused(files):
    session = NativeRuntime().load(files["tied_int8"])
    empty = empty_inputs(session.inputs, {"input"})
    _, *grown = session.run({"input": texts(1)[0], **empty})
    full = dict(zip(empty, grown, strict=True))
    with pytest.raises(CandidateError, match="24 tokens and 1 more; expected at most 24"):
        session.run({"input": np.zeros((1, 1), np.int64), **full})
    with pytest.raises(CandidateError, match="0 tokens and 25 more; expected at most 24"):
        session.run({"input": np.zeros((1, 25), np.int64), **empty})
    with pytest.raises(CandidateError, match="input 'past_1_value' is missing"):
        session.run({"input": np.zeros((1, 1), np.int64), **{n: a for n, a in empty.items() if n != "past_1_value"}})
    short = {**full, "past_0_key": full["past_0_key"][:, :, :3]}
    with pytest.raises(CandidateError, match="past"):
        session.run({"input": np.zeros((1, 1), np.int64), **short})
    doubles = {name: array.astype(np.float64) for name, array in empty.items()}
    with pytest.raises(CandidateError, match="float64"):
        session.run({"input": np.zeros((1, 1), np.int64), **doubles})
    with pytest.raises(CandidateError, match="no input called more"):
        session.run({"input": np.zeros((1, 1), np.int64), **empty, "more": np.zeros(1, np.float32)})


def test_a_graph_that_uses_its_cache_otherwise_is_planned_for_each_length(files, tmp_path):
    model = onnx.load(files["own_fp32"])
    # A second reader of one cache: its sum joins the logits.
    model.graph.node.append(onnx.helper.make_node("Identity", ["past_0_key"], ["seen"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("seen", 1, [1, 4, "past", 16]))
    onnx.save(model, tmp_path / "odd.onnx")
    native, reference = (runtime.load(tmp_path / "odd.onnx") for runtime in (NativeRuntime(), OnnxRuntime()))
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((1, 4, 5, 16), dtype=np.float32) for name in list(native.inputs)[1:]}
    given["input"] = np.array([[1, 2]])
    for ours, theirs in zip(native.run(given), reference.run(given), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()
    with pytest.raises(CandidateError, match=r"no size of 0, since a program is planned for each size$"):
        native.run({**given, "past_0_key": given["past_0_key"][:, :, :0]})


def test_why_a_cache_cannot_be_empty_is_told(files, tmp_path):
    model = onnx.load(files["own_fp32"])
    # A second reader of the scores' keys: no attention that the planner knows.
    turned = next(node.output[0] for node in model.graph.node if node.name == "/layer0_attention/Transpose_1")
    model.graph.output.append(onnx.helper.make_tensor_value_info(turned, 1, [1, 4, 16, "all"]))
    onnx.save(model, tmp_path / "odd.onnx")
    native = NativeRuntime().load(tmp_path / "odd.onnx")
    given = {"input": np.array([[1, 2]]), **empty_inputs(native.inputs, {"input"})}
    with pytest.raises(CandidateError, match=r"no size of 0, .*'past_0_key' is a cache that something but attention"):
        native.run(given)


def test_prompt_and_token_are_timed(files):
    quick = TimingSettings(
        min_blocks=3, max_blocks=3, block_runs=3, warmup_s=0.0, tries=1, realtime=False, memory_loads=1, timeout_s=60.0
    )
    measured = LocalMeter(Device("fake", "x86_64", 1), NativeRuntime(), quick).measure(files["tied_int4"])
    assert {"ttft_ms", "token_ms"} <= set(measured)
    assert all(reading.runtime.startswith("native-") for reading in measured.values())
    operators = NativeRuntime().profile(files["tied_int4"], runs=2)
    assert sum("attention_cached" in one.kind for one in operators) == 2


@pytest.mark.parametrize("name", ["tied_int8", "own_int4"])
def test_the_program_of_one_more_token_is_written_and_checked(files, name, tmp_path):
    card = write_program(files[name], tmp_path / "model.nasq")
    assert card["cached_tokens"] == CONTEXT
    assert card["inputs"] == [{"shape": [1, 1], "type": "int64"}]
    assert _kernels.Program((tmp_path / "model.nasq").read_bytes()).most_tokens == CONTEXT
