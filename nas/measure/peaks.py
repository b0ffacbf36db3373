"""What one core of this machine can do at most: the constants of a roofline, measured once and kept per fingerprint."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nas.device import Fingerprint, Peaks, local_fingerprint
from nas.errors import MeasurementError
from nas.measurement import Measurement
from nas.runtime.inputs import random_inputs
from nas.runtime.onnx_runtime import OnnxRuntime

KERNEL_SECONDS = 0.6
BURST_SECONDS = 0.15
MATMUL_SIZE = 512
COPY_BYTES = 64 * 1024**2
SHORT_CHAIN, LONG_CHAIN = 20, 220
# Over a link: rounds of each model, and a tensor that no cache of a board holds.
LINKED_ROUNDS = 5
LINKED_COPY_BYTES = 32 * 1024**2


def local_peaks(cache: Path | None = None) -> Peaks:
    """Return the peaks of one core, from the cache or measured now (about 1 s) and then cached.

    Args:
        cache: JSON file; None takes one per fingerprint in the user's cache folder.

    Raises:
        MeasurementError: ``cache`` holds the peaks of another machine, or cannot be read.
    """
    fingerprint = local_fingerprint()
    path = cache or cache_folder() / f"peaks-{fingerprint.id}.json"
    if path.is_file():
        return _read(path, fingerprint)
    peaks = measure_local_peaks()
    _write(path, fingerprint, peaks)
    return peaks


def cache_folder() -> Path:
    """Return the user's cache folder for this package: XDG_CACHE_HOME, else the platform's convention."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "hwnas"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hwnas"
    return Path.home() / ".cache" / "hwnas"


def measure_local_peaks() -> Peaks:
    """Measure with the compiled kernels, or with ONNX Runtime's matrix products where the extension is not built."""
    overhead = op_overhead_us()
    try:
        from nas._kernels import measure_peaks
    except ImportError:
        return Peaks(
            fp32_gmacs=_matmul_gmacs("MatMul", np.dtype(np.float32)),
            int8_gmacs=_matmul_gmacs("MatMulInteger", np.dtype(np.uint8)),
            bandwidth_gbs=_copy_gbs(),
            op_overhead_us=overhead,
            source="measured (ONNX Runtime matrix products and a memory copy; the extension nas._kernels is not built)",
        )
    measured = measure_peaks(KERNEL_SECONDS)
    return Peaks(
        fp32_gmacs=measured["fp32_gmacs"],
        int8_gmacs=measured["int8_gmacs"],
        bandwidth_gbs=measured["bandwidth_gbs"],
        op_overhead_us=overhead,
        source=f"measured (nas._kernels: fp32 {measured['fp32_isa']}, int8 {measured['int8_isa']})",
    )


def op_overhead_us() -> float:
    """Measure what the runtime spends per operator besides computing.

    Two chains of element-wise operators on one number each; the difference of their times over the difference of their
    lengths leaves out what a call costs once.
    """
    short, long = (_chain_seconds(length) for length in (SHORT_CHAIN, LONG_CHAIN))
    return max((long - short) / (LONG_CHAIN - SHORT_CHAIN), 0.0) * 1e6


def best_seconds(run: Callable[[], object], seconds: float = BURST_SECONDS) -> float:
    """Return the shortest of many runs: a peak is what the machine does when nothing disturbs it."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def linked_peaks(
    compare: Callable[[Sequence[Path], int], Sequence[Measurement]],
    fingerprint: Fingerprint,
    cache: Path | None = None,
    native: bool = False,
) -> Peaks:
    """Return the peaks of one core of a board, from the cache or measured now over the link and then cached.

    Args:
        compare: times model files there, such as ``SshMeter.compare``.
        fingerprint: of the board.
        cache: JSON file; None takes one per fingerprint in the user's cache folder.
        native: our own kernels run there, which know other operators than ONNX Runtime.

    Raises:
        MeasurementError: ``cache`` holds the peaks of another machine, or nothing came through.
    """
    path = cache or cache_folder() / f"peaks-linked-{'native-' if native else ''}{fingerprint.id}.json"
    if path.is_file():
        return _read(path, fingerprint)
    graphs = {
        "fp32": _matmul_graph("MatMul", np.dtype(np.float32)),
        "int8": _quantized_matmul_graph() if native else _matmul_graph("MatMulInteger", np.dtype(np.uint8)),
        "short": _product_chain_graph(SHORT_CHAIN) if native else _chain_graph(SHORT_CHAIN),
        "long": _product_chain_graph(LONG_CHAIN) if native else _chain_graph(LONG_CHAIN),
        "copy": _copy_graph(),
    }
    with tempfile.TemporaryDirectory(prefix="nas-peaks-") as folder:
        files = [_save(graph, Path(folder) / f"{name}.onnx") for name, graph in graphs.items()]
        # What a machine does when nothing disturbs it: the tenth percentile.
        best_s = {name: reading.p10 / 1000 for name, reading in zip(graphs, compare(files, LINKED_ROUNDS), strict=True)}
    whose = "our" if native else "ONNX Runtime"
    peaks = Peaks(
        fp32_gmacs=MATMUL_SIZE**3 / best_s["fp32"] / 1e9,
        int8_gmacs=MATMUL_SIZE**3 / best_s["int8"] / 1e9,
        bandwidth_gbs=2 * LINKED_COPY_BYTES / best_s["copy"] / 1e9,
        op_overhead_us=max((best_s["long"] - best_s["short"]) / (LONG_CHAIN - SHORT_CHAIN), 0.0) * 1e6,
        source=f"measured over the link ({whose} matrix products and a negation of 32 MiB)",
    )
    _write(path, fingerprint, peaks)
    return peaks


def _chain_seconds(length: int) -> float:
    return _model_seconds(_chain_graph(length))


def _chain_graph(length: int) -> object:
    from onnx import TensorProto, helper

    # Sine is neither fused nor cancelled out by ONNX Runtime, as chains of Neg, Relu or Identity are.
    nodes = [helper.make_node("Sin", [f"x{index}"], [f"x{index + 1}"]) for index in range(length)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x0", f"x{length}")]
    return helper.make_graph(nodes, "chain", values[:1], values[1:])


def _product_chain_graph(length: int) -> object:
    """Return products of one number each, which our planner makes a step of its own of, where functions become one."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((1, 1), np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"x{index}", "w"], [f"x{index + 1}"]) for index in range(length)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x0", f"x{length}")]
    return helper.make_graph(nodes, "chain", values[:1], values[1:], [weight])


