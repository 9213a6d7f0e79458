"""One CUDA stream for each instance that works on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.contexts.cuda_device import check_device, cpu_event
from pipeline.backends.gpu_image import GpuImage
from pipeline.backends.interface import Item
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY


class InstanceStream:
    """Makes a stream of its own the calling thread's current one, on one GPU.

    All that the instance's backends enqueue runs there in order, beside the other instances'
    streams; the whole device is never waited for. EngineError if there is no such GPU.
    """

    def __init__(self, device_id: int) -> None:
        check_device(device_id)
        device = torch.device("cuda", device_id)
        torch.cuda.set_device(device)
        self._stream = torch.cuda.Stream(device)
        torch.cuda.set_stream(self._stream)
        self._finished = cpu_event()

    def finish(self, items: Sequence[Item]) -> None:
        """Make tensors of the results that lie on the GPU, and wait until they are there.

        The next thread has another stream, and works on tensors. An item with a result keeps no
        image as its data, whose memory the next batch needs.
        """
        on_gpu = False
        for item in items:
            has_result = TASK_RESULT_KEY in item
            # What reads the memory of one that has failed may still be outstanding.
            on_gpu |= not has_result
            key = TASK_RESULT_KEY if has_result else TASK_DATA_KEY
            result = item.get(key)
            if isinstance(result, GpuImage):
                item[key] = result = result.tensor()
            on_gpu |= isinstance(result, torch.Tensor) and result.is_cuda
            if isinstance(item.get(TASK_DATA_KEY), GpuImage):
                del item[TASK_DATA_KEY]
        if on_gpu:
            self.synchronize()

    def synchronize(self) -> None:
        """Wait for what was enqueued on this stream, and for nothing else."""
        self._finished.record(self._stream)
        self._finished.synchronize()
