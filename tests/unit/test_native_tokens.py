"""Networks on tokens in the native runtime: attention as one operator, norms and activations that write bytes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from nas import _kernels
from nas.quantize.static import quantize_static
from nas.runtime.native import NativeRuntime, NativeSession
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.zoo import TransformerBlock

WIDTH = 96
# Heads, whether a token sees only what came before, and tokens: beyond 64 attention is in products of 16 bits.
KINDS = {"many": (2, False, 69), "many-causal": (3, True, 69), "few": (3, False, 64), "few-causal": (2, True, 33)}
# Largest and mean difference from ONNX Runtime, of the largest output: a quantum beyond a rounding.
LARGEST, MEAN = 0.01, 0.0005


def bits(model: Path) -> str:
    return "s16" if model.parent.name.startswith("many") else "f32"


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two transformer blocks, quantized."""
    folder = tmp_path_factory.mktemp(request.param)
    heads, causal, tokens = KINDS[request.param]
    torch.manual_seed(0)
    blocks = [TransformerBlock(WIDTH, heads, tokens, causal=causal) for _ in range(2)]
    module = nn.Sequential(nn.Flatten(0, 1), *blocks).eval()
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.8, 1.2)
            nn.init.uniform_(part.bias, -0.1, 0.1)
    example = torch.randn(1, tokens, WIDTH)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        fp32 = folder / "fp32.onnx"
        torch.onnx.export(module, (example,), str(fp32), dynamo=False, opset_version=20, input_names=["input"])
    quantize_static(fp32, folder / "model.onnx", example.numpy(), {})
    return folder / "model.onnx"


def kernels_of(session: NativeSession) -> list[tuple[str, str]]:
    return [(kind, kernel) for _, kind, kernel, *_ in session.program({}).steps]


def inputs(model: Path, seed: int) -> NDArray[np.float32]:
    tokens = next(tokens for kind, (_, _, tokens) in KINDS.items() if model.parent.name.rstrip("0123456789") == kind)
    return np.random.default_rng(seed).standard_normal((1, tokens, WIDTH), dtype=np.float32)


def test_attention_is_one_operator_and_no_float_lies_between_products(model: Path) -> None:
    steps = kernels_of(NativeRuntime().load(model))
    kinds = [kind for kind, _ in steps]
    assert kinds.count("attention_f32") == 2
    assert not {"transpose", "slice", "softmax_f32", "matmul_f32", "quantize"} & set(kinds)
    assert sum("f32u8" in kernel for _, kernel in steps) == 4 + 2  # two norms and one GELU per block


@pytest.mark.parametrize("isa", _kernels.available_isas())
def test_every_level_gives_the_same_bytes_with_its_own_kernels(model: Path, isa: str) -> None:
    session = NativeRuntime(isa).load(model)
    x86 = {"avx_vnni": "avx2", "avx512vl_vnni": "avx2"}
    expected = (x86 | {"neondot": "neon", "neoni8mm": "neon"}).get(isa, isa)
    assert {kernel for kind, kernel in kernels_of(session) if kind == "attention_f32"} == {
        f"attention_{bits(model)}_{expected}"
    }
    for seed in range(3):
        ours = session.run({"input": inputs(model, seed)})[0]
        portable = NativeRuntime("portable").load(model).run({"input": inputs(model, seed)})[0]
        assert ours.tobytes() == portable.tobytes()


def test_outputs_stay_near_those_of_onnx_runtime(model: Path) -> None:
    native, reference = NativeRuntime().load(model), OnnxRuntime().load(model)
    for seed in range(8):
        given = {"input": inputs(model, seed)}
        ours, theirs = native.run(given)[0], reference.run(given)[0]
        error = np.abs(ours - theirs)
        assert error.max() <= LARGEST * np.abs(theirs).max()
        assert error.mean() <= MEAN * np.abs(theirs).max()


def test_a_network_in_float_has_its_scores_in_float_however_many_its_tokens(model: Path) -> None:
    native, reference = (runtime.load(model.with_name("fp32.onnx")) for runtime in (NativeRuntime(), OnnxRuntime()))
    kernels = [kernel for kind, kernel in kernels_of(native) if kind == "attention_f32"]
    assert len(kernels) == 2
    assert all(kernel.startswith("attention_f32_") for kernel in kernels)
    given = {"input": inputs(model, 0)}
    assert np.abs(native.run(given)[0] - reference.run(given)[0]).max() <= 2e-5
