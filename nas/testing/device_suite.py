"""What every device must do, as tests to inherit."""

from __future__ import annotations

import dataclasses
import json
import math

from nas.device import Device


class DeviceSuite:
    """Subclass it as ``TestMyDevice`` and return the device from ``make_device``."""

    def make_device(self) -> Device:
        """Return the device under test."""
        raise NotImplementedError

    def test_is_a_device(self) -> None:
        """Meters and cost models read its fields."""
        device = self.make_device()
        assert isinstance(device, Device)
        assert device.name
        assert device.cores >= device.threads >= 1
        assert all(0 <= core < device.cores for core in device.affinity)

    def test_key_repeats(self) -> None:
        """Stored costs are bound to the key, so it is the same for the same device."""
        assert self.make_device().key == self.make_device().key

    def test_key_tells_threads_apart(self) -> None:
        """A time on one thread says nothing of two."""
        device = self.make_device()
        more = dataclasses.replace(device, threads=device.threads + 1)
        assert more.key != device.key

    def test_is_within_reach_or_has_peaks(self) -> None:
        """What cannot be timed is estimated by its peaks; what can has a fingerprint, to which times are bound."""
        device = self.make_device()
        if device.transport == "none":
            assert device.peaks is not None
            assert device.fingerprint is None
        else:
            assert device.fingerprint is not None

    def test_peaks_are_positive_and_say_where_they_come_from(self) -> None:
        """An estimate carries its source."""
        peaks = self.make_device().peaks
        if peaks is not None:
            numbers = (peaks.fp32_gmacs, peaks.int8_gmacs, peaks.bandwidth_gbs, peaks.op_overhead_us)
            assert all(math.isfinite(number) and number > 0 for number in numbers)
            assert peaks.source

    def test_fields_are_json_ready(self) -> None:
        """Reports and the tracking page hold them."""
        json.dumps(dataclasses.asdict(self.make_device()))
