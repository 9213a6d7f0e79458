"""One CUDA stream for each instance that works on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.cuda_device import check_device, host_event
from pipeline.backend import Item
from pipeline.gpu_image import GpuImage
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
            if isinstance(result, GpuImage):
                item[TASK_RESULT_KEY] = result = result.tensor()
            on_gpu |= isinstance(result, torch.Tensor) and result.is_cuda
        if on_gpu:
            self.synchronize()

    def synchronize(self) -> None:
        """Wait for what was enqueued on this stream, and for nothing else."""
        self._finished.record(self._stream)
        self._finished.synchronize()
