"""The language model of ``make bench-kernels``: one token after 128, weights in 4 bits by groups of 128.

The native runtime and ONNX Runtime read the file that ``space=decoder`` exports. ONNX Runtime also gets the same
weights in a graph made for it: GroupQueryAttention in the place of the written-out attention, its cache one buffer that
is extended in place, bound once (``IOBinding``), so that nothing is copied or allocated per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from nas.architecture import Precision
from nas.data import Task
from nas.quantize.static import quantize_static
from nas.quantize.torch_to_onnx import export_example
from nas.runtime.inputs import empty_inputs
from nas.runtime.onnx_runtime import OnnxRuntime
from search_spaces.decoder import Decoder

WORDS, CONTEXT, PAST = 8192, 256, 128
WIDTH, HEADS, SIZE, DEPTH = 384, 6, 64, 6


def write_decoder(folder: Path) -> tuple[Path, Path]:
    """Write the exported and the fused file and return their paths; weights are random, from seed 0."""
    whole, fused = folder / "decoder_token_int4.onnx", folder / "decoder_token_int4_fused.onnx"
    if not fused.exists():
        folder.mkdir(parents=True, exist_ok=True)
        task = Task("language_model", channels=0, classes=WORDS, vocabulary=WORDS)
        space = Decoder(
            task,
            contexts=[CONTEXT],
            prompt=PAST,
            **{"widths": [WIDTH], "depths": [DEPTH], "heads": [HEADS], "kv_heads": [HEADS], "head_sizes": [SIZE]},
            **{"mlp_ratios": [4], "activations": ["gelu"], "norms": ["layernorm"], "embeddings": ["tied"]},
            precisions=["int4"],
        )
        architecture = space.sample(np.random.default_rng(0))
        torch.manual_seed(0)
        full = folder / "decoder_token_fp32.onnx"
        tokens = np.zeros((1, PAST), np.int64)
        export_example(space.build(architecture), full, tokens)
        quantize_static(full, whole, tokens, architecture.precision, Precision.FP32)
        model = onnx.load(whole)
        fuse_attention(model)
        onnx.save(model, fused)
    return whole, fused


def fuse_attention(model: onnx.ModelProto) -> None:
    """Put GroupQueryAttention in the place of each written-out attention.

    The number of tokens before becomes an input of its own, ``past``, since the shape of the cache no longer says it.
    """
    graph = model.graph
    nodes = {node.name: node for node in graph.node}
    made: dict[str, onnx.NodeProto] = {}
    for layer in range(DEPTH):
        block = f"layer{layer}_attention"
        joint, last = nodes[f"/{block}/Reshape"].input[0], _last_reshape(nodes, block)
        row = f"{block}_joint"
        made[last.name] = helper.make_node(
            "GroupQueryAttention",
            [row, "", "", f"past_{layer}_key", f"past_{layer}_value", "seqlens_k", "total"],
            [f"{block}_mixed", f"present_{layer}_key", f"present_{layer}_value"],
            f"/{block}/GroupQueryAttention",
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=HEADS,
            scale=SIZE**-0.5,
        )
        made[f"{last.name}:before"] = helper.make_node("Unsqueeze", [joint, "first_axis"], [row], f"/{block}/joint")
        made[f"{last.name}:behind"] = helper.make_node("Squeeze", [f"{block}_mixed", "first_axis"], [last.output[0]])
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in made:
            kept += [made[f"{node.name}:before"], made[node.name], made[f"{node.name}:behind"]]
        elif node.name == "/Gather":
            kept.append(helper.make_node("Identity", ["past"], [node.output[0]], "/Gather"))
        elif not any(name.startswith("present_") for name in node.output):
            kept.append(node)
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first_axis"))
    graph.input.append(helper.make_tensor_value_info("past", onnx.TensorProto.INT64, []))
    graph.input.append(helper.make_tensor_value_info("seqlens_k", onnx.TensorProto.INT32, [1]))
    graph.input.append(helper.make_tensor_value_info("total", onnx.TensorProto.INT32, []))
    _keep_needed(graph, kept)


def _last_reshape(nodes: Mapping[str, onnx.NodeProto], block: str) -> onnx.NodeProto:
    named = [name for name in nodes if name.startswith(f"/{block}/Reshape_")]
    return nodes[max(named, key=lambda name: int(name.rpartition("_")[2]))]


def _keep_needed(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the nodes, without those whose results nobody reads; shapes noted for the old ones go."""
    ends = {value.name for value in graph.output}
    while True:
        read = {name for node in nodes for name in node.input} | ends
        left = [node for node in nodes if read & set(node.output)]
        if len(left) == len(nodes):
            break
        nodes = left
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]


class FusedDecoder:
    """One token after 128 in ONNX Runtime with the fused file; each run writes the same place of the cache again.

    Args:
        path: fused file.
        cache: keys and values of 128 tokens by input name, shape (1, heads, 128, size).
    """

    def __init__(self, path: Path, cache: Mapping[str, NDArray[np.float32]]) -> None:
        options = OnnxRuntime().session_options(1)
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.held: list[Any] = []
        for name, array in cache.items():
            whole = np.zeros((1, HEADS, CONTEXT, SIZE), np.float32)
            whole[:, :, :PAST] = array
            value = onnxruntime.OrtValue.ortvalue_from_numpy(whole)
            self.binding.bind_ortvalue_input(name, value)
            self.binding.bind_ortvalue_output(name.replace("past", "present"), value)
            self.held.append(value)
        for name, number in (("past", np.array(PAST)), ("seqlens_k", np.array([PAST], np.int32))):
            self.binding.bind_cpu_input(name, number)
        self.binding.bind_cpu_input("total", np.array(PAST + 1, np.int32))
        self.logits = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 1, WORDS), np.float32))
        self.binding.bind_ortvalue_output("logits", self.logits)
        self.token = np.zeros((1, 1), np.int64)
        self.binding.bind_cpu_input("input", self.token)

    def run(self) -> None:
        """Run; the logits lie in ``logits``."""
        self.session.run_with_iobinding(self.binding)

    def say(self, token: int) -> NDArray[np.float32]:
        """Return a copy of the logits behind a token."""
        self.token[:] = token
        self.binding.bind_cpu_input("input", self.token)
        self.run()
        logits: NDArray[np.float32] = self.logits.numpy().copy()
        return logits


def prompted(session: Any, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return the cache of a session that has read 128 random tokens, by input name."""
    empty = empty_inputs(session.inputs, {"input"})
    tokens = np.random.default_rng(seed).integers(0, WORDS, (1, PAST))
    _, *grown = session.run({"input": tokens, **empty})
    return dict(zip(empty, grown, strict=True))
