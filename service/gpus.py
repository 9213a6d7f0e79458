"""The GPUs of the host, as NVIDIA's driver shows them."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from interfaces.stats import GpuStats

_log = logging.getLogger(__name__)


def gpus() -> list[GpuStats]:
    """What each of them does now; none where there is no driver, or the extra `metrics` is missing.

    What a GPU does not tell, as some do in a virtual machine, is 0.
    """
    library = _library()
    if library is None:
        return []
    try:
        return [_gpu(library, index) for index in range(library.nvmlDeviceGetCount())]
    except library.NVMLError as error:
        _log.debug("the driver does not tell of its GPUs: %s", error)
        return []


@cache
def _library() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _gpu(library: Any, index: int) -> GpuStats:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    memory = library.nvmlDeviceGetMemoryInfo(handle)
    try:
        utilization = library.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except library.NVMLError:
        # Of a GPU that is divided into several (MIG) it is not known.
        utilization = 0.0
    return GpuStats(
        index,
        _text(library.nvmlDeviceGetUUID(handle)),
        _text(library.nvmlDeviceGetName(handle)),
        utilization,
        memory.used,
        memory.total,
    )


def _text(told: str | bytes) -> str:
    # Older versions of the library give bytes.
    return told.decode() if isinstance(told, bytes) else told
