"""A whole quantized graph as one node, so that an ordinary ``onnxruntime.InferenceSession`` runs it on our kernels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ModelFileError
from nas.runtime.custom_op import DOMAIN
from nas.runtime.model_file import LARGEST_PROTO_BYTES, check_model_file
from nas.runtime.quantized_program import QUANTIZED_PROGRAM

if TYPE_CHECKING:
    import onnx

    from nas.runtime.plan.program import Tensor

_OPSET, _IR_VERSION = 17, 8
_ROOM_BYTES = 1024**2  # for what is not the program


def take_over(model: Path, target: Path, sizes: Mapping[str, int] | None = None) -> Path:
    """Plan a quantized file and write it as an ONNX file with the one node ``hwnas.QuantizedProgram``.

    Names, types and order of inputs and outputs stay, and so does the metadata. A free first axis that all of them
    share stays free; other free axes get fixed sizes. The file runs wherever the library of
    :func:`nas.runtime.custom_ops.library` is registered, on any level of the processor.

    Args:
        model: quantized or float ONNX file.
        target: file to write; its folder exists.
        sizes: of free axes by name, 1 where one is missing.

    Returns:
        ``target``.

    Raises:
        ModelFileError: the file is damaged, holds an operator that is not known, which is named, or is a language model
            with a cache of keys and values.
    """
    from onnx import helper

    from nas.runtime.plan.cache import find_cache
    from nas.runtime.plan.model import batch_axis, inputs_of, plan

    checked = check_model_file(model)
    if find_cache(checked.graph) is not None:
        raise ModelFileError(
            f"{model}: a language model with a cache of keys and values; expected one whose inputs are all it reads. "
            "Run it with runtime=native, where the cache grows in place."
        )
    batch = batch_axis(model, checked)
    program = plan(model, checked, {} if batch is not None else sizes or {})
    planned = program.to_bytes()
    if len(planned) > LARGEST_PROTO_BYTES - _ROOM_BYTES:
        raise ModelFileError(f"{model}: its program has {len(planned)} bytes, and an ONNX file ends at 2 GiB")
    names = [given.name for given in inputs_of(model, checked)]
    inputs = [_described(name, tensor, batch) for name, tensor in zip(names, program.inputs, strict=True)]
    results = [value.name for value in checked.graph.output]
    outputs = [_described(name, tensor, batch) for name, tensor in zip(results, program.outputs, strict=True)]
    node = helper.make_node(
        QUANTIZED_PROGRAM,
        names,
        results,
        name=QUANTIZED_PROGRAM,
        domain=DOMAIN,
        program=planned,
        batched=int(batch is not None),
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
    graph = helper.make_graph([node], checked.graph.name or "graph", inputs, outputs)
    whole = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="hwnas")
    helper.set_model_props(whole, {entry.key: entry.value for entry in checked.metadata_props})
    target.write_bytes(whole.SerializeToString())
    return target


def _described(name: str, tensor: Tensor, batch: str | None) -> onnx.ValueInfoProto:
    """Return name, type and shape of an input or output of the program."""
    from onnx import TensorProto, helper

    types = {
        "u8": TensorProto.UINT8,
        "f32": TensorProto.FLOAT,
        "i64": TensorProto.INT64,
        "bool": TensorProto.BOOL,
        "i32": TensorProto.INT32,
        "s8": TensorProto.INT8,
    }
    shape: list[int | str] = list(tensor.shape)
    if batch is not None:
        shape[0] = batch if shape[0] == 1 else f"{batch}*{shape[0]}"
    return helper.make_tensor_value_info(name, types[tensor.dtype], shape)
