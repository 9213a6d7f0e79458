"""GPU readings by NVML, on hosts that have an NVIDIA driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GpuReading:
    """One GPU at one moment.

    Attributes:
        utilisation_percent: share of NVML's last sampling period in which a kernel ran.
        memory_used_bytes: memory in use by all processes.
    """

    utilisation_percent: float
    memory_used_bytes: int


class GpuMonitor:
    """Reads every GPU that the driver shows; none where there is no driver.

    Attributes:
        names: one per GPU, with its memory.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._devices: list[Any] = []
        try:
            import pynvml
        except ImportError:
            return  # nvidia-ml-py is not installed: no reading is possible
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            for index in range(pynvml.nvmlDeviceGetCount()):
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                name = pynvml.nvmlDeviceGetName(device)
                total_bytes = pynvml.nvmlDeviceGetMemoryInfo(device).total
                self._devices.append(device)
                self.names.append(f"{name} ({total_bytes / 2**30:.0f} GiB)")
        except pynvml.NVMLError:
            self._devices, self.names = [], []  # no driver, or no permission to ask it

    def read(self) -> list[GpuReading]:
        """All GPUs now, in the order of `names`."""
        return [
            GpuReading(
                utilisation_percent=float(self._nvml.nvmlDeviceGetUtilizationRates(device).gpu),
                memory_used_bytes=int(self._nvml.nvmlDeviceGetMemoryInfo(device).used),
            )
            for device in self._devices
        ]
