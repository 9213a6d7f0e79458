"""Whether this process can use NVIDIA GPUs, and which."""

from __future__ import annotations

import torch

from engine.interface import EngineError


def cuda_available() -> bool:
    """Whether torch is a CUDA build and sees a GPU."""
    return torch.cuda.is_available()


def check_device(device_id: int) -> None:
    """Raise EngineError unless this process sees the GPU of that number."""
    count = torch.cuda.device_count() if cuda_available() else 0
    if not 0 <= device_id < count:
        known = f"GPUs 0 to {count - 1}" if count else "no NVIDIA GPU that torch can use"
        raise EngineError(f"there is no GPU {device_id}: this process sees {known}")
