"""Static quantization of an ONNX file, block by block, with ONNX Runtime's own quantizer.

Weights are signed 8 bits per output channel, activations unsigned 8 bits per tensor (the pair that ONNX Runtime's x86
kernels are fastest with), written as QuantizeLinear/DequantizeLinear pairs. What is quantized was chosen by measuring
on one AMD Zen 4 core (MobileNet-like networks on 32 x 32 pictures, a vision transformer of 6 layers and width 96):

- Convolutional blocks: with activations, Add, Mul, Sigmoid and pooling in the set the network takes 0.45 to 0.66 of
  the time of fp32, without them 0.65 to 1.04, since the chain falls back to float between two convolutions.
- Blocks that work on tokens (those that hold a MatMul, a layer normalization or a transposition): weight products only,
  their outputs left in float, 0.65; everything in the set 0.93, because Softmax, GELU and the bias additions are slower
  in 8 bits.
- Embeddings: 8-bit rows with a scale each, turned to float once read; see :mod:`nas.quantize.embedding`.
- Blocks of 4-bit weights: convolutions, and products of blocks without tokens, as in int8 but for what is stored, see
  :mod:`nas.quantize.int4_chain`; products and tables of blocks with tokens see :mod:`nas.quantize.int4`.
- Outputs of Gemm stay in float: no slower, and a classifier's logits lose a fifth less.
"""

from __future__ import annotations

import filecmp
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Precision
from nas.errors import CandidateError, ConfigError
from nas.quantize.barrier import keep_float
from nas.quantize.compact import compact
from nas.quantize.embedding import quantize_tables, table_nodes
from nas.quantize.int4 import quantize_int4
from nas.quantize.int4_chain import float_biases, int4_layers, round_layers, store_layers
from nas.runtime.model_file import check_model_file

if TYPE_CHECKING:
    import onnx

    from nas.quantize.two_level import TwoLevel

# Ops that bear weights; in a block that works on tokens only these are quantized.
WEIGHT_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
CHAIN_OPS = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad"}
    | {"Relu", "Reshape", "Resize", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze"}
)
# Marks of a block that works on tokens, embeddings included.
TOKEN_OPS = frozenset({"Gather", "MatMul", "LayerNormalization", "RMSNormalization", "Transpose"})
FLOAT_OUTPUT_OPS = ("MatMul", "Gemm")
CALIBRATION_BATCH = 16


def quantize_static(
    fp32: Path,
    target: Path,
    calibration: NDArray[Any],
    precision: Mapping[str, Precision],
    default: Precision = Precision.INT8,
    reduce_range: bool = False,
) -> None:
    """Write the quantized model; where every block is fp32 the file is a copy of the fp32 model.

    A node belongs to the block that its name's first path component says (``/stage1_block0/conv/Conv``). A node
    without a path is quantized where all nodes that feed it are, else it takes ``default``.

    Args:
        fp32: model with one input and symbolic batch.
        target: file to write; it appears whole or not at all.
        calibration: inputs that set the activations' ranges (smallest and largest value), such as (n, c, h, w).
        precision: block name to fp32, fp16 (see :mod:`nas.quantize.half`), int8, or int4: weights in 4 bits, the rest
            of the block in float where it works on tokens, else in int8.
        default: of blocks that are not named.
        reduce_range: 7-bit weights, for x86 processors without VNNI, whose 8-bit kernels saturate.

    Raises:
        ConfigError: a precision that the quantizer does not offer, or no calibration pictures.
        ModelFileError: ``fp32`` cannot be read.
        CandidateError: kind ``nan`` where the activations are not finite, ``error`` where the quantizer failed.
    """
    _check_request(calibration, {**precision, "default": default})
    model = check_model_file(fp32)
    _check_finite(model, calibration)
    _check_int4(model, precision)
    chosen = quantized_nodes(model, precision, default)
    wanted = {name for name in chosen if precision.get(block_of(name)) is Precision.INT4}
    if wanted and (layers := int4_layers(model, wanted)):
        rounded = round_layers(model, layers, lambda: _Reader(model, calibration).batches, reduce_range)
        biases = float_biases(model, set(layers))
    else:
        rounded, biases = {}, {}
    tables = [name for name in table_nodes(model) if precision.get(block_of(name), default) is Precision.INT8]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=target.parent) as folder:
        written = Path(folder) / "model.onnx"
        if chosen:
            _quantize(model, written, calibration, chosen, reduce_range)
        else:
            shutil.copyfile(fp32, written)
        if rounded:
            _store_int4(written, rounded, biases)
        _quantize_tables(written, tables)
        _quantize_int4(written, {block for block, value in precision.items() if value is Precision.INT4})
        _halve(written, {block for block, value in precision.items() if value is Precision.FP16})
        if not filecmp.cmp(fp32, written, shallow=False):
            _compact(written)
        written.replace(target)


