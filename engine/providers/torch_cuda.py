"""PyTorch on an NVIDIA GPU: fused convolutions, and one CUDA graph a batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from engine.contexts.cpu_context import in_graph_order
from engine.contexts.cuda_context import CudaContext
from engine.contexts.cuda_device import check_device
from engine.contexts.stream_context import OpenStreamContext, StreamContext
from engine.interface import Engine
from engine.onnx_in_torch.conversion import OnnxModule

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchCudaEngine(Engine):
    """One module for all contexts: it holds the weights and no state."""

    name: ClassVar[str] = "torch"
    precisions: ClassVar[tuple[str, ...]] = tuple(_DTYPES)
    device: ClassVar[str] = "cuda"
    # A context takes seconds to make and holds graphs and buffers on the GPU.
    keeps_cache: ClassVar[bool] = False
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
        # cuDNN's fastest kernels, found by trying, which each new shape would cost again; and fp32
        # that is fp32, not TF32.
        torch.backends.cudnn.benchmark = not self.is_open
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

    def create_context(self) -> StreamContext:
        """A context on the calling thread's stream."""
        return TorchOpenContext(self) if self.is_open else TorchCudaContext(self)


class TorchCudaContext(CudaContext):
    """The shared module in CUDA graphs."""

    engine: TorchCudaEngine

    def __init__(self, engine: TorchCudaEngine) -> None:
        super().__init__(engine, engine.torch_device, 1, engine.options.max_batch_size)

    def _compute(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return self.engine.compute(inputs)


class TorchOpenContext(OpenStreamContext):
    """The shared module, for rows of several shapes."""

    engine: TorchCudaEngine

    def __init__(self, engine: TorchCudaEngine) -> None:
        super().__init__(engine, engine.torch_device, 1, engine.options.max_batch_size)

    def _compute(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return self.engine.compute(inputs)
