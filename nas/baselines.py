"""Ready models beside the candidates: checked, quantized where they are float, timed, profiled and scored alike.

An ONNX file may come from PyTorch (channels first), TensorFlow (channels last) or scikit-learn (rows of features,
labels beside probabilities). What does not fit the data is timed as it is, and a note says why it has no accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.accuracy.trainers import Trainer
from nas.architecture import Precision
from nas.data import ImageDataset, Preprocessing
from nas.errors import CandidateError, ConfigError, ModelFileError
from nas.evaluate import Evaluator
from nas.evaluation import Baseline
from nas.measurement import Estimate

if TYPE_CHECKING:
    from torch import nn

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinear", "DynamicQuantize", "QGemm")
_BATCH = 64


@dataclass(frozen=True)
class BaselineRequest:
    """What to put beside the candidates.

    Args:
        name: unique among the search's baselines.
        source: ONNX file, or the class of a module, for people.
        key: hash of the file or settings and of all that the values depend on.
        model: ONNX file, or None for a module.
        mean: per channel, subtracted from pictures scaled to 0..1; None takes the data's.
        std: per channel, by which they are divided; None takes the data's.
        weights: safetensors file for the module; without one it is trained by the search's recipe.
        resolution: side of the pictures that a module reads, or that a file with free sizes is fixed to.
    """

    name: str
    source: str
    key: str
    model: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weights: Path | None = None
    resolution: int = 32


@dataclass(frozen=True)
class Layout:
    """How pictures become a model's input.

    Args:
        kind: ``channels_first``, ``channels_last`` or ``rows`` (features of a picture in one row, channels last).
        preprocessing: size and normalization.
    """

    kind: str
    preprocessing: Preprocessing

    def arrange(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn (n, c, h, w) into what the model reads."""
        if self.kind == "channels_first":
            return images
        last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return last if self.kind == "channels_last" else last.reshape(len(last), -1)


@dataclass
class _Findings:
    values: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, metric: str, number: Any) -> None:
        self.values[metric] = number.value
        self.provenance[metric] = number.to_dict()

    def compute(self, metric: str, value: float, how: str) -> None:
        self.values[metric] = value
        self.provenance[metric] = {"provenance": "computed", "how": how}


def measure_baseline(
    request: BaselineRequest, evaluator: Evaluator, make_module: Callable[[], nn.Module] | None = None
) -> Baseline:
    """Take one baseline through quantization, timing, profile and scoring, in a worker.

    Args:
        request: what it is.
        evaluator: of the search; its runtime, meter, data and device serve the baseline too.
        make_module: makes the network where the request names no file.

    Raises:
        CandidateError, ModelFileError, MeasurementError: it cannot be read, run or timed.
    """
    folder = evaluator.folder / "baselines" / request.name
    folder.mkdir(parents=True, exist_ok=True)
    found = _Findings()
    given = folder / "given.onnx"
    if make_module is not None:
        _export_module(request, evaluator, make_module(), given, found)
    elif request.model is not None:
        _copy_model(request.model, given)
    layout = _layout(given, request, evaluator, found)
    precision = _quantize(given, folder / "model.onnx", layout, evaluator, found)
    shipped = folder / "model.onnx"
    if layout is not None:
        _score(given, "accuracy_fp32" if precision == "int8" else "", layout, evaluator, found)
        _score(shipped, "accuracy", layout, evaluator, found)
    found.compute("size_kib", shipped.stat().st_size / 1024, "size of the file")
    _take_costs(shipped, evaluator, found)
    return Baseline(
        name=request.name,
        source=request.source,
        key=request.key,
        precision=precision,
        values=found.values,
        provenance=found.provenance,
        notes=tuple(found.notes),
        folder=str(folder.relative_to(evaluator.folder)),
    )


def _export_module(
    request: BaselineRequest, evaluator: Evaluator, module: nn.Module, target: Path, found: _Findings
) -> None:
    from nas.quantize.torch_to_onnx import export_fp32

    dataset = evaluator.dataset
    if not isinstance(dataset, ImageDataset):
        raise ConfigError(f"baseline {request.name} is a module, which reads pictures; data '{dataset.name}' has none")
    preprocessing = dataset.preprocessing(request.resolution, request.resolution)
    if request.weights is not None:
        from safetensors.torch import load_model

        try:
            load_model(module, str(request.weights))
        except (OSError, RuntimeError) as error:
            raise CandidateError("error", f"weights {request.weights} do not fit {request.source}: {error}") from error
        found.notes.append(f"weights of {request.weights.name}")
    elif isinstance(evaluator.accuracy, Trainer):
        evaluator.accuracy.train(module, evaluator.dataset, preprocessing, evaluator.seed, evaluator.gate)
        found.notes.append("trained by the recipe of the search")
    else:
        found.notes.append("its weights are fresh: the search trains nothing, and no weights were given")
    try:
        export_fp32(module, target, len(preprocessing.mean), preprocessing.height, preprocessing.width)
    # The exporter raises whatever it stumbles over: a user's module is not one of ours, which it is known to read.
    except Exception as error:
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise CandidateError("error", f"{request.source} cannot be exported to ONNX: {first}") from error


