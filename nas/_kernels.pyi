"""Compiled from ``kernels/``: runs planned models, says what this processor offers and how fast one core is at most."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

class _MeasuredPeaks(TypedDict):
    fp32_gmacs: float
    int8_gmacs: float
    bandwidth_gbs: float
    fp32_isa: str
    int8_isa: str

def cpu_features() -> dict[str, bool]:
    """Return which vector extensions this machine offers, named as in Linux's ``/proc/cpuinfo``.

    Only extensions of the machine's own architecture are keys; one whose registers the operating system does not save
    is False.
    """

def available_isas() -> list[str]:
    """Return the names that ``NAS_FORCE_ISA`` and :func:`dot_u8s8` take on this machine, slowest first.

    ``portable`` is always there; x86_64 adds avx2, avx_vnni, avx512vl_vnni (the kernels of avx_vnni in the encoding of
    AVX-512), avx512 and avx512_vnni, aarch64 adds neon, neondot and neoni8mm.
    """

def chosen_isa() -> str:
    """Return the name of the level that ``NAS_FORCE_ISA`` names, else of the best that this machine has.

    Raises:
        ValueError: ``NAS_FORCE_ISA`` names an ISA that is unknown or not available.
    """

def measure_peaks(seconds: float) -> _MeasuredPeaks:
    """Measure the upper bounds of one core: the best of many short bursts, a third of the time for each figure.

    The best ISA that the machine has is used, or the one that the environment variable ``NAS_FORCE_ISA`` names;
    ``fp32_isa`` and ``int8_isa`` say whose kernels ran, since a level may borrow one from a lower level. Without VNNI
    the int8 peak on x86_64 holds for weights or activations of 7 bits. The bandwidth is that of reads from a buffer of
    4 times the last-level cache. The GIL is released meanwhile.

    Args:
        seconds: time to spend, more than 0 and at most 60. At least one burst or eight passes over memory are made
            whatever the time.

    Raises:
        ValueError: ``seconds`` is out of range, or ``NAS_FORCE_ISA`` names an ISA that is unknown or not available.
        MemoryError: the buffer does not fit.
        RuntimeError: a kernel computed a wrong sum.
    """

def dot_u8s8(a: NDArray[np.uint8], b: NDArray[np.int8], isa: str | None = None) -> tuple[int, str]:
    """Return the exact dot product and the name of the ISA whose kernel computed it.

    Args:
        a: contiguous, shape ``(n,)``.
        b: contiguous, shape ``(n,)``.
        isa: a name out of :func:`available_isas`; None takes ``NAS_FORCE_ISA`` or the best.

    Raises:
        ValueError: lengths differ, or the ISA is unknown or not available.
        TypeError: another dtype, or not contiguous.
    """

def most_threads() -> int:
    """Return the number of processors that this process was allowed when it loaded this module, 16 at most."""

class CachePool:
    """Memory for the keys and values of texts, used again when no array shows it any more."""

    def __init__(self) -> None: ...

class Program:
    """A planned model, its weights packed for the kernels that were chosen when it was made.

    Args:
        plan: binary form that ``nas.runtime.plan.program.Program.to_bytes`` writes.
        isa: highest level whose kernels are allowed; None takes ``NAS_FORCE_ISA`` or the best.
        threads: that share the operators which are worth it, the caller's among them. The others belong to the program
            and sleep between runs; those for which there is no processor are not started. Outputs do not depend on it.
        split_ns: least time of an operator on one thread, as ``kernels/src/execute/cost.h`` estimates it, from which on
            it is shared; None takes what was measured, 0 shares whatever can be.

    Raises:
        ValueError: the bytes are damaged, the ISA is unknown or not available, or threads are not 1 to 16.
    """

    def __init__(
        self, plan: bytes, isa: str | None = None, threads: int = 1, split_ns: float | None = None
    ) -> None: ...
    @property
    def isa(self) -> str:
        """Name of the level whose kernels were allowed."""

    @property
    def threads(self) -> int:
        """Threads for which it was made; 1 where no operator is worth sharing."""

    @property
    def parts(self) -> list[int]:
        """In how many parts threads compute each operator, in their order."""

    @property
    def arena_bytes(self) -> int:
        """Memory for all tensors of one inference."""

    @property
    def inputs(self) -> list[tuple[tuple[int, ...], str]]:
        """Shape and type of each input of one inference."""

    @property
    def outputs(self) -> list[tuple[tuple[int, ...], str]]:
        """Shape and type of each output of one inference."""

    @property
    def steps(self) -> list[tuple[str, str, str, tuple[int, ...], str]]:
        """Name, kind, kernel that runs, output shape and type of each operator, in their order."""

    def run(self, inputs: Sequence[NDArray[Any]], batch: int = 1) -> list[NDArray[Any]]:
        """Run ``batch`` inferences one after the other and return the outputs; the GIL is released meanwhile.

        Args:
            inputs: contiguous, of the types in ``inputs``, ``batch`` times as long along the first axis.
            batch: inferences.

        Raises:
            ValueError: another number, type or size of inputs.
        """

    @property
    def most_tokens(self) -> int:
        """Tokens for which a program with a cache has positions; 0 without a cache."""

    def run_cached(
        self, pool: CachePool, inputs: Sequence[NDArray[Any]], past: Sequence[NDArray[np.float32]]
    ) -> tuple[list[NDArray[Any]], list[NDArray[np.float32]]]:
        """Run once after earlier keys and values and return the outputs and the grown keys and values.

        These are read-only views, of shape (1, heads, tokens, size), of memory that the next run extends in place if
        they are given back; anything else is copied first, so that no array changes. The GIL is released meanwhile.

        Args:
            pool: where the memory comes from; that of another program with the same caches will do.
            inputs: as for ``run``.
            past: per buffer of shape (1, heads, past, size), in any strides.

        Raises:
            ValueError: other inputs than it takes, or more tokens than ``most_tokens``.
            TypeError: an array of another type.
        """

    def profile(self, inputs: Sequence[NDArray[Any]], warmup: int, runs: int) -> NDArray[np.float64]:
        """Return the seconds of every operator in every counted run, shape ``(runs, operators)``."""
