"""Damages ONNX models: bytes of the file, or fields of its protocol buffer, with values that break readers."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from random import Random
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

INTEGERS = (
    0,
    1,
    2,
    3,
    -1,
    -2,
    5,
    7,
    64,
    255,
    65535,
    65536,
    2**31 - 1,
    2**31,
    -(2**31),
    2**33,
    2**62,
    2**63 - 1,
    -(2**63),
)
# Of shapes and attributes: most damage shall reach beyond the first check.
SMALL = (0, 1, 2, 3, 4, 5, 8, 12, 16, 32, -1, -2, -3, -4)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e38, float("inf"), float("-inf"), float("nan"), 0.5, 256.0)
TYPES = (0, 1, 2, 3, 6, 7, 9, 10, 11, 16, 21, 22, 99)
STRINGS = (b"", b"VALID", b"SAME_UPPER", b"tanh", b"\xff\xfe", b"NOTSET")


def damaged(blob: bytes, random: Random, operators: list[str]) -> bytes:
    """Return the file with one to three damages.

    Args:
        blob: a model that is whole.
        random: decides everything.
        operators: names that a node may be given.
    """
    if random.random() < 0.1:
        return _damaged_bytes(blob, random)
    model = onnx.ModelProto()
    model.ParseFromString(blob)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        change = random.choice(CHANGES)
        try:
            change(model, random, operators)
        except (IndexError, OverflowError, TypeError, ValueError):
            continue  # nothing of that kind is there, or the protocol buffer refuses the value
    return bytes(model.SerializePartialToString())


def _damaged_bytes(blob: bytes, random: Random) -> bytes:
    changed = bytearray(blob)
    for _ in range(random.choice((1, 1, 2, 8))):
        place = random.randrange(len(changed))
        kind = random.randrange(4)
        if kind == 0:
            changed[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[place] = random.randrange(256)
        elif kind == 2:
            del changed[place : place + random.randrange(1, 9)]
        else:
            other = random.randrange(len(changed))
            changed[place : place + 8] = changed[other : other + 8]
    return bytes(changed[: random.randrange(len(changed))] if random.random() < 0.1 else changed)


def _integer(random: Random) -> int:
    return random.choice(SMALL if random.random() < 0.7 else INTEGERS)


def _dims(dims: MutableSequence[int], random: Random) -> None:
    kind = random.randrange(4)
    if kind == 0 and len(dims):
        dims[random.randrange(len(dims))] = _integer(random)
    elif kind == 1:
        dims.append(_integer(random))
    elif kind == 2 and len(dims):
        del dims[random.randrange(len(dims))]
    else:
        turned = list(dims)[::-1]
        del dims[:]
        dims.extend(turned)


def tensor_shape(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Change what an initializer claims as its shape."""
    _dims(random.choice(model.graph.initializer).dims, random)


