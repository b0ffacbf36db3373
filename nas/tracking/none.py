"""A tracker that shows nothing."""

from __future__ import annotations

from nas.protocols import DeviceGate, SearchSnapshot


class NoTracker:
    """Writes nothing anywhere; the study's folder still holds everything.

    Args:
        folder: of the studies; not used.
        gate: not used.
    """

    def __init__(self, folder: str = "runs", gate: DeviceGate | None = None) -> None:
        self._folder, self._gate = folder, gate

    def update(self, snapshot: SearchSnapshot, /) -> None:
        """Ignore the snapshot."""

    def close(self, timeout_s: float) -> str:
        """Return that tracking is off and how to turn it on, at once."""
        return "tracking is off (tracking=none); tracking=mlflow shows searches in a browser"
