"""Graphics processors through zeus (NVML or AMD SMI): for runtimes that compute there."""

from __future__ import annotations

from typing import Any

from nas.measure.energy.source import absent


class ZeusGpu:
    """Total energy of all visible GPUs since their driver was loaded.

    Args:
        gpus: what ``zeus.device.get_gpus`` returns.
    """

    name = "zeus_gpu"

    def __init__(self, gpus: Any) -> None:
        self._gpus = gpus

    def read_mj(self) -> float:
        """Return the sum over GPUs."""
        return float(sum(self._gpus.get_total_energy_consumption(index) for index in range(len(self._gpus))))


def open_zeus_gpu() -> ZeusGpu:
    """Return the source.

    Raises:
        MeasurementError: zeus is not installed, finds no GPU, or one of them does not count energy.
    """
    try:
        from zeus.device import get_gpus
    except ImportError as error:
        raise absent("zeus_gpu", "the package is not installed (pip install 'hwnas[energy]')") from error
    try:
        gpus = get_gpus()
        count = len(gpus)
        mute = [index for index in range(count) if not gpus.supports_get_total_energy_consumption(index)]
    # zeus raises its own classes, those of the vendor's library and more.
    except Exception as error:
        raise absent("zeus_gpu", f"this machine offers no counter ({type(error).__name__}: {error})") from error
    if count == 0:
        raise absent("zeus_gpu", "it found no GPU")
    if mute:
        raise absent("zeus_gpu", f"GPU {mute[0]} does not count its energy; hide it with CUDA_VISIBLE_DEVICES")
    return ZeusGpu(gpus)