def _copy_model(source: Path, target: Path) -> None:
    """Write a checked copy in one file, whatever external data the original has."""
    import onnx

    from nas.runtime.model_file import check_model_file

    check_model_file(source)
    onnx.save_model(onnx.load_model(str(source)), str(target))


def _layout(given: Path, request: BaselineRequest, evaluator: Evaluator, found: _Findings) -> Layout | None:
    """Return how the data's pictures fit the model, its free sizes fixed; None, with a note, where they do not."""
    import onnx

    dataset = evaluator.dataset
    if not isinstance(dataset, ImageDataset):
        found.notes.append(f"data '{dataset.name}' has no pictures to score it on")
        return None
    model = onnx.load_model(str(given))
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        found.notes.append(f"{len(inputs)} inputs, or one that is not float32: no picture fits, so it is not scored")
        return None
    dimensions = inputs[0].type.tensor_type.shape.dim
    sizes = [one.dim_value if one.HasField("dim_value") else 0 for one in dimensions]
    channels = dataset.task.channels
    mean, std = request.mean or dataset.mean, request.std or dataset.std
    if len(mean) != channels or len(std) != channels:
        raise ConfigError(
            f"baseline {request.name}: mean and std have {len(mean)} and {len(std)} values, not {channels}"
        )

    def layout(kind: str, height: int, width: int) -> Layout:
        return Layout(kind, Preprocessing(height, width, tuple(mean), tuple(std)))

    if len(sizes) == 2 and sizes[1] and sizes[1] % channels == 0:
        side = round((sizes[1] // channels) ** 0.5)
        if side * side * channels == sizes[1]:
            return layout("rows", side, side)
    kind = {True: "channels_first", False: "channels_last"}[len(sizes) == 4 and sizes[1] == channels]
    if len(sizes) == 4 and channels in (sizes[1], sizes[3]):
        axes = (2, 3) if kind == "channels_first" else (1, 2)
        if not all(sizes[axis] for axis in axes):
            for axis in axes:
                sizes[axis] = sizes[axis] or request.resolution
                dimensions[axis].dim_value = sizes[axis]
            found.notes.append(f"its free sizes were fixed to {sizes[axes[0]]}x{sizes[axes[1]]} pixels (resolution=)")
            onnx.save_model(model, str(given))
        return layout(kind, sizes[axes[0]], sizes[axes[1]])
    if not all(sizes[1:]):
        raise CandidateError(
            "error", f"input '{inputs[0].name}' has free sizes {sizes}; expected fixed ones but for the batch"
        )
    found.notes.append(
        f"its input of shape {sizes} takes no pictures of {channels} channels (first or last) or rows of them, so it "
        "is not scored"
    )
    return None


def _quantize(given: Path, target: Path, layout: Layout | None, evaluator: Evaluator, found: _Findings) -> str:
    """Write ``target``; a float model is quantized where calibration pictures fit, else copied, with the reason."""
    import onnx

    from nas.quantize.prepare import prepare_model
    from nas.quantize.static import needs_reduced_range, quantize_static

    target.unlink(missing_ok=True)
    model = onnx.load_model(str(given))
    reason = ""
    if any(node.op_type.startswith(_QUANTIZED) or "Integer" in node.op_type for node in model.graph.node):
        reason = "it is quantized already"
    elif layout is None:
        reason = "no calibration picture fits its input"
    else:
        known = evaluator.screen.device.fingerprint
        reduced = known is not None and needs_reduced_range(known.isa, known.features)
        pictures, prepared = _pictures(layout, evaluator), given.with_name("prepared.onnx")
        try:
            prepare_model(model, prepared)
            quantize_static(prepared, target, pictures, {}, Precision.INT8, reduced)
        except CandidateError as error:
            reason = str(error)
        if target.is_file() and not _is_quantized(target):
            reason = "no operator in it can be quantized"
    if reason:
        target.write_bytes(given.read_bytes())
        found.notes.append(f"as given: {reason}")
    return "as given" if reason else "int8"


def _is_quantized(path: Path) -> bool:
    import onnx

    return any(node.op_type == "QuantizeLinear" for node in onnx.load_model(str(path)).graph.node)


def _pictures(layout: Layout, evaluator: Evaluator) -> NDArray[np.float32]:
    split = evaluator.dataset.splits["train"]
    chosen = np.random.default_rng(0).permutation(len(split))[: evaluator.calibration_images]
    resized = layout.preprocessing.resize([split.samples[index] for index in chosen])
    return layout.arrange(layout.preprocessing.normalize(resized))


def _score(model: Path, metric: str, layout: Layout, evaluator: Evaluator, found: _Findings) -> None:
    """Note the share of right answers on the validation pictures, or why there is none."""
    if not metric:
        return
    assert isinstance(evaluator.dataset, ImageDataset)  # else there is no layout
    split, classes = evaluator.dataset.splits["validation"], evaluator.dataset.task.classes
    session = evaluator.runtime.load(model, threads=1)
    (name, (shape, _)) = next(iter(session.inputs.items()))
    fixed = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else 0
    size, right = fixed or _BATCH, 0
    images = layout.preprocessing.resize(split.images)
    for start in range(0, len(images), size):
        part = images[start : start + size]
        count = len(part)
        if fixed and count < fixed:
            part = np.concatenate([part, np.repeat(part[-1:], fixed - count, axis=0)])
        answers = _answers(session.run({name: layout.arrange(layout.preprocessing.normalize(part))}), classes)
        if answers is None:
            if "no accuracy" not in " ".join(found.notes):
                found.notes.append(f"no accuracy: no output has {classes} columns or is a label per picture")
            return
        right += int((answers[:count] == split.labels[start : start + count]).sum())
    found.compute(metric, right / len(split), f"validation pictures, {model.name} in {evaluator.runtime.version}")


def _answers(outputs: list[NDArray[Any]], classes: int) -> NDArray[np.int64] | None:
    """Return a class per picture: the largest of (n, classes) scores, else integer labels."""
    arrays = [array for array in outputs if isinstance(array, np.ndarray)]
    for array in arrays:
        if array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] == classes:
            return np.asarray(array.argmax(axis=1), np.int64)
    for array in arrays:
        if array.dtype.kind in "iu" and array.size == len(array):
            return np.asarray(array, np.int64).reshape(-1)
    return None


def _uncounted(model: Path) -> str:
    """Return why the multiply-accumulates of a file would say nothing of its work, or nothing."""
    import onnx

    kinds = {node.op_type for node in onnx.load_model(str(model)).graph.node if node.domain == "ai.onnx.ml"}
    heavy = sorted(kind for kind in kinds if kind.startswith(("TreeEnsemble", "SVM", "Linear")))
    return f"{', '.join(heavy)} does work that is not counted in them" if heavy else ""


def _take_costs(model: Path, evaluator: Evaluator, found: _Findings) -> None:
    from nas.runtime.onnx_graph import graph_from_onnx

    device = evaluator.screen.device
    graph, uncounted = None, _uncounted(model)
    try:
        graph = None if uncounted else graph_from_onnx(model)
    except ModelFileError as error:
        uncounted = str(error)
    if graph is None:
        found.notes.append(f"its MACs, and costs modelled by them, are not known: {uncounted}")
    if graph is not None:
        found.note("macs", Estimate(float(graph.macs), 0.0, "", "model file", device.name, "computed"))
        found.note("params", Estimate(float(graph.parameters), 0.0, "", "model file", device.name, "computed"))
    if evaluator.meter is not None:
        for metric, measurement in evaluator.meter.measure(model).items():
            found.note(metric, measurement)
        with evaluator.gate.timing() if evaluator.gate is not None else nullcontext():
            operators = evaluator.runtime.profile(model, threads=device.threads)
        text = json.dumps([asdict(operator) for operator in operators], indent=2)
        (model.parent / "profile.json").write_text(text + "\n", "utf-8")
    elif graph is not None:
        found.note("latency_ms", evaluator.screen.latency_model.predict(graph, device))
    if evaluator.energy_model is not None and graph is not None:
        found.note("energy_mj", evaluator.energy_model.predict_energy(graph, device))


def failed(request: BaselineRequest, reason: str) -> Baseline:
    """Return a baseline of which nothing is known but why."""
    return Baseline(request.name, request.source, request.key, reason=reason)
