"""Execution on an NVIDIA GPU, on one stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch

from engine.contexts.cuda_device import cpu_event
from engine.interface import Engine, ExecutionContext
from engine.tensor_spec import TensorSpec


class StreamContext(ExecutionContext):
    """Input buffers on a GPU, and a stream for all that is enqueued.

    The stream is the calling thread's, so that what was enqueued there before (decoding, resizing)
    needs no waiting for, or one of its own if that thread has none but the default.

    Args:
        engine: the engine, whose weights lie on `device` already.
        device: the GPU.
        max_rows: rows of the largest batch.

    Attributes:
        max_rows: rows of the largest batch.
    """

    def __init__(self, engine: Engine, device: torch.device, max_rows: int) -> None:
        # What is left for the CPU are copies of single rows: not worth a team of threads.
        torch.set_num_threads(1)
        self._device = device
        self._stream = own_stream(device)
        super().__init__(engine)
        self._max_batch_size = max_rows
        self.max_rows = max_rows
        self._finished = cpu_event()

    @abstractmethod
    def _compute(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueue the network on the current stream.

        Args:
            inputs: the first rows of every input buffer, in logical order (N, C, H, W).

        Returns:
            One tensor on the GPU per model output; it is read before the next call.
        """

    def run(self, items: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """Run one batch on this context's stream; the tensors may be in CPU or GPU memory."""
        current = torch.cuda.current_stream(self._device)
        if current == self._stream:
            return super().run(items)
        if any(tensor.is_cuda for item in items for tensor in item):
            # What the caller has enqueued on its own stream comes first.
            self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            return super().run(items)

    def close(self) -> None:
        """Wait for what is enqueued."""
        self._stream.synchronize()

    def _allocate_input(self, spec: TensorSpec, rows: int) -> torch.Tensor:
        return spec.allocate(rows, self._device)

    def _wait(self) -> None:
        self._finished.record(self._stream)
        self._finished.synchronize()


class OpenStreamContext(StreamContext):
    """Runs rows of several shapes, without CUDA graphs: each would be of one shape.

    Args:
        engine: as for the base class.
        device: the GPU.
        min_rows: rows of the smallest batch that `_compute` takes; a smaller one is filled up with
            rows whose results are not read.
        max_rows: rows of the largest batch.
    """

    def __init__(self, engine: Engine, device: torch.device, min_rows: int, max_rows: int) -> None:
        self._min_rows = min_rows
        super().__init__(engine, device, max_rows)

    def _allocate_input(self, spec: TensorSpec, rows: int) -> torch.Tensor:
        return super()._allocate_input(spec, max(rows, self._min_rows))

    def _execute(self, rows: int) -> list[torch.Tensor]:
        computed = max(rows, self._min_rows)
        outputs = self._compute([buffer[:computed] for buffer in self._inputs])
        return [output[:rows].cpu() for output in outputs]


def own_stream(device: torch.device) -> torch.cuda.Stream:
    """The calling thread's stream, or another one if that is the default, which waits for all."""
    current = torch.cuda.current_stream(device)
    if current == torch.cuda.default_stream(device):
        return torch.cuda.Stream(device)
    return current
