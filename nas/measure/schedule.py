"""Which way runs a model file fastest on this machine: runtime, threads, and what of it in float; found by timing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas.errors import NasError
from nas.measure import host as machine
from nas.measure.harness import Harness, Level, Run
from nas.measure.settings import TimingSettings
from nas.measure.versus import Difference, differences, make_host, take_turns
from nas.protocols import OperatorTime, Runtime, Session
from nas.runtime.inputs import random_inputs
from nas.runtime.model_file import check_model_file, tensors

# A part moves to float where its operators take less than this share of their time in 8 bits: two profiles are noisy.
FLOAT_PAYS = 0.95
PROFILE_RUNS = 30
EVERYTHING = ("*",)


@dataclass(frozen=True)
class Route:
    """One way to run a file.

    Args:
        runtime: name of the runtime.
        threads: that it may use.
        floats: parts that compute in float, as ``nas.quantize.in_float.parts_of`` names them; ``*`` means all.
    """

    runtime: str
    threads: int = 1
    floats: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The route in words, such as ``native, 1 thread, 2 parts in float``."""
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        parts = f"{len(self.floats)} part" + ("s" if len(self.floats) > 1 else "")
        said = {(): "as it is", EVERYTHING: "all in float"}.get(self.floats, f"{parts} in float")
        return f"{self.runtime}, {threads}, {said}"


@dataclass(frozen=True)
class TimedRoute:
    """A route with what was found out about it.

    Args:
        route: the way.
        median_ms: of one inference at batch 1, or None where it was not timed.
        speedup: median over the blocks of the first route's time over this one's.
        difference: largest difference from the first route's outputs, as a share of its largest output.
        reason: why it may not be taken, or nothing.
    """

    route: Route
    median_ms: float | None = None
    speedup: float = 0.0
    difference: float = 0.0
    reason: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TimedRoute:
        """Return what ``dataclasses.asdict`` made a dictionary of."""
        route = Route(**{**data["route"], "floats": tuple(data["route"]["floats"])})
        return cls(**{**data, "route": route})


@dataclass(frozen=True)
class Schedule:
    """What was decided for one file on one machine.

    Args:
        routes: all that were tried; outputs are held against the first, the file as it is in the first runtime.
        chosen: index of the one to take.
        disturbance: why the times are not to be trusted, or nothing.
    """

    routes: tuple[TimedRoute, ...]
    chosen: int
    disturbance: str = ""

    @property
    def route(self) -> Route:
        """The route to take."""
        return self.routes[self.chosen].route

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schedule:
        """Return what ``to_dict`` wrote.

        Raises:
            KeyError, TypeError, ValueError: another form.
        """
        routes = tuple(TimedRoute.from_dict(route) for route in data["routes"])
        if not 0 <= int(data["chosen"]) < len(routes):
            raise ValueError("the chosen route is none of those that are listed")
        return cls(routes, int(data["chosen"]), str(data["disturbance"]))


