"""The anchor: a small model of which everybody has the same bytes, timed beside every candidate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHANNELS = 16
EXPANDED = 64
SIZE = 32
BLOCKS = 4


def write_anchor(path: Path) -> None:
    """Write the anchor, 11 million fp32 MACs in 4 inverted bottlenecks; the file is byte-identical on every machine.

    It resembles the candidates so that what slows them slows it too: with a busy neighbour on the same physical core,
    int8 and fp32 candidates took 20 to 35 % longer (AMD Zen 4), a chain of dense 3 x 3 convolutions only 3 to 5 %. It
    stays in fp32, so that a faster int8 kernel of a new runtime does not pass for a calmer machine.
    """
    from onnx import NodeProto, TensorProto, helper, numpy_helper

    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []

    def conv(name: str, source: str, shape: tuple[int, ...], groups: int, relu: bool) -> str:
        weights.append(numpy_helper.from_array(_weights(shape, seed=len(weights)), f"{name}_weight"))
        padding = [shape[-1] // 2] * 4
        nodes.append(
            helper.make_node("Conv", [source, f"{name}_weight"], [name], f"/{name}/Conv", group=groups, pads=padding)
        )
        if not relu:
            return name
        nodes.append(helper.make_node("Relu", [name], [f"{name}_relu"], f"/{name}/Relu"))
        return f"{name}_relu"

    source = "input"
    for block in range(BLOCKS):
        wide = conv(f"expand{block}", source, (EXPANDED, CHANNELS, 1, 1), 1, relu=True)
        deep = conv(f"depthwise{block}", wide, (EXPANDED, 1, 3, 3), EXPANDED, relu=True)
        narrow = conv(f"project{block}", deep, (CHANNELS, EXPANDED, 1, 1), 1, relu=False)
        nodes.append(helper.make_node("Add", [source, narrow], [f"block{block}"], f"/block{block}/Add"))
        source = f"block{block}"
    shape = [1, CHANNELS, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "anchor",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        weights,
    )
    # Versions are fixed: those of the installed onnx would change the bytes.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="hwnas")
    path.write_bytes(model.SerializeToString(deterministic=True))


def _weights(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return values between -0.1 and 0.1 from a multiplicative hash: exact integer arithmetic, equal everywhere."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed * 1_000_003 + 1)
    hashed = (index * np.uint64(2654435761)) & np.uint64(0xFFFFFF)
    centred = hashed.astype(np.int64) - 2**23
    return (centred.astype(np.float32) * np.float32(0.1 / 2**23)).reshape(shape)
