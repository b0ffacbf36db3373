"""ONNX Runtime on the processor: one operator after the other, threads as told."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nas.errors import CandidateError, MeasurementError, ModelFileError
from nas.runtime.inputs import random_inputs

if TYPE_CHECKING:
    from nas.protocols import OperatorTime

PROFILE_WARMUP_RUNS = 5

_NUMPY_TYPES = {"float": "float32", "double": "float64", "tensor(bool)": "bool"}
_KERNEL = "_kernel_time"
_UNKNOWN_OPERATOR = "is not a registered function/op"
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "cannot allocate memory")


@dataclass(frozen=True)
class OrtSession:
    """A model that ONNX Runtime has loaded.

    Args:
        session: made with ``session_options``.
        path: for error texts.
    """

    session: onnxruntime.InferenceSession
    path: Path

    @property
    def inputs(self) -> Mapping[str, tuple[tuple[int | str, ...], str]]:
        """Input name to (shape with names for free sizes, numpy type name); unnamed free sizes are called ``?``."""
        return {
            node.name: (
                tuple(size if isinstance(size, int) else size or "?" for size in node.shape),
                _numpy_type(node.type),
            )
            for node in self.session.get_inputs()
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return all outputs, in the order of the file.

        Raises:
            CandidateError: the model failed on these inputs; kind ``memory`` where it found none.
        """
        with _translated(f"{self.path} failed when run"):
            return list(self.session.run(None, dict(inputs)))


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime, CPU execution provider, all graph optimizations, sequential execution.

    Args:
        spinning: let worker threads spin while they wait; None spins for one thread only, since spinning threads
            take the processor from whoever else is on the machine.
    """

    spinning: bool | None = None

    @property
    def name(self) -> str:
        """``onnxruntime``."""
        return "onnxruntime"

    @property
    def version(self) -> str:
        """Name and version in one word, such as ``onnxruntime-1.32.0``."""
        return f"onnxruntime-{onnxruntime.__version__}"

    def check(self, model: Path) -> None:
        """Refuse a damaged file or one that reaches outside its folder.

        Raises:
            ModelFileError: with the reason.
        """
        from nas.runtime.model_file import check_model_file  # onnx takes 0.1 s to import

        check_model_file(model)

    def timed_variants(self, model: Path) -> Mapping[str, Mapping[str, int]]:
        """Return what is timed of a file and at which sizes; see :func:`nas.runtime.variants.timed_variants`."""
        from nas.runtime.variants import timed_variants

        return timed_variants(model)

    def load(self, model: Path, threads: int = 1) -> OrtSession:
        """Check and load a model file.

        Raises:
            ModelFileError: missing, corrupted, or with external data outside its folder.
            CandidateError: no memory for it.
        """
        self.check(model)
        return self.load_checked(model, threads)

    def load_checked(self, model: Path, threads: int = 1) -> OrtSession:
        """Load a file that passed ``check`` in another process; spares the import of onnx and the memory of a parse."""
        return self._open(model, self.session_options(threads))

    def session_options(self, threads: int) -> onnxruntime.SessionOptions:
        """Return the options under which models are timed, scored and profiled."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4
        spinning = threads == 1 if self.spinning is None else self.spinning
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
        return options

    def profile(self, model: Path, runs: int = 50, threads: int = 1) -> list[OperatorTime]:
        """Return the median time per operator over ``runs`` runs at free sizes of 1, slowest first; shares sum to 1.

        Names and kinds are those of the graph after ONNX Runtime's fusions, so they are not always the file's.

        Args:
            model: any ONNX file.
            runs: counted ones; 5 runs before them warm up.
            threads: intra-op threads.

        Raises:
            ModelFileError: the file cannot be loaded.
            MeasurementError: nothing was timed.
        """
        if runs < 1:
            raise MeasurementError(f"a profile over {runs} runs was asked for; expected 1 or more")
        self.check(model)
        options = self.session_options(threads)
        with tempfile.TemporaryDirectory(prefix="nas-profile-") as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            loaded = self._open(model, options)
            inputs = random_inputs(loaded.inputs)
            for _ in range(PROFILE_WARMUP_RUNS + runs):
                loaded.run(inputs)
            events = json.loads(Path(loaded.session.end_profiling()).read_text())
        return operator_times(events, runs)

    def _open(self, model: Path, options: onnxruntime.SessionOptions) -> OrtSession:
        with _translated(f"{model} was refused by ONNX Runtime", ModelFileError):
            # By path, never by bytes: external data of a model in memory is looked for in the current folder.
            try:
                session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            except Exception as error:
                if _UNKNOWN_OPERATOR not in str(error):
                    raise
                from nas.runtime.custom_ops import session_options

                with_ours = session_options(options=options)
                session = onnxruntime.InferenceSession(str(model), with_ours, providers=["CPUExecutionProvider"])
        return OrtSession(session, model)


def operator_times(events: Sequence[Mapping[str, Any]], runs: int) -> list[OperatorTime]:
    """Aggregate the events of ONNX Runtime's profile, slowest operator first.

    Args:
        events: list of its JSON file, durations in microseconds.
        runs: how many of the last runs count.

    Raises:
        MeasurementError: there is no operator among the events.
    """
    from nas.protocols import OperatorTime

    durations: dict[str, list[float]] = defaultdict(list)
    arguments: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(_KERNEL):
            name = str(event["name"]).removesuffix(_KERNEL)
            durations[name].append(float(event["dur"]))
            arguments[name] = event["args"]
    medians = {name: statistics.median(times[-runs:]) for name, times in durations.items()}
    if not medians:
        raise MeasurementError("the profile holds no operator: the model's graph is empty once it is optimized")
    # Durations are whole microseconds: a model of tiny operators may sum to 0, and then each has an equal share.
    total = sum(medians.values())
    operators = []
    for name, median in medians.items():
        shape, dtype = _first_output(arguments[name])
        share = median / total if total > 0 else 1 / len(medians)
        operators.append(OperatorTime(name, str(arguments[name]["op_name"]), median, share, shape, dtype))
    return sorted(operators, key=lambda operator: -operator.median_us)


def _first_output(arguments: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    for output in arguments.get("output_type_shape") or ():
        for dtype, shape in output.items():
            return tuple(int(size) for size in shape), str(dtype)
    return (), ""


def _numpy_type(ort_type: str) -> str:
    inner = ort_type.removeprefix("tensor(").removesuffix(")") if ort_type.startswith("tensor(") else ort_type
    name = _NUMPY_TYPES.get(inner, inner)
    try:
        return np.dtype(name).name
    except TypeError:
        return name


@contextlib.contextmanager
def _translated(what: str, otherwise: type[ModelFileError] | None = None) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise CandidateError("memory", f"{what}: out of memory") from error
    # The binding raises its own exception classes, RuntimeError for C++ exceptions, and ValueError for wrong inputs.
    except Exception as error:
        text = str(error).strip()
        if any(sign in text.lower() for sign in _OUT_OF_MEMORY):
            raise CandidateError("memory", f"{what}: out of memory ({text[:300]})") from error
        if otherwise is not None:
            raise otherwise(f"{what}: {text[:500]}. Check that its operators and opset are supported.") from error
        raise CandidateError("error", f"{what}: {text[:500]}") from error
