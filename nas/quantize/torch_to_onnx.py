"""From a torch module to an fp32 ONNX file that the quantizer and any runtime can read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.onnx import symbolic_helper

from nas.protocols import Exportable, OnnxSignature

INPUT_NAME = "input"
OUTPUT_NAME = "logits"

# 20 is the newest that the TorchScript exporter writes; it has Gelu as one operator.
_OPSET = 20
# The first that has RMSNormalization; files without it stay at 20.
_RMS_OPSET = 23
_RMS_DOMAIN = "hwnas"


def export_fp32(module: nn.Module, path: Path, channels: int, height: int, width: int) -> None:
    """Write a network that reads pictures as ONNX; see :func:`export_example`."""
    export_example(module, path, np.zeros((1, channels, height, width), np.float32))


def export_example(module: nn.Module, path: Path, example: NDArray[Any]) -> None:
    """Write ``module`` as ONNX with the TorchScript exporter, in about 0.1 s.

    The input is called ``input``, of the example's type and shape with a free batch; the output ``logits``.
    Batch norms are folded into the convolutions before them. Node names keep the module path, so that the first part
    of ``/stage1_block0/conv1/conv/Conv`` is the block. Every tensor is stored once per reader, since the quantizer
    takes only an initializer for a bias. The module's training mode is as it was afterwards.

    Args:
        module: network on the CPU.
        path: file to write; its folder exists.
        example: one sample as the network reads it, such as (1, channels, height, width); a network that is
            ``Exportable`` brings its own.
    """
    signature = _signature(module, example)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with _rms_norm_as_one_node(), warnings.catch_warnings(), torch.no_grad():
            # The exporter announces its own deprecation on every call; the dynamo one takes 3 to 5 s per network.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                signature.example,
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=list(signature.inputs),
                output_names=list(signature.outputs),
                dynamic_axes={name: dict(axes) for name, axes in signature.free.items()},
            )
    finally:
        for part, mode in modes:
            part.training = mode
    model = onnx.load(str(path))
    _unshare_initializers(model.graph)
    _standardize_rms_norm(model)
    if signature.metadata:
        onnx.helper.set_model_props(model, dict(signature.metadata))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _signature(module: nn.Module, example: NDArray[Any]) -> OnnxSignature:
    if isinstance(module, Exportable):
        return module.onnx_signature()
    free = {INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}
    return OnnxSignature((torch.from_numpy(example),), (INPUT_NAME,), (OUTPUT_NAME,), free, {})


def _unshare_initializers(graph: onnx.GraphProto) -> None:
    """Give each Identity of an initializer its own copy: the exporter merges equal tensors, such as fresh biases."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in stored:
            copy = onnx.TensorProto()
            copy.CopyFrom(stored[node.input[0]])
            copy.name = node.output[0]
            graph.initializer.append(copy)
            stored[copy.name] = copy
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _standardize_rms_norm(model: onnx.ModelProto) -> None:
    nodes = [node for node in model.graph.node if node.domain == _RMS_DOMAIN]
    for node in nodes:
        node.domain = ""
    if nodes:
        del model.opset_import[:]
        model.opset_import.append(onnx.helper.make_opsetid("", _RMS_OPSET))


@contextmanager
def _rms_norm_as_one_node() -> Iterator[None]:
    """Have ``aten::rms_norm`` exported as one node; as six, the quantizer would round inside the norm."""

    def symbolic(g: Any, value: Any, _shape: Any, weight: Any, epsilon: Any) -> Any:
        constant = symbolic_helper._maybe_get_const(epsilon, "f")
        axes = len(weight.type().sizes())
        node = g.op(f"{_RMS_DOMAIN}::RMSNormalization", value, weight, axis_i=-axes, epsilon_f=float(constant))
        return node.setType(value.type())

    registry: Any = torch.onnx
    registry.register_custom_op_symbolic("aten::rms_norm", symbolic, _OPSET)
    try:
        yield
    finally:
        registry.unregister_custom_op_symbolic("aten::rms_norm", _OPSET)