def _quantize_tables(path: Path, tables: list[str]) -> None:
    import onnx

    model = onnx.load_model(path)
    if any(node.op_type == "Gather" for node in model.graph.node) and quantize_tables(model, tables):
        onnx.save_model(model, path)


def _store_int4(path: Path, rounded: Mapping[str, TwoLevel], biases: Mapping[str, NDArray[Any]]) -> None:
    import onnx

    model = onnx.load_model(path)
    store_layers(model, rounded, biases)
    onnx.save_model(model, path)


def _compact(path: Path) -> None:
    import onnx

    model = onnx.load_model(path)
    compact(model)
    onnx.save_model(model, path)


def _halve(path: Path, blocks: set[str]) -> None:
    if blocks:
        import onnx

        from nas.quantize.half import to_half

        model = onnx.load_model(path)
        if to_half(model, {node.name for node in model.graph.node if block_of(node.name) in blocks}):
            onnx.save_model(model, path)


def _quantize_int4(path: Path, blocks: set[str]) -> None:
    import onnx

    if blocks:
        model = onnx.load_model(path)
        if quantize_int4(model, {node.name for node in model.graph.node if block_of(node.name) in blocks}):
            onnx.save_model(model, path)


def quantized_nodes(
    model: onnx.ModelProto, precision: Mapping[str, Precision], default: Precision = Precision.INT8
) -> list[str]:
    """Return the names of the nodes to quantize; nodes without a name get one in ``model``.

    A graph whose chosen nodes bear no weights is left alone: quantizing an addition between floats only costs.
    """
    _name_nodes(model)
    producers = {output: node for node in model.graph.node for output in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    stored |= {
        output for node in model.graph.node if node.op_type in ("Constant", "Identity") for output in node.output
    }
    tokens = {block_of(node.name) for node in model.graph.node if node.op_type in TOKEN_OPS}
    quantized: dict[str, bool] = {}
    chosen: list[str] = []
    bears_weights = False
    for node in model.graph.node:
        block = block_of(node.name)
        feeding = [producers[name].name for name in node.input if name in producers and name not in stored]
        if block in precision:
            integers = node.op_type == "Conv" or block not in tokens
            wanted = precision[block] is Precision.INT8 or (precision[block] is Precision.INT4 and integers)
        elif block or not feeding:
            wanted = default is Precision.INT8
        else:
            wanted = default is Precision.INT8 or all(quantized.get(name, False) for name in feeding)
        weights = node.op_type in WEIGHT_OPS and any(name in stored for name in node.input[1:2])
        chain = node.op_type in CHAIN_OPS and block not in tokens
        quantized[node.name] = wanted and (weights or chain)
        if quantized[node.name]:
            chosen.append(node.name)
            bears_weights |= weights
    return chosen if bears_weights else []


def block_of(node_name: str) -> str:
    """Return the first path component of a node's name, or nothing where the name has no path.

    ``/stage1_block0/conv/Conv`` gives ``stage1_block0``; ``/Add_1`` and ``Add_1`` lie outside any block.
    """
    parts = node_name.strip("/").split("/")
    return parts[0] if len(parts) > 1 else ""


def needs_reduced_range(isa: str, features: tuple[str, ...]) -> bool:
    """Return whether U8 x S8 products saturate on this processor: x86 without VNNI sums pairs in 16 bits."""
    return isa in ("x86_64", "AMD64") and not {"avx_vnni", "avx512_vnni"} & set(features)


def _check_request(calibration: NDArray[Any], precision: Mapping[str, Precision]) -> None:
    for block, value in precision.items():
        known = (Precision.FP32, Precision.INT8) if block == "default" else (*Precision,)
        if value not in known:
            raise ConfigError(
                f"block '{block}' asks for {value}; expected fp32 or int8, fp16 and int4 being offered by block only. "
                "Leave other precisions out of the space's choices."
            )
    if calibration.ndim < 2 or len(calibration) == 0:
        raise ConfigError(
            f"calibration has shape {calibration.shape}; expected one picture or more as (n, c, h, w). "
            "Raise the number of calibration pictures."
        )


def _check_int4(model: onnx.ModelProto, precision: Mapping[str, Precision]) -> None:
    for node in model.graph.node:
        block = block_of(node.name)
        if precision.get(block) is Precision.INT4 and node.op_type == "ConvTranspose":
            raise ConfigError(
                f"block '{block}' asks for int4, but node '{node.name}' is a transposed convolution; expected fp32 or "
                "int8 there. Weights of 4 bits are offered for convolutions, linear layers and tables of words."
            )


def _name_nodes(model: onnx.ModelProto) -> None:
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name}{node.op_type}_unnamed_{index}"
        taken.add(node.name)


