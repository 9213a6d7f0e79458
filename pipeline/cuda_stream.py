"""One CUDA stream for each instance that works on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.cuda_device import check_device, host_event
from pipeline.backend import Item
from pipeline.keys import TASK_RESULT_KEY


class InstanceStream:
    """Makes a stream of its own the calling thread's current one, on one GPU.

    All that the instance's backends enqueue runs there in order, beside the other instances'
    streams; nobody ever waits for the whole device. EngineError if there is no such GPU.
    """

    def __init__(self, device_id: int) -> None:
        check_device(device_id)
        device = torch.device("cuda", device_id)
        torch.cuda.set_device(device)
        self._stream = torch.cuda.Stream(device)
        torch.cuda.set_stream(self._stream)
        self._finished = host_event()

    def finish(self, items: Sequence[Item]) -> None:
        """Make tensors of the results that lie on the GPU, and wait until they are there.

        The next thread has another stream, and works on tensors.
        """
        on_gpu = False
        for item in items:
            result = item.get(TASK_RESULT_KEY)
            if is_decoded(result):
                item[TASK_RESULT_KEY] = result = as_gpu_tensor(result)
            on_gpu |= isinstance(result, torch.Tensor) and result.is_cuda
        if on_gpu:
            self.synchronize()

    def synchronize(self) -> None:
        """Wait for what was enqueued on this stream, and for nothing else."""
        self._finished.record(self._stream)
        self._finished.synchronize()


def is_decoded(data: Any) -> bool:
    """Whether it is a decoder's image on the GPU, which is not a tensor yet.

    Making a tensor of it takes three calls of torch, each of which gives the interpreter's lock
    away; what only needs the address of the pixels does without.
    """
    return not isinstance(data, torch.Tensor) and hasattr(data, "__cuda_array_interface__")


def as_gpu_tensor(data: Any) -> Any:
    """A decoder's image as a uint8 tensor of shape (1, 3, height, width); other data as it is.

    The tensor is a copy: the decoder uses the image's memory again.
    """
    if not is_decoded(data):
        return data
    return torch.as_tensor(data, device="cuda").permute(2, 0, 1).unsqueeze(0).clone()
