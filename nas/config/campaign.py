"""Times networks drawn from search spaces, with untrained weights, through one or more runtimes on one device.

Of a language model it is the time of one more token with the cache full but for it.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nas.architecture import Architecture, Precision
from nas.cost_protocols import TimedNetwork
from nas.errors import CandidateError, MeasurementError, ModelFileError, NasError
from nas.graph import Graph
from nas.measure.replay import Meter
from nas.measurement import Measurement
from nas.protocols import OperatorTime, SearchSpace, StepLowering
from nas.quantize.emit import emit_fp32
from nas.quantize.static import quantize_static
from nas.runtime.variants import VARIANTS_KEY, timed_variants

PRECISIONS = ("fp32", "int8", "mixed")
_BLOCK = re.compile(r"/([^/]+)/")
BATCH = 16  # models that are timed in turns in one process
_MIXES = 32  # draws of the genes before a space is believed to have one precision only


@dataclass
class Campaign:
    """Draws architectures, writes them as quantized files of random weights, and times them batch by batch.

    A batch is timed in turns in one process per runtime; every ``twice``-th batch in two, which tells how well a
    reading repeats.

    Args:
        spaces: drawn from in turn; the same space may appear for several tasks.
        meters: runtime name to the meter that times files in it.
        seed: of architectures and weights.
        rounds: blocks of each model.
        batch: models timed in one process.
        twice: one batch in so many is timed in two processes; 0 for none.
        reduce_range: 7-bit weights, see ``quantize_static``.
        profilers: runtime name to what profiles a file in it, see ``block_shares``; language models are not profiled.
        profiled: one network in so many is.
    """

    spaces: Sequence[SearchSpace]
    meters: Mapping[str, Meter]
    seed: int = 0
    rounds: int = 20
    batch: int = BATCH
    twice: int = 3
    reduce_range: bool = False
    profilers: Mapping[str, Callable[[Path], Mapping[str, float]]] = field(default_factory=dict)
    profiled: int = 3
    failures: list[str] = field(default_factory=list, init=False)
    _seen: set[str] = field(default_factory=set, init=False)

    def run(
        self, seconds: float, most: int | None = None, told: Callable[[str], None] | None = None
    ) -> list[TimedNetwork]:
        """Return what was timed until the time is spent.

        Args:
            seconds: no batch is begun that would end later, going by the slowest one so far.
            most: architectures at most; None leaves it to the time.
            told: is given a line after each batch.

        Raises:
            MeasurementError: the device could not be used.
        """
        rng = np.random.default_rng(self.seed)
        drawn = self._draws(rng)
        found: list[TimedNetwork] = []
        begun, slowest, number = time.monotonic(), 0.0, 0
        while (most is None or len(found) < most) and time.monotonic() - begun + slowest < seconds:
            started = time.monotonic()
            size = self.batch if most is None else min(self.batch, most - len(found))
            # The last of each group of batches, so that a short campaign spends its time on more networks.
            repeats = 2 if self.twice and number % self.twice == self.twice - 1 else 1
            found += self._time_batch([next(drawn) for _ in range(size)], repeats, rng)
            slowest = max(slowest, time.monotonic() - started)
            number += 1
            if told is not None:
                told(f"{len(found)} networks in {time.monotonic() - begun:.0f} of {seconds:.0f} s")
            if len(self.failures) > 50 and len(self.failures) > 10 * len(found):
                raise MeasurementError(f"nearly every network fails, the last one so: {self.failures[-1]}")
        return found

    def _draws(self, rng: np.random.Generator) -> Iterator[tuple[SearchSpace, Architecture]]:
        for index in range(10**9):
            space = self.spaces[index % len(self.spaces)]
            wanted = PRECISIONS[index // len(self.spaces) % len(PRECISIONS)]
            for _ in range(_MIXES):
                architecture = _with_precision(space, space.sample(rng), wanted)
                if architecture is not None and architecture.id not in self._seen:
                    self._seen.add(architecture.id)
                    yield space, architecture
                    break

    def _time_batch(
        self, drawn: Sequence[tuple[SearchSpace, Architecture]], repeats: int, rng: np.random.Generator
    ) -> list[TimedNetwork]:
        with tempfile.TemporaryDirectory(prefix="nas-fit-") as folder:
            files: list[Path] = []
            kept: list[tuple[SearchSpace, Architecture, Graph]] = []
            for index, (space, architecture) in enumerate(drawn):
                path = Path(folder) / f"{index}.onnx"
                try:
                    if isinstance(space, StepLowering):
                        graph = space.lower_step(architecture)
                        write_language_model(space, architecture, path, rng, self.reduce_range)
                    else:
                        graph = space.lower(architecture)
                        write_untrained(graph, architecture.precision, path, rng, self.reduce_range)
                except CandidateError as error:
                    self.failures.append(f"{space.name}: {error}")
                    continue
                files.append(path)
                kept.append((space, architecture, graph))
            readings: list[dict[str, tuple[Measurement, ...]]] = [{} for _ in files]
            for _ in range(repeats):
                for runtime, meter in self.meters.items():
                    for place, measured in self._readings(meter, files, runtime).items():
                        readings[place][runtime] = (*readings[place].get(runtime, ()), measured)
            profiles = [
                self._profiles(place, space, file)
                for place, (file, (space, _, _)) in enumerate(zip(files, kept, strict=True))
            ]
        return [
            TimedNetwork(space.name, precision_of(architecture), architecture.id, graph, times, shares)
            for (space, architecture, graph), times, shares in zip(kept, readings, profiles, strict=True)
            if times
        ]

    def _profiles(self, place: int, space: SearchSpace, file: Path) -> dict[str, Mapping[str, float]]:
        found: dict[str, Mapping[str, float]] = {}
        if place % self.profiled or isinstance(space, StepLowering):
            return found
        for runtime, profile in self.profilers.items():
            try:
                found[runtime] = profile(file)
            except NasError as error:
                self.failures.append(f"{runtime}: {error}")
        return found

    def _readings(self, meter: Meter, files: Sequence[Path], runtime: str) -> dict[int, Measurement]:
        """Return position to reading; where a batch fails its models are timed one by one, and the culprit is noted."""
        try:
            return dict(enumerate(meter.compare(files, self.rounds)))
        except (CandidateError, ModelFileError):
            found = {}
            for place, file in enumerate(files):
                try:
                    found[place] = meter.compare([file], self.rounds)[0]
                except (CandidateError, ModelFileError) as error:
                    self.failures.append(f"{runtime}: {error}")
            return found


def block_shares(operators: Sequence[OperatorTime]) -> dict[str, float]:
    """Return block to its share of the time; what a runtime added, and nobody's block holds, stands under ``""``.

    A runtime names a step after one of the operators that it fused, so the block is what can be told of it.
    """
    shares: dict[str, float] = {}
    for operator in operators:
        named = _BLOCK.search(operator.name)
        block = named[1] if named else ""
        shares[block] = shares.get(block, 0.0) + operator.share
    return shares


def write_untrained(
    graph: Graph, precision: Mapping[str, Precision], path: Path, rng: np.random.Generator, reduce_range: bool = False
) -> None:
    """Write a network with random weights, quantized as the precision genes say; ranges are those of one noisy input.

    Args:
        graph: lowered.
        precision: block to precision.
        path: file to write.
        rng: of weights and input.
        reduce_range: see ``quantize_static``.

    Raises:
        CandidateError: no rule for an op, or the quantizer failed.
    """
    plain = path.with_suffix(".fp32.onnx")
    emit_fp32(graph, plain, int(rng.integers(2**31)))
    tokens = any(op.kind == "gather" for op in graph.ops)
    shape = graph.input_shape
    sample = rng.integers(0, 2, shape) if tokens else rng.standard_normal(shape, dtype=np.float32)
    quantize_static(plain, path, sample, precision, reduce_range=reduce_range)
    plain.unlink()


def write_language_model(
    space: SearchSpace, architecture: Architecture, path: Path, rng: np.random.Generator, reduce_range: bool = False
) -> None:
    """Write a language model with fresh weights as the file that would ship, timed at one more token alone.

    It comes from torch's exporter: what the file computes of its free sizes, masks and places in the text costs time
    that no lowered graph shows.

    Args:
        space: of language models.
        architecture: one of its.
        path: file to write.
        rng: of weights and texts.
        reduce_range: see ``quantize_static``.

    Raises:
        CandidateError: the quantizer failed.
    """
    import onnx
    import torch

    from nas.quantize.torch_to_onnx import export_example

    torch.manual_seed(int(rng.integers(2**31)))
    text = rng.integers(0, 2, (4, *space.input_size(architecture)))
    plain = path.with_suffix(".fp32.onnx")
    export_example(space.build(architecture), plain, text[:1])
    quantize_static(plain, path, text, architecture.precision, reduce_range=reduce_range)
    plain.unlink()
    model = onnx.load(str(path))
    *_, (metric, sizes) = timed_variants(path).items()
    onnx.helper.set_model_props(model, {VARIANTS_KEY: json.dumps({metric: dict(sizes)})})
    onnx.save(model, str(path))


def precision_of(architecture: Architecture) -> str:
    """Return ``fp32`` or ``int8`` where all blocks are so, else ``mixed``."""
    kinds = {value.value for value in architecture.precision.values()}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _with_precision(space: SearchSpace, architecture: Architecture, wanted: str) -> Architecture | None:
    """Return the architecture in one precision throughout, or itself where it is mixed; None where there is no way."""
    if wanted == "mixed" or precision_of(architecture) == wanted:
        return architecture
    uniform = replace(architecture, precision=dict.fromkeys(architecture.precision, Precision(wanted)))
    try:
        space.check(uniform)
    except NasError:  # the space may offer one precision only
        return architecture
    return uniform
