"""Measures on a board that has no Python: ``nasq-run`` and planned models go over ssh, and its report comes back."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nas.device import Device, Fingerprint, SshLink
from nas.errors import MeasurementError
from nas.measure.bare import Ran, run_bare
from nas.measure.harness import FEWEST_BLOCKS, Harness, Host, Level, Sample, reading, relative_spread
from nas.measure.programs import BARE, find_program, planned, planned_anchor
from nas.measure.settings import TimingSettings
from nas.measure.shell import Job
from nas.measure.ssh import check_link, check_one_file, ssh_line, with_retries
from nas.measurement import Measurement
from nas.protocols import Runtime
from nas.runtime.native import NativeRuntime

_LEVEL = re.compile(r"[a-z0-9_]{1,32}")
# What starting, loading and planning for the processor take there besides timing.
_SLACK_S = 30


class BareMeter:
    """Latency and peak memory of a model file on a board where nothing is installed; a cut link begins anew.

    The file is planned here, and the board gets the program and the plans in a folder of their own that is removed
    again. Each session says first which machine it is on. Models are timed in turns with the anchor, block by block,
    and judged here as everywhere (see ``nas.measure.harness``).

    Args:
        device: with transport ``ssh`` and runner ``nasq-run``.
        runtime: the native one.
        timing: settings of the protocol; memory is read of one load.
        energy: as in ``LocalMeter``; refused, since no source is read without Python.

    Raises:
        MeasurementError: another runtime, an energy source, or no program for this board.
    """

    def __init__(self, device: Device, runtime: Runtime, timing: TimingSettings, energy: str | None = None) -> None:
        if not isinstance(device.reach, SshLink) or device.reach.runner != BARE:
            raise MeasurementError(f"device '{device.name}' is no board without Python; set device.runner={BARE}")
        check_link(device.reach)
        if not isinstance(runtime, NativeRuntime):
            raise MeasurementError(
                f"device '{device.name}' has runner={BARE}, which runs planned models of the native runtime alone, and "
                f"runtime is '{runtime.name}'. Choose runtime=native, or device.runner=python on a board with Python"
            )
        if device.threads != 1:
            raise MeasurementError(f"device '{device.name}': threads={device.threads}; {BARE} has one thread")
        if energy or device.energy_source:
            raise MeasurementError(
                f"device '{device.name}': energy source '{energy or device.energy_source}' is not read by {BARE}; drop "
                "it, take energy=modelled, or device.runner=python on a board with Python"
            )
        self._device, self._runtime, self._timing, self._link = device, runtime, timing, device.reach
        self._level = Level()

    @property
    def has_energy(self) -> bool:
        """False."""
        return False

    def measure(self, model: Path) -> Mapping[str, Measurement]:
        """Return ``latency_ms`` and, where the board's kernel counts it, ``memory_kib`` of loading and running once.

        Raises:
            CandidateError: kind ``crash``, ``timeout``, ``memory`` or ``error``.
            ModelFileError: the file is damaged, or an operator is not known, by name.
            MeasurementError: no session came through, or another machine answers.
        """
        sample, ran, version = self._time([model], None)
        costs = {"latency_ms": self._reading(sample, 0, version)}
        peak = ran.report.get("memory_kib")
        if isinstance(peak, int) and peak > 0:
            costs["memory_kib"] = Measurement(
                float(peak), float(peak), 0.0, 1, 0, "KiB", costs["latency_ms"].device, version, sample.started_s
            )
        return costs

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Return the latencies of all models, timed in turns in one run of the program, in the order given.

        Raises:
            CandidateError, ModelFileError, MeasurementError: as ``measure``.
        """
        if not models or rounds < 1:
            raise MeasurementError(f"{len(models)} models in {rounds} rounds; expected at least 1 of each")
        sample, _, version = self._time(models, rounds)
        return [self._reading(sample, index, version) for index in range(len(models))]

    def _time(self, models: Sequence[Path], rounds: int | None) -> tuple[Sample, Ran, str]:
        """Return the first calm sample, or of the disturbed ones that whose anchor spread least."""
        for model in models:
            check_one_file(model)
            self._runtime.check(model)
        plans = [planned(model, {}) for model in models]
        harness = Harness(self._timing, Host(lambda: 0.0, lambda seconds: None), self._level)
        tried = []
        for _ in range(self._timing.tries):
            sample, ran, version = with_retries(self._link, lambda: self._session(plans, rounds))
            self._level.note(float(np.median(sample.block_medians(-1))))
            sample = replace(sample, disturbance=harness.disturbance(sample))
            tried.append((sample, ran, version))
            if not sample.disturbance:
                return tried[-1]
        return min(tried, key=lambda found: relative_spread(found[0].block_medians(-1)))

    def _session(self, plans: Sequence[bytes], rounds: int | None) -> tuple[Sample, Ran, str]:
        timing, link = self._timing, self._link
        expected = self._device.fingerprint
        program = find_program(expected.isa if expected else self._device.isa, link.program)
        arguments, names = self._arguments(len(plans), rounds)
        files = {"nasq-run": program.read_bytes(), **dict(zip(names, [*plans, planned_anchor()], strict=True))}
        most_s = int(timing.timeout_s * len(plans) * max(1.0, (rounds or 0) / timing.min_blocks)) + _SLACK_S
        core = self._device.affinity[0] if self._device.affinity else None
        queue_s = int(2 * timing.timeout_s)
        job = Job(files, arguments, queue_s, most_s, timing.memory_limit_mib, core, self._isa())
        ran = run_bare(partial(ssh_line, link), link.host, 2 * link.connect_timeout_s, job, self._same_machine)
        sample = _sample(ran, len(names), timing.warmup_runs, link.host)
        digest = hashlib.sha256(files["nasq-run"]).hexdigest()[:12]
        return sample, ran, f"{BARE}-{digest}-{ran.report.get('isa')}"

    def _arguments(self, models: int, rounds: int | None) -> tuple[list[str], list[str]]:
        timing = self._timing
        names = [*(f"model{index}.nasq" for index in range(models)), "anchor.nasq"]
        blocks = timing.max_blocks if rounds is None else rounds
        words = [*names, "--blocks", str(blocks), "--runs", str(timing.warmup_runs)]
        if rounds is None and blocks > FEWEST_BLOCKS:
            words += ["--most-ms", str(max(1, round(timing.max_seconds * 1000)))]
        return [*words, *([] if timing.realtime else ["--no-realtime"])], names

    def _same_machine(self, found: Fingerprint) -> None:
        expected = self._device.fingerprint
        if expected is not None and found.id != expected.id:
            raise MeasurementError(
                f"device '{self._device.name}' has fingerprint {expected.id}, but the machine that answers is "
                f"{found.id} ({found.cpu}); start a new search."
            )

    def _isa(self) -> str | None:
        isa = self._runtime.isa
        if isa is not None and not _LEVEL.fullmatch(isa):
            raise MeasurementError(f"runtime.isa={isa!r}; expected a level of kernels, such as neon_dot")
        return isa

    def _reading(self, sample: Sample, index: int, version: str) -> Measurement:
        read = reading(sample, index)
        key = self._device.fingerprint.id if self._device.fingerprint else self._device.name
        return Measurement(
            median=read.median,
            p10=read.p10,
            spread=read.spread,
            count=read.count,
            warmup=read.warmup,
            unit="ms",
            device=key,
            runtime=version,
            started_s=sample.started_s,
            anchor_ratio=read.anchor_ratio,
            anchor_spread=read.anchor_spread,
            disturbed=bool(sample.disturbance),
        )


def _sample(ran: Ran, models: int, warmup: int, where: str) -> Sample:
    """Return the runs of a report, checked.

    Raises:
        MeasurementError: it is not the report of a timing of so many models.
    """
    report = ran.report
    turns = report.get("turns_us")
    spans = [report.get("started_s"), report.get("elapsed_s")]
    whole = (
        isinstance(turns, list)
        and len(turns) == models
        and all(isinstance(blocks, list) and blocks and len(blocks) == len(turns[0]) for blocks in turns)
        and all(isinstance(runs, list) and runs for blocks in turns for runs in blocks)
        and all(_positive(run) for blocks in turns for runs in blocks for run in runs)
        and all(_positive(span) for span in spans)
    )
    if not whole:
        raise MeasurementError(
            f"nasq-run on {where} reported {str(dict(report))[:200]}, which is no timing of {models} models; expected "
            "the program of this version. Build it anew by make nasq-run"
        )
    blocks_ms = [[[run / 1000 for run in runs] for runs in blocks] for blocks in turns or []]
    started_s, elapsed_s = (float(span or 0.0) for span in spans)
    return Sample(blocks_ms, started_s, elapsed_s, ran.stolen_s, [warmup] * models)


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
