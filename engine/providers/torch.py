"""PyTorch on the CPU."""

from __future__ import annotations

from typing import ClassVar

import torch

from engine.contexts.cpu_context import in_graph_order
from engine.interface import Engine, ExecutionContext
from engine.onnx_in_torch.conversion import OnnxModule
from engine.tensor_spec import TensorSpec

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchEngine(Engine):
    """One module for all contexts: it holds the weights and no state."""

    name: ClassVar[str] = "torch"
    precisions: ClassVar[tuple[str, ...]] = tuple(_DTYPES)
    device: ClassVar[str] = "cpu"
    keeps_cache: ClassVar[bool] = False
    thread_safe: ClassVar[bool] = True

    module: OnnxModule

    @property
    def versions(self) -> dict[str, str]:
        """The version of torch."""
        return {"torch": torch.__version__}

    def _load(self) -> None:
        self.module = OnnxModule(self.model.proto, _DTYPES[self.options.precision]).to(self.device)
        # A graph that asks for what an operator cannot do fails here and not on a request.
        with torch.inference_mode():
            self.module(*(in_graph_order(spec.allocate(1).zero_(), spec) for spec in self.inputs))

    def create_context(self) -> TorchContext:
        """A context for the calling thread; it also sets that thread's share of the cores."""
        return TorchContext(self)


class TorchContext(ExecutionContext):
    """Input buffers for one run at a time of the shared module."""

    engine: TorchEngine

    def __init__(self, engine: TorchEngine) -> None:
        super().__init__(engine)
        # OpenMP keeps this number for each thread.
        torch.set_num_threads(engine.options.threads_per_context)

    def _allocate_input(self, spec: TensorSpec, rows: int) -> torch.Tensor:
        buffer = super()._allocate_input(spec, rows)
        # Convolutions are faster in this order; filling the buffer is where it costs nothing.
        return buffer.to(memory_format=torch.channels_last) if buffer.ndim == 4 else buffer

    def _execute(self, rows: int) -> list[torch.Tensor]:
        inputs = (
            in_graph_order(buffer[:rows], spec)
            for buffer, spec in zip(self._inputs, self.engine.inputs, strict=True)
        )
        with torch.inference_mode():
            outputs = self.engine.module(*inputs)
            return [
                output.to(spec.dtype)
                for output, spec in zip(outputs, self.engine.outputs, strict=True)
            ]
