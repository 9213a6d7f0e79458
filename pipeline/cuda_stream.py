"""One CUDA stream for each instance that works on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.cuda_device import check_device
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
        # A thread that waits for it sleeps instead of keeping a core busy.
        self._finished = torch.cuda.Event(blocking=True)

    def finish(self, items: Sequence[Item]) -> None:
        """Wait until results that lie on the GPU are there: the next thread has another stream."""
        if any(_on_gpu(item.get(TASK_RESULT_KEY)) for item in items):
            self.synchronize()

    def synchronize(self) -> None:
        """Wait for what was enqueued on this stream, and for nothing else."""
        self._finished.record(self._stream)
        self._finished.synchronize()


def _on_gpu(result: object) -> bool:
    return isinstance(result, torch.Tensor) and result.is_cuda
