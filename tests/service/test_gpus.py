"""What the driver says of GPUs; with a stand-in for its library, as no host of CI has one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from interfaces.stats import GpuStats
from service import gpus


class DriverError(Exception):
    """As NVMLError."""


class Driver:
    NVMLError = DriverError

    def __init__(self) -> None:
        self.is_lost = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.is_lost:
            raise DriverError("GPU is lost")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=10 + handle, total=100)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if handle:
            raise DriverError("Not Supported")
        return SimpleNamespace(gpu=75)

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return b"H200" if handle else "H100"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"


def test_each_gpu_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(gpus, "_library", lambda: driver)
    assert gpus.gpus() == [
        GpuStats(0, "GPU-0", "H100", 0.75, 10, 100),
        GpuStats(1, "GPU-1", "H200", 0.0, 11, 100),
    ]
    driver.is_lost = True
    assert gpus.gpus() == []
