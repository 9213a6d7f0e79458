"""Whether this process can use NVIDIA GPUs, and which."""

from __future__ import annotations

import torch

from engine.cpu.cores import available_cores
from engine.errors import MissingOnHostError

_CORES_FOR_SPINNING = 4
# Compute capabilities of A100 and A30, of Hopper, and of Blackwell for data centres: nvJPEG's
# documentation, "Hardware Acceleration". Others may decode slower than a CPU of many cores.
_WITH_JPEG_ENGINE = ((8, 0), (9, 0), (10, 0), (10, 3))


def cuda_available() -> bool:
    """Whether torch is a CUDA build and sees a GPU."""
    return torch.cuda.is_available()


def cpu_event() -> torch.cuda.Event:
    """An event for a thread of the CPU to wait for.

    Where there are cores to spare the waiting thread spins, without the interpreter's lock: it
    goes on sooner than one that has to be woken. Elsewhere it sleeps.
    """
    return torch.cuda.Event(blocking=available_cores() < _CORES_FOR_SPINNING)


def all_have_jpeg_engines() -> bool:
    """Whether this process sees GPUs, and the chips of all of them are known to decode JPEGs."""
    count = torch.cuda.device_count() if cuda_available() else 0
    return count > 0 and all(
        torch.cuda.get_device_capability(number) in _WITH_JPEG_ENGINE for number in range(count)
    )


def check_device(device_id: int) -> None:
    """Raise MissingOnHostError unless this process sees the GPU of that number."""
    count = torch.cuda.device_count() if cuda_available() else 0
    if not 0 <= device_id < count:
        known = f"GPUs 0 to {count - 1}" if count else "no NVIDIA GPU that torch can use"
        raise MissingOnHostError(f"there is no GPU {device_id}: this process sees {known}")
