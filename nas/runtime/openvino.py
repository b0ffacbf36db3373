"""OpenVINO, where it is installed: one more opponent of a comparison, never a runtime that is searched with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


def openvino_inference(
    model: Path, inputs: Mapping[str, NDArray[Any]], threads: int = 1
) -> tuple[Callable[[], object] | None, str]:
    """Return one inference on the processor and an empty string, or None and why there is none.

    Args:
        model: an ONNX file.
        inputs: fix the shapes, and are what every inference reads.
        threads: of the inference.
    """
    try:
        import openvino
    except ImportError:
        return None, "OpenVINO is not installed; pip install 'hwnas[bench]'"
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    try:
        core = openvino.Core()
        network = core.read_model(str(model))
        network.reshape({name: list(array.shape) for name, array in inputs.items()})
        request = core.compile_model(network, "CPU", settings).create_infer_request()
        request.infer(dict(inputs))
    except RuntimeError as error:
        return None, f"OpenVINO refuses {model.name}: {str(error).splitlines()[0]}"
    return lambda: request.infer(dict(inputs)), ""