class _Reader:
    """Hands the calibration samples to the quantizer in batches; one by one takes several times as long.

    A model of several inputs reads the samples by the first; the others, caches of a language model, are left empty.
    """

    def __init__(self, model: onnx.ModelProto, samples: NDArray[Any]) -> None:
        stored = {tensor.name for tensor in model.graph.initializer}
        first, *others = (value for value in model.graph.input if value.name not in stored)
        empty = {
            value.name: np.zeros([axis.dim_value for axis in value.type.tensor_type.shape.dim], np.float32)
            for value in others
        }
        # A model may fix its batch size; a remainder that does not fill one is left out.
        dimensions = first.type.tensor_type.shape.dim
        fixed = dimensions[0].dim_value if dimensions and dimensions[0].HasField("dim_value") else 0
        size = fixed or CALIBRATION_BATCH
        count = len(samples) // fixed * fixed if fixed else len(samples)
        self.batches: Iterator[dict[str, NDArray[Any]]] = iter(
            [{first.name: samples[start : start + size], **empty} for start in range(0, count, size)]
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, or None at the end."""
        return next(self.batches, None)


def _quantize(
    model: onnx.ModelProto, target: Path, calibration: NDArray[Any], chosen: list[str], reduce_range: bool
) -> None:
    import onnx

    prepared = target.with_name("prepared.onnx")
    # The quantizer's own pre-processing infers shapes symbolically, which is slow; ONNX's inference is enough for
    # graphs whose batch norms are folded already. The mark keeps the quantizer from advising it.
    onnx.helper.set_model_props(model, {**_properties(model), "onnx.quant.pre_process": "onnxruntime.quant"})
    onnx.save_model(onnx.shape_inference.infer_shapes(model), prepared)
    with _quiet():
        from onnxruntime.quantization import QuantFormat, QuantType
        from onnxruntime.quantization import quantize_static as ort_quantize_static

        types = sorted({node.op_type for node in model.graph.node if node.name in set(chosen)})
        try:
            ort_quantize_static(
                prepared,
                target,
                _Reader(model, calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=types,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=chosen,
                extra_options={"OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUT_OPS)},
            )
        # The quantizer raises whatever its parts raise: ValueError for NaN ranges, binding errors, KeyError.
        except Exception as error:
            kind = "nan" if "nan" in str(error).lower() else "error"
            raise CandidateError(kind, f"quantization failed: {type(error).__name__}: {str(error)[:300]}") from error
    written = onnx.load_model(target)
    _check_scales(written)
    if keep_float(written):
        onnx.save_model(written, target)


def _properties(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _check_finite(model: onnx.ModelProto, calibration: NDArray[Any]) -> None:
    # The quantizer's smallest and largest values pass over NaN in silence.
    import onnx

    if not np.isfinite(calibration).all():
        raise CandidateError("nan", "the calibration pictures hold values that are not finite")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not np.isfinite(onnx.numpy_helper.to_array(tensor)).all():
            raise CandidateError("nan", f"weight '{tensor.name}' holds values that are not finite")


def _check_scales(model: onnx.ModelProto) -> None:
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in stored:
            scale = onnx.numpy_helper.to_array(stored[node.input[1]])
            if not np.isfinite(scale).all():
                raise CandidateError("nan", f"activation '{node.input[0]}' has no finite range on the calibration data")


@contextmanager
def _quiet() -> Iterator[None]:
    # The quantizer talks through the root logger and through warnings; both go back to what they were.
    root = logging.getLogger()
    chatter = logging.Filter()
    chatter.filter = lambda record: "quantization" not in record.pathname  # type: ignore[method-assign]
    root.addFilter(chatter)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(chatter)
