"""What layers read on the calibration inputs: covariance and mean, by which their weights are rounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import CandidateError

if TYPE_CHECKING:
    import onnx

# Windows that are looked at, over all calibration inputs.
_WINDOWS = 4096


@dataclass(frozen=True, eq=False)
class Inputs:
    """Second and first moment of a layer's flattened windows.

    Args:
        covariance: (inputs, inputs), or (groups, inputs, inputs) of a grouped convolution; not centred.
        mean: (inputs,), or (groups, inputs).
    """

    covariance: NDArray[np.float64]
    mean: NDArray[np.float64]

    def per_output(self, outputs: int) -> Inputs:
        """Return one entry for each output, where the layer has groups."""
        if self.covariance.ndim == 2:
            return self
        times = outputs // len(self.covariance)
        return Inputs(np.repeat(self.covariance, times, axis=0), np.repeat(self.mean, times, axis=0))


def layer_inputs(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[Mapping[str, NDArray[Any]]]
) -> dict[str, Inputs]:
    """Run a model and return what the named layers read; a dilated or automatically padded one is left out.

    Args:
        model: float model in memory, with names on its nodes.
        names: of Conv and Gemm nodes.
        batches: inputs by name.

    Raises:
        CandidateError: ONNX Runtime fails on the model.
    """
    nodes = [node for node in model.graph.node if node.name in set(names) and _is_plain(node)]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    given = list(batches)
    rng = np.random.default_rng(0)
    sums: dict[str, tuple[Any, Any, int]] = {}
    for read in _activations(model, [node.input[0] for node in nodes], given):
        for node in nodes:
            found = _windows(node, read[node.input[0]], shapes[node.input[1]], max(_WINDOWS // len(given), 1), rng)
            square, total, count = sums.get(node.name, (0.0, 0.0, 0))
            square = square + np.matmul(found.swapaxes(-1, -2), found)
            sums[node.name] = (square, total + found.sum(axis=-2, dtype=np.float64), count + found.shape[-2])
    return {name: Inputs(square / count, total / count) for name, (square, total, count) in sums.items()}


def _activations(
    model: onnx.ModelProto, names: Sequence[str], batches: Sequence[Mapping[str, NDArray[Any]]]
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield the named values of each batch."""
    import onnxruntime
    from onnx import ValueInfoProto

    opened = type(model)()
    opened.CopyFrom(model)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    inner = sorted(set(names) - known)
    opened.graph.output.extend(ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for batch in batches:
            found = session.run(inner, dict(batch)) if inner else []
            yield {**batch, **dict(zip(inner, found, strict=True))}
    # The binding's exceptions share no base class of their own.
    except Exception as error:
        raise CandidateError("error", f"the inputs of its layers cannot be taken: {str(error)[:300]}") from error


def _is_plain(node: onnx.NodeProto) -> bool:
    """Return whether a layer's windows can be cut here."""
    settings = {item.name: item for item in node.attribute}
    dilated = "dilations" in settings and any(size != 1 for size in settings["dilations"].ints)
    return not dilated and ("auto_pad" not in settings or settings["auto_pad"].s == b"NOTSET")


def _windows(
    node: onnx.NodeProto, array: NDArray[Any], weight: tuple[int, ...], most: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return some of the windows that a layer reads, (windows, inputs) or (groups, windows, inputs)."""
    if node.op_type == "Gemm":
        flat = array.reshape(-1, array.shape[-1])
        return np.asarray(flat[rng.permutation(len(flat))[:most]], np.float32)
    settings = {item.name: item for item in node.attribute}
    top, left, bottom, right = settings["pads"].ints if "pads" in settings else (0, 0, 0, 0)
    rows, columns = settings["strides"].ints if "strides" in settings else (1, 1)
    groups = settings["group"].i if "group" in settings else 1
    padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (left, right)))
    views = np.lib.stride_tricks.sliding_window_view(padded, weight[2:], axis=(2, 3))[:, :, ::rows, ::columns]
    places = (views.shape[0], *views.shape[2:4])
    chosen = np.sort(rng.permutation(int(np.prod(places)))[:most])
    sample, row, column = np.unravel_index(chosen, places)
    # (windows, channels, kernel height, kernel width)
    found = np.ascontiguousarray(views[sample, :, row, column], np.float32)
    if groups == 1:
        return found.reshape(len(chosen), -1)
    return found.reshape(len(chosen), groups, -1).swapaxes(0, 1)