def _quantized_matmul_graph() -> object:
    from onnx import TensorProto, helper, numpy_helper

    size = MATMUL_SIZE
    stored = {
        "b": np.ones((size, size), np.int8),
        "scale": np.float32(1.0),
        "zero": np.uint8(0),
        "zero_b": np.int8(0),
        "scale_c": np.float32(size),
    }
    node = helper.make_node("QLinearMatMul", ["a", "scale", "zero", "b", "scale", "zero_b", "scale_c", "zero"], ["c"])
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, [size, size]) for name in ("a", "c")]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    return helper.make_graph([node], "matmul", values[:1], values[1:], weights)


def _copy_graph() -> object:
    from onnx import TensorProto, helper

    shape = [LINKED_COPY_BYTES // 4]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    return helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "copy", values[:1], values[1:])


def _matmul_gmacs(kind: str, dtype: np.dtype[np.generic]) -> float:
    return float(MATMUL_SIZE**3 / _model_seconds(_matmul_graph(kind, dtype)) / 1e9)


def _matmul_graph(kind: str, dtype: np.dtype[np.generic]) -> object:
    from onnx import TensorProto, helper, numpy_helper

    size = MATMUL_SIZE
    integer = kind == "MatMulInteger"
    weight = np.ones((size, size), np.int8 if integer else np.float32)
    given = helper.np_dtype_to_tensor_dtype(dtype)
    returned = TensorProto.INT32 if integer else TensorProto.FLOAT
    return helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["c"])],
        "matmul",
        [helper.make_tensor_value_info("a", given, [size, size])],
        [helper.make_tensor_value_info("c", returned, [size, size])],
        [numpy_helper.from_array(weight, "b")],
    )


def _save(graph: object, path: Path) -> Path:
    import onnx

    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)  # type: ignore[arg-type]
    onnx.save_model(model, path)
    return path


def _model_seconds(graph: object) -> float:
    with tempfile.TemporaryDirectory(prefix="nas-peaks-") as folder:
        session = OnnxRuntime().load(_save(graph, Path(folder) / "model.onnx"))
    inputs = random_inputs(session.inputs)
    return best_seconds(lambda: session.run(inputs))


def _copy_gbs() -> float:
    source, target = np.zeros(COPY_BYTES, np.uint8), np.ones(COPY_BYTES, np.uint8)
    return 2 * COPY_BYTES / best_seconds(lambda: np.copyto(target, source)) / 1e9


def _read(path: Path, fingerprint: Fingerprint) -> Peaks:
    try:
        kept = json.loads(path.read_text())
        found, peaks = kept["fingerprint"], Peaks(**kept["peaks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeasurementError(f"{path}: no readable peaks ({error}); expected JSON. Remove it.") from error
    if found != fingerprint.id:
        raise MeasurementError(
            f"{path} holds the peaks of a machine with fingerprint {found}, but this one is {fingerprint.id}. "
            "Remove the file, or name another cache."
        )
    return peaks


def _write(path: Path, fingerprint: Fingerprint, peaks: Peaks) -> None:
    text = json.dumps({"fingerprint": fingerprint.id, "peaks": asdict(peaks)}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may measure at once; each writes a whole file, and the last one stays.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError:
        return  # a cache that cannot be written costs a second next time
