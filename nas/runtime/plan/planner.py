"""Walks an ONNX graph once and emits the operators of a program.

Values stay as they are known (stored, quantized, a curve over bytes) until an operator needs them in the arena, so that
pairs of QuantizeLinear and DequantizeLinear, reshapes, and chains of elementwise functions of bytes cost nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import ModelFileError
from nas.runtime import int4_operator
from nas.runtime.plan.arithmetic import BYTES, Bytes, Floats, Quant
from nas.runtime.plan.cache import Cache
from nas.runtime.plan.folding import evaluated
from nas.runtime.plan.program import UNARIES, Constant, Op, Program, Tensor
from nas.runtime.plan.qlinear import QLINEAR, expanded
from nas.runtime.plan.values import Cached, Quantized, Real, Shape, Stored, Value

if TYPE_CHECKING:
    import onnx

Handler = Callable[["Planner", "Node"], None]
HANDLERS: dict[str, Handler] = {}

_DOMAINS = ("", "ai.onnx", "com.microsoft", int4_operator.DOMAIN)
_NUMPY_OF = {1: "f32", 2: "u8", 7: "i64", 9: "bool"}


def handles(*op_types: str) -> Callable[[Handler], Handler]:
    """Register the function that lowers these operators."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(op_types, handler))
        return handler

    return register


def known_operators() -> list[str]:
    """Return the ONNX operators that can be planned, sorted."""
    return sorted({*HANDLERS, *(op_type for _, op_type in QLINEAR)})


class Node:
    """An ONNX node with its attributes as Python values.

    Args:
        proto: the node.
        exact: it came from a QLinear operator, and floats may not take the place of its integers.
    """

    def __init__(self, proto: onnx.NodeProto, exact: bool = False) -> None:
        from onnx import helper

        self.proto, self.exact = proto, exact
        self.op_type = proto.op_type
        self.inputs = list(proto.input)
        self.outputs = list(proto.output)
        self.name = proto.name or (proto.output[0] if proto.output else proto.op_type)
        self.attributes: dict[str, Any] = {item.name: helper.get_attribute_value(item) for item in proto.attribute}

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)


