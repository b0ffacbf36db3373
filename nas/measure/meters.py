"""Which meter a device is measured with."""

from __future__ import annotations

from pathlib import Path

from nas.device import Device, SshLink
from nas.measure.emulated import EmulatedDevice
from nas.measure.local import LocalMeter
from nas.measure.programs import BARE
from nas.measure.replay import Meter, Recorder, ReplayMeter
from nas.measure.settings import TimingSettings
from nas.measure.ssh import SshMeter
from nas.protocols import DeviceGate, Runtime


def make_meter(
    device: Device,
    runtime: Runtime,
    timing: TimingSettings,
    gate: DeviceGate | None = None,
    energy: str | None = None,
) -> Meter:
    """Return the meter of the device's transport, see ``LocalMeter``.

    Raises:
        MeasurementError: the device cannot be timed, or its energy source is not there.
    """
    meter = _of_transport(device, runtime, timing, gate, energy)
    return Recorder(meter, device, Path(device.record)) if device.record else meter


def _of_transport(
    device: Device, runtime: Runtime, timing: TimingSettings, gate: DeviceGate | None, energy: str | None
) -> Meter:
    if isinstance(device.reach, SshLink) and device.reach.runner == BARE:
        from nas.measure.bare_meter import BareMeter  # the compiled kernels, which other boards do without

        return BareMeter(device, runtime, timing, energy)
    if device.transport == "ssh":
        return SshMeter(device, runtime, timing, gate, energy)
    if device.transport == "replay":
        return ReplayMeter(device)
    if device.transport == "emulated":
        # Before anything is spent: it has no costs to give.
        EmulatedDevice(device, runtime).measure(Path())
    return LocalMeter(device, runtime, timing, gate, energy)