@dataclass(frozen=True)
class Scheduler:
    """Times every route of a file in turns and takes the fastest one that keeps the outputs.

    Args:
        runtimes: by name; the first one's outputs are what has to be kept.
        threads: most threads a route may use; 1 and this number are tried, or a runtime's ``most_threads``.
        tolerance: largest difference of an output number that is allowed, as a share of the largest of that output.
        least_gain: a route other than the first is taken if it is faster by at least this share.
        inputs: random inputs whose outputs are compared.
        rounds: blocks of each route.
    """

    runtimes: Mapping[str, Runtime]
    threads: int = 1
    tolerance: float = 0.05
    least_gain: float = 0.02
    inputs: int = 8
    rounds: int = 15

    def schedule(self, model: Path) -> Schedule:
        """Return the decision for a file at batch 1 and free sizes of 1.

        Raises:
            ModelFileError: the first runtime refuses the file.
            CandidateError: it fails on random inputs.
        """
        with floating(model) as version:
            loaded: dict[Route, Session] = {}
            tried: list[TimedRoute] = []
            for route in self._routes(version):
                try:
                    loaded[route] = self.runtimes[route.runtime].load(version(route.floats), threads=route.threads)
                except NasError as error:
                    if not tried:
                        raise
                    tried.append(TimedRoute(route, reason=str(error)[:300]))
                else:
                    tried.append(TimedRoute(route))
            kept = [self._compared(timed, loaded, tried[0].route) for timed in tried]
            return self._timed(kept, loaded)

    def _routes(self, version: Version) -> Iterator[Route]:
        counts = {
            name: sorted({1, min(self.threads, getattr(runtime, "most_threads", self.threads))}, reverse=True)
            for name, runtime in self.runtimes.items()
        }
        yield from (Route(name, count) for name in counts for count in counts[name])
        if not version.quantized:
            return
        yield from (Route(name, count, EVERYTHING) for name in counts for count in counts[name])
        for name, runtime in self.runtimes.items():
            parts = faster_in_float(runtime, version)
            if parts:
                yield from (Route(name, count, parts) for count in counts[name])

    def _compared(self, timed: TimedRoute, loaded: Mapping[Route, Session], first: Route) -> TimedRoute:
        if timed.reason or timed.route == first:
            return timed
        expected = loaded[first]
        given = [random_inputs(expected.inputs, seed) for seed in range(self.inputs)]
        try:
            found: Difference = differences(loaded[timed.route], expected, given)
        except NasError as error:
            return replace(timed, reason=str(error)[:300])
        reason = "" if found.largest <= self.tolerance else f"outputs differ by {found.largest:.3f} of the largest"
        return replace(timed, difference=found.largest, reason=reason)

    def _timed(self, tried: Sequence[TimedRoute], loaded: Mapping[Route, Session]) -> Schedule:
        first = tried[0].route
        able = [timed.route for timed in tried if not timed.reason]
        given = random_inputs(loaded[first].inputs)
        runs: dict[str, Run] = {
            route.text: (lambda session=loaded[route]: session.run(given))  # type: ignore[misc]
            for route in able
        }
        settings = TimingSettings(max_anchor_spread=0.1, tries=2)
        with machine.pinned((), self.threads) as cores:
            host, _ = make_host(cores, settings.realtime, self.threads)
            turns = take_turns(runs, first.text, Harness(settings, host, Level()), self.rounds)
        times = turns.times_ms()
        routes = tuple(
            timed
            if timed.reason
            else replace(
                timed,
                median_ms=times[timed.route.text]["median"],
                speedup=turns.ratio(first.text, timed.route.text).median,
            )
            for timed in tried
        )
        best = max(range(len(routes)), key=lambda index: routes[index].speedup)
        chosen = best if routes[best].speedup >= 1 + self.least_gain else 0
        return Schedule(routes, chosen, turns.disturbance)


@dataclass
class Version:
    """Hands out files of one model with parts of it in float, written when first asked for.

    Args:
        model: the file.
        folder: for the others.
    """

    model: Path
    folder: Path

    def __post_init__(self) -> None:
        self._proto = check_model_file(self.model)
        self._written: dict[tuple[str, ...], Path] = {}
        # Data outside the file would have to move with it; such a file runs as it is.
        outside = any(tensor.data_location == 1 for tensor in tensors(self._proto))
        self.quantized = not outside and any(node.op_type == "QuantizeLinear" for node in self._proto.graph.node)

    def __call__(self, floats: Sequence[str]) -> Path:
        """Return the file in which these parts compute in float."""
        import onnx

        from nas.quantize.in_float import in_float

        if not floats:
            return self.model
        key = tuple(floats)
        if key not in self._written:
            path = self.folder / f"{len(self._written)}.onnx"
            onnx.save_model(in_float(self._proto, None if key == EVERYTHING else key), path)
            self._written[key] = path
        return self._written[key]

    def parts(self) -> dict[str, str]:
        """Return operator name to part."""
        from nas.quantize.in_float import parts_of

        return parts_of(self._proto)


@contextmanager
def floating(model: Path) -> Iterator[Version]:
    """Give a file's versions; they are gone when the context ends.

    Raises:
        ModelFileError: the file is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="nas-route-") as folder:
        yield Version(model, Path(folder))


def faster_in_float(runtime: Runtime, version: Version) -> tuple[str, ...]:
    """Return the parts that take less time in float than in 8 bits by the runtime's profiles, but not if all do."""
    try:
        parts = version.parts()
        eight, plain = (
            _by_part(runtime.profile(version(floats), runs=PROFILE_RUNS), parts) for floats in ((), EVERYTHING)
        )
    except NasError:
        return ()
    found = tuple(sorted(part for part in plain if part in eight and plain[part] < FLOAT_PAYS * eight[part]))
    return () if set(found) >= set(parts.values()) else found


def _by_part(operators: Sequence[OperatorTime], parts: Mapping[str, str]) -> dict[str, float]:
    """Return microseconds per part; an operator that the runtime renamed counts where its name's start says."""
    names = sorted(parts, key=len, reverse=True)
    sums: dict[str, float] = {}
    for operator in operators:
        part = parts.get(operator.name)
        if part is None:
            begin = next((name for name in names if operator.name.startswith(name)), None)
            first = operator.name.strip("/").split("/")[0]
            part = parts[begin] if begin is not None else first if first in parts.values() else None
        if part is not None:
            sums[part] = sums.get(part, 0.0) + operator.median_us
    return sums
