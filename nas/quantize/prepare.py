"""Readies a foreign ONNX file for the quantizer: scalers become plain operators, constants and batch norms fold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import CandidateError

if TYPE_CHECKING:
    import onnx

# The first opset with scales per channel.
_OPSET = 13


def prepare_model(model: onnx.ModelProto, target: Path) -> None:
    """Write the model at an opset that can be quantized, as ONNX Runtime's basic optimizations leave it.

    Args:
        model: float model; changed.
        target: file to write.

    Raises:
        CandidateError: the opset cannot be raised, or ONNX Runtime refuses the model.
    """
    import onnx
    from onnx import version_converter

    _plain_scalers(model)
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), _OPSET)
    if opset < _OPSET:
        try:
            model = version_converter.convert_version(model, _OPSET)
        # The converter raises RuntimeError and its own errors alike.
        except Exception as error:
            raise CandidateError("error", f"opset {opset} cannot be raised to {_OPSET}: {str(error)[:200]}") from error
    onnx.save_model(model, str(target))
    _fold_constants(target)
    folded = onnx.load_model(str(target))
    _flatten_biases(folded)
    onnx.save_model(folded, str(target))


def _plain_scalers(model: onnx.ModelProto) -> None:
    """Turn scikit-learn's Scaler, behind which shapes cannot be inferred, into a subtraction and a product."""
    from onnx import helper, numpy_helper

    nodes = []
    for node in model.graph.node:
        if (node.domain, node.op_type) != ("ai.onnx.ml", "Scaler"):
            nodes.append(node)
            continue
        values = {item.name: np.asarray(item.floats, np.float32) for item in node.attribute}
        source = node.input[0]
        written = {"offset": f"{node.output[0]}_centred", "scale": node.output[0]}
        for operator, attribute in (("Sub", "offset"), ("Mul", "scale")):
            # Not "_scale": the quantizer calls its own scales so.
            stored, result = f"{node.output[0]}_stored_{attribute}s", written[attribute]
            model.graph.initializer.append(numpy_helper.from_array(values[attribute], stored))
            nodes.append(helper.make_node(operator, [source, stored], [result], f"{node.name}_{attribute}"))
            source = result
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _flatten_biases(model: onnx.ModelProto) -> None:
    """Give every Gemm a bias of one axis: scikit-learn's has two, at which ONNX Runtime's quantizer stumbles."""
    biases = {node.input[2] for node in model.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    others = {name for node in model.graph.node for name in (node.input[:2] if node.op_type == "Gemm" else node.input)}
    for tensor in model.graph.initializer:
        if tensor.name in biases - others and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]


def _fold_constants(path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    written = path.with_suffix(".folded.onnx")
    options.optimized_model_filepath = str(written)
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # The binding's exceptions share no base class of their own.
    except Exception as error:
        raise CandidateError("error", f"ONNX Runtime refuses the model: {str(error)[:300]}") from error
    written.replace(path)
