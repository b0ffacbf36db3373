"""Our own kernels: an ONNX file is planned once and run by ``nas._kernels``."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas import _kernels
from nas.errors import CandidateError, ConfigError, MeasurementError, ModelFileError
from nas.runtime.cached import CachedPrograms
from nas.runtime.inputs import random_inputs

if TYPE_CHECKING:
    import onnx

    from nas.protocols import OperatorTime

PROFILE_WARMUP_RUNS = 5

# Programs of other free sizes than the first that a session keeps.
_MOST_PROGRAMS = 8


@dataclass(eq=False)
class NativeSession:
    """A model that the native runtime has loaded; programs for its free sizes are planned when they are met.

    Args:
        model: checked.
        path: for error texts.
        isa: level whose kernels are allowed; None takes ``NAS_FORCE_ISA`` or the best.
        threads: that share the operators which are large enough.
    """

    model: onnx.ModelProto
    path: Path
    isa: str | None = None
    threads: int = 1
    _programs: dict[tuple[int, ...], _kernels.Program] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        from nas.runtime.plan.cache import find_cache
        from nas.runtime.plan.model import batch_axis, inputs_of

        self._inputs = inputs_of(self.path, self.model)
        self._free = sorted({size for given in self._inputs for size in given.shape if isinstance(size, str)})
        self._batched = batch_axis(self.path, self.model) is not None
        self._cached: CachedPrograms | None = None
        self._why_not_cached = ""
        if cache := find_cache(self.model.graph):
            try:
                self._cached = CachedPrograms(self.model, self.path, cache, self.isa, self.threads)
            except ModelFileError as error:
                # A decoder of another form: planned anew for every length but 0, where that can be planned.
                self._why_not_cached = str(error)
        self.program({})

    @property
    def inputs(self) -> Mapping[str, tuple[tuple[int | str, ...], str]]:
        """Input name to (shape with names for free sizes, numpy type name); unnamed free sizes are called ``?``."""
        return {given.name: (given.shape, given.dtype) for given in self._inputs}

    def program(self, sizes: Mapping[str, int]) -> _kernels.Program:
        """Return the program for these free sizes, 1 where one is missing; the length of a cache does not matter.

        Raises:
            ModelFileError: an operator is not known, by name.
        """
        from nas.runtime.plan.model import plan

        if self._cached is not None:
            return self._cached.program(sizes.get(self._cached.cache.tokens, 1))
        key = tuple(sizes.get(name, 1) for name in self._free)
        if key not in self._programs:
            while len(self._programs) >= _MOST_PROGRAMS:
                del self._programs[next(iter(self._programs))]
            planned = plan(self.path, self.model, sizes).to_bytes()
            try:
                self._programs[key] = _kernels.Program(planned, self.isa, self.threads)
            except ValueError as error:
                raise ModelFileError(f"{self.path}: {error}") from error
            except MemoryError as error:
                raise ModelFileError(f"{self.path}: its tensors need more memory than there is.") from error
        return self._programs[key]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return all outputs, in the order of the file.

        Raises:
            CandidateError: inputs that the model does not take.
        """
        if self._cached is not None:
            try:
                return self._cached.run(inputs)
            except (KeyError, TypeError, ValueError) as error:
                self.checked(inputs)
                raise CandidateError("error", f"{self.path}: {error}") from error
        arrays, sizes = self.checked(inputs)
        if self._batched:
            return self.program({}).run(arrays, sizes[self._free[0]])
        return self.program(sizes).run(arrays, 1)

    def checked(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[list[NDArray[Any]], dict[str, int]]:
        """Return the arrays in the order of the file, without caches, and the size of each free axis."""
        cache = None if self._cached is None else self._cached.cache
        arrays: list[NDArray[Any]] = []
        sizes: dict[str, int] = {}
        for given in self._inputs:
            array = inputs.get(given.name)
            expected = f"expected {given.dtype} of shape {given.shape}"
            if array is None:
                raise CandidateError("error", f"{self.path}: input '{given.name}' is missing; {expected}")
            found = f"input '{given.name}' is {array.dtype} of shape {array.shape}"
            if array.dtype != given.dtype or array.ndim != len(given.shape):
                raise CandidateError("error", f"{self.path}: {found}; {expected}")
            for size, wanted in zip(array.shape, given.shape, strict=True):
                fits = sizes.setdefault(wanted, size) == size if isinstance(wanted, str) else wanted == size
                least = 0 if cache is not None and wanted == cache.past else 1
                if fits and size < least:
                    why = f": {self._why_not_cached}" if self._why_not_cached else ""
                    expected += f" and no size of 0, since a program is planned for each size{why}"
                if not fits or size < least:
                    raise CandidateError("error", f"{self.path}: {found}; {expected}")
            if cache is None or given.name not in cache.shapes:
                arrays.append(np.ascontiguousarray(array))
        if unknown := set(inputs) - {given.name for given in self._inputs}:
            raise CandidateError("error", f"{self.path} has no input called {', '.join(sorted(unknown))}")
        return arrays, sizes


@dataclass(frozen=True)
class NativeRuntime:
    """Our own kernels: fused operators, channels last, memory planned when a model is loaded.

    Outputs are the same bytes whatever the number of threads. Each loaded model has threads of its own beside the
    caller's; they sleep when nothing runs.

    Args:
        isa: level whose kernels are allowed, such as ``avx2``; None takes ``NAS_FORCE_ISA`` or the best.
    """

    isa: str | None = None

    @property
    def name(self) -> str:
        """``native``."""
        return "native"

    @property
    def most_threads(self) -> int:
        """The processors that this process may use, 16 at most."""
        return _kernels.most_threads()

    @property
    def version(self) -> str:
        """Name, digest of the compiled kernels and of the planner, and the ISA, in one word."""
        level = self.isa or _kernels.chosen_isa()
        return f"native-{_digest()}-{level}"

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

    def load(self, model: Path, threads: int = 1) -> NativeSession:
        """Check, plan and load a model file.

        Args:
            model: quantized or float ONNX file.
            threads: that share the operators which are large enough, the caller's among them.

        Raises:
            ConfigError: fewer threads than 1 or more than there are processors.
            ModelFileError: missing, corrupted, with external data outside its folder, or with an operator that is not
                known, which is named.
        """
        from nas.runtime.model_file import check_model_file

        if not 1 <= threads <= self.most_threads:
            raise ConfigError(
                f"{model}: threads={threads} in the native runtime; expected 1 to {self.most_threads}, the processors "
                "that this process may use. Set device.threads."
            )
        return NativeSession(check_model_file(model), model, self.isa, threads)

    def profile(self, model: Path, runs: int = 50, threads: int = 1) -> list[OperatorTime]:
        """Return the median time per operator over ``runs`` runs at free sizes of 1, slowest first; shares sum to 1.

        A cache is full but for the new token.

        Names are those of the nodes that the operators came from; kinds are the kernels that ran.

        Args:
            model: any ONNX file that ``load`` takes.
            runs: counted ones; 5 runs before them warm up.
            threads: as in ``load``.

        Raises:
            ConfigError, ModelFileError: as ``load``.
            MeasurementError: nothing was timed.
        """
        if runs < 1:
            raise MeasurementError(f"a profile over {runs} runs was asked for; expected 1 or more")
        session = self.load(model, threads)
        arrays, sizes = session.checked(random_inputs(session.inputs))
        program = session.program(sizes)
        seconds = program.profile(arrays, PROFILE_WARMUP_RUNS, runs)
        return operator_times(program.steps, seconds)


def operator_times(
    steps: Sequence[tuple[str, str, str, tuple[int, ...], str]], seconds: NDArray[np.float64]
) -> list[OperatorTime]:
    """Aggregate the times of a program's operators, slowest first.

    Args:
        steps: as ``Program.steps``.
        seconds: of shape (runs, operators).

    Raises:
        MeasurementError: the program has no operator.
    """
    from nas.protocols import OperatorTime

    if not steps:
        raise MeasurementError("the profile holds no operator: the model's graph is empty once it is planned")
    medians = [statistics.median(column) * 1e6 for column in seconds.T.tolist()]
    total = sum(medians)
    used: dict[str, int] = {}
    operators = []
    for (name, kind, kernel, shape, dtype), median in zip(steps, medians, strict=True):
        used[name] = used.get(name, 0) + 1
        unique = name if used[name] == 1 else f"{name}_{kind}_{used[name]}"
        share = median / total if total > 0 else 1 / len(medians)
        operators.append(OperatorTime(unique, kernel, median, share, shape, dtype))
    return sorted(operators, key=lambda operator: -operator.median_us)


@cache
def _digest() -> str:
    """Return a digest of what decides the results: the extension and the planner."""
    folder = Path(__file__).parent / "plan"
    digest = hashlib.sha256(Path(str(_kernels.__file__)).read_bytes())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
