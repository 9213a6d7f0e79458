"""PyTorch on an NVIDIA GPU: fused convolutions, and one CUDA graph a batch size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import ClassVar

import torch

from engine.cuda_device import check_device
from engine.host_context import in_graph_order
from engine.interface import Engine, ExecutionContext, TensorSpec, copy_rows
from engine.onnx_to_torch import OnnxModule

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Runs before a graph is captured: the first ones choose kernels and take memory.
_WARM_UP_RUNS = 2
# A capture must not see the allocations and kernel trials of another one.
_CAPTURING = threading.Lock()

_logger = logging.getLogger(__name__)


class TorchCudaEngine(Engine):
    """One module for all contexts: it holds the weights and no state."""

    name: ClassVar[str] = "torch"
    precisions: ClassVar[tuple[str, ...]] = tuple(_DTYPES)
    device: ClassVar[str] = "cuda"
    # A context takes seconds to make and holds graphs and buffers on the GPU.
    thread_safe: ClassVar[bool] = False

    module: OnnxModule

    @property
    def versions(self) -> dict[str, str]:
        """The versions of torch, CUDA and cuDNN, and the GPU."""
        return {
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            "gpu": torch.cuda.get_device_name(self.torch_device),
        }

    @property
    def torch_device(self) -> torch.device:
        """The GPU."""
        return torch.device("cuda", self.options.device_id)

    def _load(self) -> None:
        check_device(self.options.device_id)
        if self.options.cache_path is not None:
            _logger.info("engine torch prepares nothing that is worth keeping: cache ignored")
        # cuDNN's fastest kernels, found by trying; and fp32 that is fp32, not TF32.
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        dtype = _DTYPES[self.options.precision]
        with torch.cuda.device(self.torch_device):
            self.module = OnnxModule(self.model.proto, dtype, fuse=True).to(self.torch_device)
            # A graph that asks for what an operator cannot do fails here and not on a request.
            self.compute([spec.allocate(1, self.torch_device).zero_() for spec in self.inputs])
            torch.cuda.current_stream().synchronize()

    def compute(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueue the network on the current stream.

        Args:
            inputs: one tensor on the GPU per model input, in logical order (N, C, H, W).

        Returns:
            One tensor on the GPU per model output.
        """
        with torch.inference_mode():
            ordered = (
                in_graph_order(tensor, spec)
                for tensor, spec in zip(inputs, self.inputs, strict=True)
            )
            outputs = self.module(*ordered)
            return [
                output.to(spec.dtype) for output, spec in zip(outputs, self.outputs, strict=True)
            ]

    def create_context(self) -> TorchCudaContext:
        """A context on the calling thread's stream."""
        return TorchCudaContext(self)


class TorchCudaContext(ExecutionContext):
    """Buffers, a stream, and a CUDA graph for each of some batch sizes.

    A graph is launched as one call, whatever the number of its kernels. A batch runs in the
    smallest graph that holds it; the rows that are too many compute on what an earlier batch left
    there, and nobody reads their scores. The stream is the calling thread's, so that what was
    enqueued there before (decoding, resizing) needs no waiting for, or one of its own if that
    thread has none but the default.
    """

    engine: TorchCudaEngine

    def __init__(self, engine: TorchCudaEngine) -> None:
        # What is left for the CPU are copies of single rows: not worth a team of threads.
        torch.set_num_threads(1)
        device = engine.torch_device
        current = torch.cuda.current_stream(device)
        own = current == torch.cuda.default_stream(device)
        self._stream = torch.cuda.Stream(device) if own else current
        super().__init__(engine)
        largest = engine.options.max_batch_size
        self._staging = [spec.allocate_pinned(largest) for spec in engine.inputs]
        # A thread that waits for it sleeps instead of keeping a core busy.
        self._finished = torch.cuda.Event(blocking=True)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]] = {}
        with _CAPTURING, torch.cuda.device(device):
            # The largest first: the smaller ones fit into its memory.
            for rows in reversed(graph_batch_sizes(largest)):
                self._graphs[rows] = self._capture(rows)
        self._sizes = sorted(self._graphs)
        self._results = [
            torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
            for output in self._graphs[largest][1]
        ]

    def run(self, items: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """Run one batch on this context's stream; the tensors may be on the host or on the GPU."""
        # What the caller has enqueued on another stream comes first.
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            return super().run(items)

    def _allocate_input(self, spec: TensorSpec) -> torch.Tensor:
        return spec.allocate(self._max_batch_size, self.engine.torch_device)

    def _wait(self) -> None:
        self._finished.record(self._stream)
        self._finished.synchronize()

    def _place(self, items: Sequence[Sequence[torch.Tensor]], rows: int) -> None:
        """Copy a batch to the GPU: what lies on the host in one go, from page-locked memory."""
        places = {tensor.is_cuda for item in items for tensor in item}
        if places == {False}:
            copy_rows(items, self._staging)
            for buffer, staged in zip(self._inputs, self._staging, strict=True):
                buffer[:rows].copy_(staged[:rows], non_blocking=True)
        elif places == {True} and len(items) > 1:
            for tensors, buffer in zip(zip(*items, strict=True), self._inputs, strict=True):
                torch.cat(tensors, out=buffer[:rows])
        else:
            copy_rows(items, self._inputs)

    def _execute(self, rows: int) -> list[torch.Tensor]:
        size = next(size for size in self._sizes if size >= rows)
        graph, outputs = self._graphs[size]
        graph.replay()
        for result, output in zip(self._results, outputs, strict=True):
            result[:rows].copy_(output[:rows], non_blocking=True)
        self._wait()
        return [result[:rows] for result in self._results]

    def _capture(self, rows: int) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
        """The graph of one batch size, and the tensors that it leaves its outputs in."""
        inputs = [buffer[:rows] for buffer in self._inputs]
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                self.engine.compute(inputs)
            self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        pool = next((captured.pool() for captured, _ in self._graphs.values()), None)
        # Other threads may go on with their own work on the GPU meanwhile.
        with torch.cuda.graph(
            graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            outputs = self.engine.compute(inputs)
        return graph, outputs


def graph_batch_sizes(largest: int) -> list[int]:
    """Batch sizes that get a graph: powers of two and half-way between them, up to `largest`.

    A batch between two of them computes at most a third more rows than it has, and usually less.
    """
    sizes = {largest}
    size = 1
    while size < largest:
        sizes |= {size, min(largest, size + size // 2)}
        size *= 2
    return sorted(sizes)