def tensor_content(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Give an initializer other values, or a whole other array."""
    tensor = random.choice(model.graph.initializer)
    if random.random() < 0.3:
        _new_tensor(tensor, random)
        return
    width = {1: 4, 6: 4, 7: 8}.get(tensor.data_type, 1)
    raw = bytearray(tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes())
    for _step in range(random.choice((1, 1, 4))):
        place = random.randrange(max(1, len(raw) // width)) * width
        if tensor.data_type == TensorProto.FLOAT:
            raw[place : place + 4] = onnx.numpy_helper.from_array(_float_array(random)).raw_data
        else:
            raw[place : place + width] = (_integer(random) % 2 ** (8 * width)).to_bytes(width, "little")
    for name in ("float_data", "int32_data", "int64_data"):
        tensor.ClearField(name)
    tensor.raw_data = bytes(raw)


def _float_array(random: Random) -> Any:
    import numpy as np

    return np.array([random.choice(FLOATS)], np.float32)


def _new_tensor(tensor: TensorProto, random: Random) -> None:
    import numpy as np

    dtype = random.choice((np.float32, np.int64, np.int32, np.uint8, np.int8, np.bool_, np.float64, np.float16))
    shape = [random.choice((0, 1, 1, 2, 3, 8)) for _ in range(random.randrange(5))]
    pick = [
        random.choice(FLOATS) if np.dtype(dtype).kind == "f" else _integer(random) % 100 for _ in range(_size(shape))
    ]
    with np.errstate(all="ignore"):
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(pick).astype(dtype).reshape(shape), tensor.name))


def _size(shape: list[int]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def tensor_type(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Let an initializer claim another type."""
    random.choice(model.graph.initializer).data_type = random.choice(TYPES)


def tensor_gone(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Remove or double an initializer, or give it the name of something else."""
    kind = random.randrange(3)
    place = random.randrange(len(model.graph.initializer))
    if kind == 0:
        del model.graph.initializer[place]
    elif kind == 1:
        model.graph.initializer.append(model.graph.initializer[place])
    else:
        model.graph.initializer[place].name = random.choice(_names(model))


def tensor_outside(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Let an initializer lie in another file."""
    tensor = random.choice(model.graph.initializer)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", random.choice(("w.bin", "../w.bin", "/dev/zero", ""))),
        ("length", str(_integer(random))),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if random.random() < 0.5:
        tensor.ClearField("raw_data")


def attribute(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Change an attribute's value, type or name, drop it or add one that the node did not have."""
    given = [(node, item) for node in model.graph.node for item in node.attribute]
    node, item = random.choice(given)
    kind = random.randrange(8)
    if kind == 0:
        node.attribute.remove(item)
    elif kind == 1:
        item.name = random.choice(given)[1].name
    elif kind == 2:
        random.choice(model.graph.node).attribute.append(item)
    elif kind == 3:
        name = item.name
        item.CopyFrom(onnx.helper.make_attribute(name, random.choice(([1], 1, 1.5, "text", [1.5], ["text"], [-1, 2]))))
    elif item.type == AttributeProto.INTS:
        _dims(item.ints, random)
    elif item.type == AttributeProto.INT:
        item.i = _integer(random)
    elif item.type == AttributeProto.FLOAT:
        item.f = random.choice(FLOATS)
    elif item.type == AttributeProto.STRING:
        item.s = random.choice(STRINGS)
    elif item.type == AttributeProto.TENSOR:
        _new_tensor(item.t, random)


_NEW = {
    **{"axis": -5, "axes": [0, 0], "perm": [0, 0], "pads": [-1, -1, -1, -1], "strides": [0, 0], "dilations": [0, 0]},
    **{"group": 0, "kernel_shape": [0, 0], "ceil_mode": 1, "auto_pad": "SAME_UPPER", "keepdims": 0, "to": 10},
    **{"epsilon": float("nan"), "alpha": float("inf"), "min": 3.0, "max": -3.0, "split": [0, 1], "start": 9, "end": -9},
    **{"block_size": 3, "K": -1, "N": 0, "bits": 2, "transA": 1, "transB": 1, "num_outputs": 3, "approximate": "tanh"},
}


def new_attribute(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Give a node an attribute with a value that fits nowhere, or a random one."""
    name = random.choice(list(_NEW))
    value: Any = _NEW[name]
    if isinstance(value, int):
        value = random.choice((value, _integer(random)))
    elif isinstance(value, list):
        value = random.choice((value, [_integer(random) for _ in range(random.randrange(6))] or [1]))
    node = random.choice(model.graph.node)
    for item in [item for item in node.attribute if item.name == name]:
        node.attribute.remove(item)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    named = [*graph.input, *graph.output, *graph.initializer]
    return [*(entry.name for entry in named), *(name for node in graph.node for name in node.output), ""]


def edge(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Let a node read something else, nothing, one more or itself."""
    node = random.choice(model.graph.node)
    ends = random.choice((node.input, node.input, node.output))
    kind = random.randrange(4)
    if kind == 0:
        ends.append(random.choice(_names(model)))
    elif kind == 1:
        del ends[random.randrange(len(ends))]
    elif kind == 2:
        ends[random.randrange(len(ends))] = random.choice([*node.output, ""])
    else:
        ends[random.randrange(len(ends))] = random.choice(_names(model))


def operator(model: onnx.ModelProto, random: Random, operators: list[str]) -> None:
    """Make another operator of a node."""
    node = random.choice(model.graph.node)
    if random.random() < 0.8:
        node.op_type = random.choice(operators)
    else:
        node.domain = random.choice(("", "ai.onnx", "com.microsoft", "hwnas", "unknown"))


def nodes(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Remove, double or move a node."""
    place, kind = random.randrange(len(model.graph.node)), random.randrange(4)
    node = onnx.NodeProto()
    node.CopyFrom(model.graph.node[place])
    if kind == 0:
        del model.graph.node[place]
    elif kind == 1:
        model.graph.node.append(node)
    elif kind == 2:
        model.graph.node[place].name = ""
    else:
        del model.graph.node[place]
        model.graph.node.insert(random.randrange(len(model.graph.node)), node)


def value_info(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Change an input or output of the graph: shape, type, name, number."""
    values = random.choice((model.graph.input, model.graph.input, model.graph.output))
    value = random.choice(values)
    shape, kind = value.type.tensor_type.shape, random.randrange(8)
    if kind < 3:
        axis = random.choice(shape.dim)
        if random.random() < 0.7:
            axis.dim_value = _integer(random)
        else:
            axis.dim_param = random.choice(("", "N", "batch", "tokens", "past"))
    elif kind == 3:
        shape.dim.add().dim_value = _integer(random)
    elif kind == 4:
        del shape.dim[random.randrange(len(shape.dim))]
    elif kind == 5:
        value.type.tensor_type.elem_type = random.choice(TYPES)
    elif kind == 6:
        random.choice((lambda: value.ClearField("type"), lambda: value.type.tensor_type.ClearField("shape")))()
    else:
        fate = random.randrange(3)
        if fate == 0:
            values.remove(value)
        elif fate == 1:
            values.append(value)
        else:
            value.name = random.choice(_names(model))


def constant_node(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Replace a small constant, where shapes and axes lie, or put a computation on constants in its place."""
    tensors = [tensor for tensor in model.graph.initializer if _size(list(tensor.dims)) <= 8]
    tensor = random.choice(tensors)
    if random.random() < 0.5:
        _new_tensor(tensor, random)
        return
    name = tensor.name
    model.graph.initializer.remove(tensor)
    sizes = [min(abs(_integer(random)), 2**63 - 1) for _axis in range(2)]
    huge = onnx.helper.make_tensor(f"{name}_sizes", TensorProto.INT64, [2], sizes)
    model.graph.initializer.append(huge)
    kind = random.choice(("ConstantOfShape", "Shape", "Range", "Tile", "Expand", "NonZero"))
    inputs = {"Range": [huge.name] * 3, "Tile": [huge.name] * 2, "Expand": [huge.name] * 2}.get(kind, [huge.name])
    model.graph.node.insert(0, onnx.helper.make_node(kind, inputs, [name]))


def versions(model: onnx.ModelProto, random: Random, _: list[str]) -> None:
    """Change versions, or let a function mean something else."""
    kind = random.randrange(4)
    if kind == 0:
        random.choice(model.opset_import).version = _integer(random)
    elif kind == 1:
        random.choice(model.opset_import).domain = random.choice(("", "ai.onnx", "com.microsoft", "other"))
    elif kind == 2:
        model.ir_version = random.choice((0, 1, 3, 7, 99, 2**62))
    else:
        random.choice(random.choice(model.functions).node).op_type = "Identity"


Change = Callable[[onnx.ModelProto, Random, list[str]], None]
CHANGES: tuple[Change, ...] = (
    *(tensor_shape, tensor_content, tensor_content, tensor_type, tensor_gone, tensor_outside, attribute, attribute),
    *(new_attribute, edge, edge, operator, operator, nodes, value_info, value_info, constant_node, versions),
)