class Planner:
    """State of the walk.

    Args:
        path: for error texts.
        graph: to lower.
        sizes: concrete size of each free axis, by its name.
        opset: version of the standard operators.
        cache: inputs that are caches, where they shall be planned as such.
    """

    def __init__(
        self, path: Path, graph: onnx.GraphProto, sizes: Mapping[str, int], opset: int, cache: Cache | None = None
    ) -> None:
        from onnx import numpy_helper

        self.path, self.opset, self.cache = path, opset, cache
        self.past = None if cache is None else sizes[cache.past]
        self.tokens = 0 if cache is None else sizes[cache.tokens]
        self.most_tokens = 0
        self.grown: set[str] = set()
        self.program = Program()
        self.values: dict[str, Value] = {}
        self.done: set[int] = set()
        self.nodes = [
            Node(proto, len(plain) > 1) for plain in (expanded(proto) for proto in graph.node) for proto in plain
        ]
        self.consumers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in node.inputs:
                self.consumers[name].append(node)
        self.producers = {name: node for node in self.nodes for name in node.outputs}
        self.graph_outputs = [value.name for value in graph.output]
        self._materialized: dict[tuple[Tensor | None, str, bytes], Tensor] = {}
        for tensor in graph.initializer:
            self.values[tensor.name] = Stored(numpy_helper.to_array(tensor, str(path.parent)))
        for value in graph.input:
            if cache is not None and self.past is not None and value.name in cache.shapes:
                heads, size = cache.shapes[value.name]
                self.values[value.name] = Cached(cache.buffer(value.name), (1, heads, self.past, size))
            elif value.name not in self.values:
                self._add_input(value, sizes)

    def run(self) -> Program:
        """Lower every node and return the program."""
        self._fold_ahead()
        for node in self.nodes:
            if id(node) in self.done:
                continue
            if self._takes_positions(node):
                self._lower_positions(node)
                continue
            if self._foldable(node) and self.fold(node):
                continue
            handler = HANDLERS.get(node.op_type)
            if handler is None or node.proto.domain not in _DOMAINS:
                raise self.refused(node, f"operator {node.op_type} is not known to the native runtime")
            handler(self, node)
        for name in self.graph_outputs:
            if name in self.grown:
                continue
            real = self.plain(self.real(name))
            tensor = real.tensor
            if any(tensor.owner is other.owner for other in self.program.inputs):
                tensor = self.emit("unary_f32", "copy", [tensor], "f32", tensor.shape, ints=(UNARIES["Identity"],))
            self.program.outputs.append(tensor)
        return self.program

    def refused(self, node: Node, what: str) -> ModelFileError:
        """Return the error for a node that cannot run."""
        return ModelFileError(
            f"{self.path}: node '{node.name}': {what}. It knows {', '.join(known_operators())}. "
            "Use runtime=onnxruntime for this model."
        )

    def in_floats(self, node: Node) -> None:
        """Refuse a node that is about to be computed in float though it came from a QLinear operator.

        Raises:
            ModelFileError: it did.
        """
        if node.exact:
            raise self.refused(node, f"{node.op_type} of these operands is not offered in 8 bits; ONNX Runtime's is")

    def fold(self, node: Node) -> bool:
        """Evaluate a node whose inputs are stored; False where it must be lowered instead."""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.proto.domain == int4_operator.DOMAIN:
            return False
        from onnx import numpy_helper

        if node.op_type == "Constant" and "value" in node.attributes:
            self.values[node.outputs[0]] = Stored(numpy_helper.to_array(node.attributes["value"]))
            return True
        arrays = {}
        for name in filter(None, node.inputs):
            value = self.values[name]
            if not isinstance(value, Stored) or value.scale is not None:
                return False
            arrays[name] = value.array
        try:
            results = evaluated(node.proto, self.opset, arrays)
        except ValueError as error:
            raise self.refused(node, f"its constant inputs could not be evaluated: {error}") from error
        self.values.update((name, Stored(result)) for name, result in zip(node.outputs, results, strict=False))
        return True

    def _fold_ahead(self) -> None:
        """Evaluate what hangs on constants and on shapes that are known from the start, such as a mask.

        Attention looks ahead of the walk, and where such nodes stand is up to whoever sorted the graph: ONNX Runtime's
        quantizer puts a mask behind the first nodes that read tokens.
        """
        for node in self.nodes:
            if node.op_type == "Shape" and node.inputs and node.inputs[0] in self.values:
                HANDLERS["Shape"](self, node)
            elif self._takes_positions(node) or not self._foldable(node) or not self.fold(node):
                continue
            self.done.add(id(node))

    def _foldable(self, node: Node) -> bool:
        return all(isinstance(self.values.get(name), Stored) for name in node.inputs if name)

    def _takes_positions(self, node: Node) -> bool:
        """Return whether a Slice takes the rows of a stored table that belong to the new tokens."""
        if node.op_type != "Slice" or self.past is None or not node.inputs:
            return False
        table, *bounds = [self.values.get(name) for name in node.inputs[:5]]
        if not isinstance(table, Stored) or table.array.ndim != 2 or table.array.dtype != np.float32:
            return False
        known = [value.array.reshape(-1).tolist() if isinstance(value, Stored) else [] for value in bounds]
        return known[:3] == [[self.past], [self.past + self.tokens], [0]] and known[3:] in ([], [[1]])

    def _lower_positions(self, node: Node) -> None:
        table = self.values[node.inputs[0]]
        assert isinstance(table, Stored)
        last, rows = (self.past or 0) + self.tokens, table.array.shape[0]
        if last > rows:
            raise self.refused(node, f"positions up to {last} of a table of {rows}; expected fewer tokens")
        self.most_tokens = min(self.most_tokens or rows, rows)
        shape = (self.tokens, table.array.shape[1])
        tensor = self.emit("rows_at", node.name, [], "f32", shape, [Constant("f32", table.array)], ints=(rows,))
        self.values[node.outputs[0]] = Real(tensor, shape)

    def value(self, node: Node, index: int) -> Value:
        """Return what is known of an input."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        found = self.values.get(name)
        if found is None:
            raise self.refused(node, f"input {index} ('{name}') is missing")
        return found

    def stored(self, node: Node, index: int) -> Stored | None:
        """Return a stored input, or None where it was left out.

        Raises:
            ModelFileError: it is computed by the graph.
        """
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        value = self.value(node, index)
        if not isinstance(value, Stored):
            raise self.refused(node, f"input {index} of {node.op_type} is computed by the graph; expected a constant")
        return value

    def real(self, name: str) -> Real:
        """Return a value of the graph as floats (or integers) in the arena."""
        return self.as_real(self.values[name], name)

    def as_real(self, value: Value, name: str) -> Real:
        """Put a value into the arena as it is, dequantized where it is quantized."""
        if isinstance(value, Real):
            return value
        if isinstance(value, Stored):
            array = value.floats() if value.scale is not None else value.array
            dtype = "i64" if array.dtype.kind == "i" else "bool" if array.dtype.kind == "b" else "f32"
            constant = Constant(dtype, np.asarray(array))
            tensor = self._once(constant, name, dtype, array.shape)
            return Real(tensor, array.shape)
        if isinstance(value, Quantized):
            tensor = self.bytes_of(value, name)
            return Real(tensor, value.shape, value.nhwc)
        if isinstance(value, Cached):
            raise ModelFileError(f"{self.path}: '{name}' is a cache that something but attention reads.")
        source = value.source
        key = (source.tensor, "f32", value.values.tobytes())
        if key not in self._materialized:
            if value.exact and source.table is None:
                self._materialized[key] = self.emit(
                    *("dequantize", name, [source.tensor], "f32", source.tensor.shape),
                    ints=(source.quant.zero,),
                    floats=(source.quant.scale,),
                )
            else:
                self._materialized[key] = self.emit(
                    *("lookup_f32", name, [source.tensor], "f32", source.tensor.shape),
                    constants=[Constant("f32", value.values)],
                )
        return Real(self._materialized[key], value.shape, source.nhwc)

    def bytes_of(self, value: Quantized, name: str) -> Tensor:
        """Return the tensor of a quantized value with its table applied."""
        if value.table is None:
            return value.tensor
        key = (value.tensor, "u8", value.table.tobytes())
        if key not in self._materialized:
            constant = Constant("u8", value.table)
            shape = value.tensor.shape
            self._materialized[key] = self.emit("table", name, [value.tensor], "u8", shape, constants=[constant])
        return self._materialized[key]

    def plain(self, real: Real) -> Real:
        """Return the value in the order of the graph's axes."""
        if not real.nhwc:
            return real
        _, channels, height, width = real.shape
        if channels == 1 or height * width == 1:
            return Real(self.reshaped(real.tensor, real.shape), real.shape)
        tensor = self.emit("transpose", "to_nchw", [real.tensor], real.tensor.dtype, real.shape, ints=(0, 3, 1, 2))
        return Real(tensor, real.shape)

    def channels_last(self, real: Real, node: Node) -> Real:
        """Return a 4-dimensional value with its channels last."""
        if real.nhwc:
            return real
        if len(real.shape) != 4:
            raise self.refused(node, f"its input has shape {real.shape}; expected 4 axes")
        batch, channels, height, width = real.shape
        physical = (batch, height, width, channels)
        if channels == 1 or height * width == 1:
            return Real(self.reshaped(real.tensor, physical), real.shape, nhwc=True)
        tensor = self.emit("transpose", "to_nhwc", [real.tensor], real.tensor.dtype, physical, ints=(0, 2, 3, 1))
        return Real(tensor, real.shape, nhwc=True)

    def reshaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Return the same bytes in another shape."""
        return tensor if tensor.shape == tuple(shape) else Tensor(tensor.dtype, tuple(shape), tensor)

    def emit(
        self,
        kind: str,
        name: str,
        inputs: list[Tensor],
        dtype: str,
        shape: Shape,
        constants: list[Constant] | None = None,
        ints: tuple[int, ...] = (),
        floats: tuple[float, ...] = (),
    ) -> Tensor:
        """Append an operator with one output and return the output."""
        output = Tensor(dtype, tuple(int(size) for size in shape))
        self.program.ops.append(Op(kind, name, inputs, [output], constants or [], ints, floats))
        return output

    def writer(self, tensor: Tensor) -> str:
        """Return the kind of the operator that wrote a tensor, or nothing for an input."""
        wrote = (op.kind for op in self.program.ops if any(one.owner is tensor.owner for one in op.outputs))
        return next(wrote, "")

    def only_reader(self, name: str, op_type: str) -> Node | None:
        """Return the only reader of a value where it is of this kind, else None."""
        readers = self.consumers[name]
        alone = len(readers) == 1 and name not in self.graph_outputs and readers[0].op_type == op_type
        return readers[0] if alone else None

    def quantize_behind(self, name: str) -> Node | None:
        """Return the only consumer of a value where that is a QuantizeLinear per tensor, else None."""
        readers = self.consumers[name]
        if len(readers) != 1 or name in self.graph_outputs or readers[0].op_type != "QuantizeLinear":
            return None
        return readers[0] if readers[0].inputs[0] == name else None

    def quant_of(self, node: Node) -> Quant:
        """Return scale and zero point of a QuantizeLinear or DequantizeLinear per tensor of unsigned bytes."""
        scale, zero = self.stored(node, 1), self.stored(node, 2)
        if scale is None or scale.array.size != 1 or zero is None or zero.array.dtype != np.uint8:
            raise self.refused(node, "expected one scale and an unsigned 8-bit zero point per activation tensor")
        value = float(scale.array.reshape(-1)[0])
        if not (np.isfinite(value) and value > 0):
            raise self.refused(node, f"its scale is {value}; expected a positive number")
        return Quant(value, int(zero.array.reshape(-1)[0]))

    def finish_quantized(self, quantizer: Node, tensor: Tensor, shape: Shape, nhwc: bool, table: Bytes | None) -> None:
        """Record the bytes that an operator wrote in the place of a QuantizeLinear."""
        if table is not None and np.array_equal(table, BYTES):
            table = None
        self.values[quantizer.outputs[0]] = Quantized(tensor, shape, nhwc, self.quant_of(quantizer), table)
        self.done.add(id(quantizer))

    def _add_input(self, value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> None:
        proto = value.type.tensor_type
        dtype = _NUMPY_OF.get(proto.elem_type)
        if dtype is None:
            raise ModelFileError(
                f"{self.path}: input '{value.name}' has ONNX type {proto.elem_type}; the native runtime takes float32, "
                "uint8, int64 and bool. Use runtime=onnxruntime for this model."
            )
        shape = tuple(axis.dim_value or sizes.get(axis.dim_param or "?", 1) for axis in proto.shape.dim)
        tensor = Tensor(dtype, shape)
        self.program.inputs.append(tensor)
        self.values[value.name] = Real(tensor, shape)

    def _once(self, constant: Constant, name: str, dtype: str, shape: Shape) -> Tensor:
        values: NDArray[Any] = constant.values
        key = (None, f"{dtype}{shape}", values.tobytes())
        if key not in self._materialized:
            # It is written anew in every run, since its place in the arena is shared.
            self._materialized[key] = self.emit("constant", name, [], dtype, shape, constants=[constant])
        return self._materialized[key]


def floats_of(stored: Stored | None, size: int) -> Floats:
    """Return a bias, or zeros where there is none."""
    return np.zeros(size, np.float32) if stored is None else stored.floats().reshape(-1)
