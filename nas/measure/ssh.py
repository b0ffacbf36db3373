"""Measures on a board through the system's OpenSSH: no port is opened, and only ssh faces the network."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, TypeVar

from nas.device import Device, Fingerprint, SshLink
from nas.errors import ConfigError, MeasurementError
from nas.measure.archive import MODULES, shell_command, start_arguments
from nas.measure.bare import ask_bare
from nas.measure.energy import ON_BOARD, EnergySource, energy_source
from nas.measure.link import LinkCutError, LinkedRunner
from nas.measure.local import LocalMeter, Runner
from nas.measure.programs import BARE, check_runner
from nas.measure.settings import TimingSettings
from nas.measurement import Measurement
from nas.protocols import DeviceGate, Runtime

# A link that fell silent is given up after three unanswered questions.
_ALIVE_S, _ALIVE_COUNT = 3, 3
_OPTIONS = (
    "BatchMode=yes",
    f"ServerAliveInterval={_ALIVE_S}",
    f"ServerAliveCountMax={_ALIVE_COUNT}",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "ControlMaster=no",
)
# What a measurement takes besides timing: start, sending, loading.
_OVERHEAD_S = 600.0

T = TypeVar("T")


def check_link(link: SshLink) -> None:
    """Refuse what ssh would take for an option, or a shell for something else.

    Raises:
        ConfigError: with what was given.
    """
    for name in ("host", "python"):
        value = getattr(link, name)
        if not value or value.startswith("-") or any(letter.isspace() or not letter.isprintable() for letter in value):
            raise ConfigError(
                f"device.{name}={value!r}: expected a name without blanks that does not begin with '-', such as "
                f"{'pi@board.local' if name == 'host' else 'venv/bin/python'}"
            )
    check_runner(link.runner, link.program)
    if link.tries < 1 or not link.connect_timeout_s > 0 or link.pause_s < 0:
        raise ConfigError(
            f"device.tries={link.tries}, connect_timeout_s={link.connect_timeout_s}, pause_s={link.pause_s}; "
            "expected at least 1, more than 0 and at least 0"
        )


def ssh_command(link: SshLink, lifetime_s: float, queue_s: float) -> list[str]:
    """Return program and arguments that start the Python runner; see ``ssh_line``.

    Args:
        link: checked.
        lifetime_s: the longest that the session may last on the board.
        queue_s: see ``nas.measure.archive.start_arguments``.
    """
    return ssh_line(link, shell_command(link.python, start_arguments(lifetime_s, queue_s)))


def ssh_line(link: SshLink, line: str) -> list[str]:
    """Return program and arguments; the user's own ssh config decides user, port, key and jumps.

    Args:
        link: checked.
        line: for the login shell of the board.
    """
    command = ["ssh", "-T", "-x"]
    if link.config_file is not None:
        command += ["-F", str(Path(link.config_file).expanduser())]
    for option in (*_OPTIONS, f"ConnectTimeout={max(1, round(link.connect_timeout_s))}"):
        command += ["-o", option]
    return [*command, "--", link.host, line]


def ask(link: SshLink) -> Fingerprint:
    """Return which machine answers.

    Raises:
        ConfigError: the link's settings make no sense.
        MeasurementError: none does, with what ssh said.
    """
    check_link(link)
    return with_retries(link, lambda: _fingerprint(link))


@lru_cache(maxsize=16)
def ask_once(link: SshLink) -> Fingerprint:
    """Return which machine answered the first time that this process asked."""
    return ask(link)


def _fingerprint(link: SshLink) -> Fingerprint:
    if link.runner == BARE:
        return ask_bare(partial(ssh_line, link), link.host, 2 * link.connect_timeout_s)
    with LinkedRunner(ssh_command(link, 60.0, -1.0), link.host, 2 * link.connect_timeout_s) as runner:
        return runner.fingerprint


def with_retries(link: SshLink, work: Callable[[], T]) -> T:
    """Begin anew after a cut link; nothing of the lost session is used.

    Raises:
        MeasurementError: it was cut each time.
    """
    reasons: list[str] = []
    for attempt in range(link.tries):
        if attempt:
            time.sleep(link.pause_s * attempt)
        try:
            return work()
        except LinkCutError as error:
            reasons.append(str(error))
    trial = "uname -m" if link.runner == BARE else f'{link.python} -c "import onnxruntime"'
    raise MeasurementError(
        f"no measurement came through in {link.tries} tries; the last one: {reasons[-1]}. "
        f"Check that 'ssh {link.host} {trial}' works without a question"
    )


class SshMeter(LocalMeter):
    """Latency, peak memory and energy of a model file on a board; a cut link is retried from the start.

    The board needs Python 3.11 with onnxruntime; this package's part is sent along. Sessions of one user on one board
    take turns. Nothing of a session counts that did not end as it should.

    Args:
        device: with transport ``ssh``.
        runtime: one that the sent archive holds, so ONNX Runtime; its version there is what measurements carry.
        timing: settings of the protocol.
        gate: unused, since the machine that trains is another one.
        energy: as in ``LocalMeter``; RAPL, GPU and hwmon are read on the board, a command runs here.

    Raises:
        MeasurementError: the runtime is not one that can be sent.
    """

    transport: ClassVar[str] = "ssh"

    def __init__(
        self,
        device: Device,
        runtime: Runtime,
        timing: TimingSettings,
        gate: DeviceGate | None = None,
        energy: str | None = None,
    ) -> None:
        super().__init__(device, runtime, timing, None, energy)
        if not isinstance(device.reach, SshLink):
            raise MeasurementError(f"device '{device.name}' has transport ssh and no host; set device.host")
        self._link = device.reach
        check_link(self._link)
        home = type(runtime).__module__.removeprefix("nas.").replace(".", "/")
        if home not in MODULES:
            hint = f", or device.runner={BARE}, which runs native programs" if runtime.name == "native" else ""
            raise MeasurementError(
                f"runtime '{runtime.name}' is not sent to boards; expected onnxruntime. Choose "
                f"runtime=onnxruntime{hint}"
            )

    def measure(self, model: Path) -> Mapping[str, Measurement]:
        """Return what ``LocalMeter.measure`` does, from one session that was not cut.

        Raises:
            MeasurementError: no session came through, or the file keeps its data in others.
        """
        check_one_file(model)
        return with_retries(self._link, lambda: super(SshMeter, self).measure(model))

    def compare(self, models: Sequence[Path], rounds: int) -> list[Measurement]:
        """Return the latencies of all models, timed in turns in one session that was not cut.

        Raises:
            MeasurementError: as ``measure``.
        """
        for model in models:
            check_one_file(model)
        return with_retries(self._link, lambda: super(SshMeter, self).compare(models, rounds))

    def _open(self) -> Runner:
        timeout_s = self._timing.timeout_s
        command = ssh_command(self._link, _OVERHEAD_S + 100 * timeout_s, 2 * timeout_s)
        return LinkedRunner(command, self._link.host, 2 * self._link.connect_timeout_s + 2 * timeout_s)

    def _open_energy(self) -> EnergySource | None:
        if self._energy_name is None or self._energy_name in (*ON_BOARD, "measured"):
            return None
        return energy_source(self._energy_name, options=self._device.energy_options)

    def _take_energy(self, child: Runner, latency: Measurement, device: str) -> Measurement:
        if self._energy is not None:
            return super()._take_energy(child, latency, device)
        options = self._device.energy_options
        started = time.monotonic()
        reply = child.request(
            "energy",
            self._timing.timeout_s + 20 * max(options.window_s, latency.median / 100),
            source=self._energy_name,
            latency_ms=latency.median,
            **{name: dataclasses.asdict(options)[name] for name in ("rails", "interval_s", "window_s")},
        )
        return self._plain(reply["samples_mj"], "mJ", device, started)


def check_one_file(model: Path) -> None:
    """Refuse a model whose weights lie beside it.

    Raises:
        MeasurementError: it keeps data in other files.
        ModelFileError: it is damaged.
    """
    from nas.runtime.model_file import check_model_file, tensors

    if any(tensor.data_location == 1 for tensor in tensors(check_model_file(model))):  # TensorProto.EXTERNAL
        raise MeasurementError(f"{model} keeps data in other files, which are not sent; save it as one file")
