"""From a graph to the kernels that a runtime is believed to run: what it fuses is one, what it converts is one more.

Which ops a runtime fuses is not told by the graph. Three beliefs are offered, and whoever fits decides by the
measurements. Of an int8 block the quantizer turns some ops to 8 bits and leaves others in float; between the two stand
conversions, which are kernels of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod

from nas.architecture import Precision
from nas.graph import GRAPH_INPUT, Graph, Op, Shape

# Kinds that follow their producer into one kernel, under each belief of what a runtime fuses.
FUSIONS: Mapping[str, frozenset[str]] = {
    "clipping": frozenset({"relu", "clip"}),
    "functions": frozenset({"relu", "clip", "sigmoid", "hardswish", "gelu", "tanh", "leakyrelu"}),
    "sums": frozenset({"relu", "clip", "sigmoid", "hardswish", "gelu", "tanh", "leakyrelu", "add"}),
}

_ROOTS = frozenset({"conv", "gemm"})
# As the quantizer chooses: ops that bear weights, and in a block without tokens those that only pass values on.
_CHAIN = frozenset(
    {"add", "averagepool", "clip", "concat", "flatten", "globalaveragepool", "leakyrelu", "maxpool", "mul", "pad"}
    | {"relu", "reshape", "resize", "sigmoid", "squeeze", "transpose", "unsqueeze"}
)
_TOKENS = frozenset({"gather", "matmul", "layernormalization", "rmsnormalization", "transpose"})
_RENAMES = frozenset({"identity", "dropout", "flatten", "reshape", "squeeze", "unsqueeze", "constant", "cast"})
_LANES = 16  # output channels are computed in such groups, or not much else
_DEPTH = 4  # an 8-bit product sums so many inputs at once


@dataclass(frozen=True)
class Kernel:
    """What runs at once.

    Args:
        family: what shares coefficients, such as ``conv.pointwise.int8``.
        features: name to size; the time is a sum over them.
        ops: names of the graph's ops in it, the first of which bears the work.
    """

    family: str
    features: Mapping[str, float]
    ops: tuple[str, ...]


def kernels(graph: Graph, fusion: str) -> tuple[Kernel, ...]:
    """Return the kernels of a graph in the order of its ops.

    Args:
        graph: as a space lowers it, or as it was read from a file.
        fusion: one of ``FUSIONS``.
    """
    integer = _integer_ops(graph)
    heads = _heads(graph, FUSIONS[fusion], integer)
    members: dict[str, list[Op]] = {}
    for op in graph.ops:
        members.setdefault(heads[op.name], []).append(op)
    narrow = {op.block for op in graph.ops if op.name in integer and op.kind == "gemm"}
    found = [_kernel(group[0], group[1:], _width(group[0], integer, narrow), integer) for group in members.values()]
    return (*found, *_conversions(graph, integer))


def _integer_ops(graph: Graph) -> frozenset[str]:
    """Return the ops that compute in 8 bits once the quantizer was there."""
    tokens = {op.block for op in graph.ops if op.kind in _TOKENS or (op.kind == "gemm" and "bias" not in op.weights)}
    return frozenset(
        op.name
        for op in graph.ops
        if op.dtype in (Precision.INT8, Precision.INT4)
        and ((op.kind in ("conv", "gemm") and "weight" in op.weights) or (op.kind in _CHAIN and op.block not in tokens))
    )


def _heads(graph: Graph, fused: frozenset[str], integer: frozenset[str]) -> dict[str, str]:
    """Return op to the op whose kernel it joins, itself where it begins one."""
    by_name = {op.name: op for op in graph.ops}
    readers = Counter(source for op in graph.ops for source in op.inputs)
    heads: dict[str, str] = {}
    for op in graph.ops:
        heads[op.name] = op.name
        if op.kind not in fused:
            continue
        # Of a sum the later producer is the one that can still take the other operand in.
        for source in reversed(op.inputs):
            producer = by_name.get(source)
            if producer is None or readers[source] != 1:
                continue
            root = by_name[heads[source]]
            same = (op.name in integer) == (root.name in integer) or op.kind != "add"
            if root.kind in _ROOTS and same and producer.output_shape == op.output_shape:
                heads[op.name] = root.name
                break
    return heads


def _width(op: Op, integer: frozenset[str], narrow: set[str]) -> str:
    """Return in which numbers a kernel computes.

    Attention between 8-bit projections may be computed in 8 bits or in float, and a file without any 8-bit op may be
    planned otherwise than one with some; those are families of their own.
    """
    if op.name in integer:
        return "int8"
    if op.kind == "gelu":
        return "fp32" if integer else "fp32alone"
    if op.kind in ("matmul", "softmax"):
        return "between8" if op.block in narrow else "fp32" if integer else "fp32alone"
    return "fp32"


def _kernel(op: Op, rest: list[Op], width: str, integer: frozenset[str]) -> Kernel:
    names = tuple(other.name for other in (op, *rest))
    if op.kind in _RENAMES:
        return Kernel("rename", {"count": 1.0}, names)
    if op.kind == "conv":
        family, features = _conv(op, width)
    elif op.kind in ("gemm", "matmul"):
        family, features = _product(op)
    else:
        family, features = _plain(op)
    extra = Counter[str]()
    for other in rest:
        alone = "_alone" if not integer and other.kind == "gelu" else ""
        extra[f"with_{other.kind}{alone}"] += prod(other.output_shape)
    return Kernel(f"{family}.{width}", {**features, **{name: float(size) for name, size in extra.items()}}, names)


def _conv(op: Op, width: str) -> tuple[str, dict[str, float]]:
    outputs, per_group, *window = op.weights["weight"]
    pixels, area = prod(op.output_shape[2:]), prod(window)
    read, written = prod(op.input_shapes[0]), prod(op.output_shape)
    groups = max(outputs * per_group and op.input_shapes[0][1] // per_group, 1)
    features = {"count": 1.0, "read": float(read), "written": float(written), "macs": float(op.macs)}
    if groups > 1 and per_group == 1:
        # One vector of channels per tap and pixel.
        lanes = _padded(outputs, _LANES)
        features |= {"vectors": float(lanes * pixels * area), "taps": float(pixels * area)}
        # Float kernels that hold 16 channels side by side take no remainder.
        odd = ".odd" if width == "fp32" and outputs % _LANES else ""
        return f"conv.depthwise{min(max(window), 7)}{odd}", features
    padded = _padded(outputs // groups, _LANES) * groups * _padded(per_group * area, _DEPTH) * pixels
    features |= {
        "vectors": float(padded),
        "weights": float(prod(op.weights["weight"])),
        "gathered": float(pixels * per_group * area),
        "taps": float(pixels * area),
    }
    if pixels == 1 and read == op.input_shapes[0][1]:
        return "conv.vector", features
    strided = max(_numbers(op.attributes.get("strides"))) > 1
    name = "pointwise" if area == 1 and not strided else "strided" if area == 1 else "dense"
    # Below one vector of channels a float kernel reads the picture's own layout.
    few = ".few" if width == "fp32" and per_group < _LANES else ""
    return f"conv.{name}{few}", features


def _product(op: Op) -> tuple[str, dict[str, float]]:
    depth = op.input_shapes[0][-1] if op.input_shapes and op.input_shapes[0] else 1
    columns = op.output_shape[-1] if op.output_shape else 1
    rows = prod(op.output_shape[:-1])
    features = {
        "count": 1.0,
        "macs": float(op.macs),
        "read": float(sum(map(prod, op.input_shapes))),
        "written": float(prod(op.output_shape)),
        "vectors": float(rows * _padded(columns, _LANES) * _padded(depth, _DEPTH)),
    }
    if op.kind == "matmul":
        square = _is_square(op.output_shape) or _is_square(op.input_shapes[0])
        features |= {"heads": float(prod(op.output_shape[:-2])), "rows": float(rows)}
        # A loop without tiles misses the cache the more, the longer the sequence is.
        features["untiled"] = float(op.macs) * max(columns, depth)
        # Query heads stacked on a shared key make the scores oblong, and some runtimes then fuse no attention.
        return ("matmul" if square else "matmul.stacked"), features
    features["weights"] = float(prod(op.weights.get("weight", ())))
    return ("gemm.rows" if rows > 1 else "gemm.vector"), {**features, "rows": float(rows)}


def _plain(op: Op) -> tuple[str, dict[str, float]]:
    written = prod(op.output_shape)
    read = max((prod(shape) for shape in op.input_shapes), default=0)
    features = {"count": 1.0, "written": float(written)}
    kind = op.kind
    if kind in ("globalaveragepool", "reducemean", "averagepool", "maxpool"):
        features["read"] = float(read)
    elif kind in ("softmax", "layernormalization", "rmsnormalization"):
        features["rows"] = float(written / max(op.output_shape[-1] if op.output_shape else 1, 1))
        if kind == "softmax" and not _is_square(op.output_shape):
            kind = "softmax.stacked"
    elif kind in ("add", "mul") and len(op.input_shapes) == 2 and op.input_shapes[0] != op.input_shapes[1]:
        kind = f"{kind}.spread"
    elif kind == "transpose":
        perm = _numbers(op.attributes.get("perm"))
        # Rows that stay whole are copied, others element by element.
        kind = "transpose.rows" if perm[-1] == len(perm) - 1 else "transpose.elements"
    return kind, features


def _conversions(graph: Graph, integer: frozenset[str]) -> Iterator[Kernel]:
    """Yield one quantization per tensor that 8-bit ops read from float, one dequantization per float reader."""
    by_name = {op.name: op for op in graph.ops}
    quantized: set[str] = set()
    for op in graph.ops:
        for source, shape in zip(op.inputs, op.input_shapes, strict=False):
            producer = by_name.get(source)
            # A product of rows keeps its output in float.
            whole = producer is not None and producer.name in integer and producer.kind != "gemm"
            if op.name in integer and not whole and source not in quantized:
                quantized.add(source)
                yield _conversion("quantize", source, shape)
            elif op.name not in integer and whole:
                yield _conversion("dequantize", source, shape)
    last = graph.ops[-1] if graph.ops else None
    if last is not None and last.name in integer and last.kind != "gemm":
        yield _conversion("dequantize", last.name, last.output_shape)


def _conversion(family: str, tensor: str, shape: Shape) -> Kernel:
    name = "the input" if tensor == GRAPH_INPUT else tensor
    return Kernel(family, {"count": 1.0, "written": float(prod(shape))}, (name,))


def _is_square(shape: Shape) -> bool:
    return len(shape) > 1 and shape[-1] == shape[-2]


def _padded(size: int, multiple: int) -> int:
    return ceil(size / multiple) * multiple


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) and value else (1,)
