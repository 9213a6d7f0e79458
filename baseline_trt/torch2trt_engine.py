"""The quick-start's own engine: torch2trt, which turns a torch network into TensorRT layers.

It has no release on PyPI, and knows TensorRT up to version 10: 11 has removed the flags that it
builds with.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import torch
from torch import nn

from engine.contexts.cuda_device import check_device
from engine.errors import EngineError
from engine.interface import Engine, ExecutionContext
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.tensor_spec import TensorSpec
from interfaces.error_text import first_line


class Torch2TrtEngine(Engine):
    """One converted network.

    Args:
        model: the same network as ONNX, which says what goes in and what comes out.
        options: "fp32" or "fp16", the largest batch, and the GPU.
        network: normalized float32 images (1, 3, height, width) to logits (1, classes),
            and more rows alike.

    Raises:
        EngineError: there is no such GPU, or torch2trt cannot convert the network.
    """

    name: ClassVar[str] = "torch2trt"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16")
    device: ClassVar[str] = "cuda"
    # TensorRT's context must not run twice at a time.
    thread_safe: ClassVar[bool] = False

    module: Any

    def __init__(self, model: OnnxModel, options: EngineOptions, network: nn.Module) -> None:
        self._network = network
        super().__init__(model, options)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of torch2trt, TensorRT and torch."""
        import tensorrt

        try:
            torch2trt_version = version("torch2trt")
        except PackageNotFoundError:
            torch2trt_version = "unknown"
        return {
            "torch2trt": torch2trt_version,
            "tensorrt": tensorrt.__version__,
            "torch": torch.__version__,
        }

    @property
    def torch_device(self) -> torch.device:
        """The GPU."""
        return torch.device("cuda", self.options.device_id)

    def _load(self) -> None:
        check_device(self.options.device_id)
        try:
            from torch2trt import torch2trt

            with torch.cuda.device(self.torch_device):
                sample = [spec.allocate(1, self.torch_device).zero_() for spec in self.inputs]
                self.module = torch2trt(
                    self._network.to(self.torch_device).eval(),
                    sample,
                    fp16_mode=self.options.precision == "fp16",
                    max_batch_size=self.options.max_batch_size,
                )
                largest = self.options.max_batch_size
                for rows in {1, largest}:
                    self.compute(
                        [spec.allocate(rows, self.torch_device).zero_() for spec in self.inputs]
                    )
        except Exception as error:
            # It fails with whatever TensorRT or a missing converter raises.
            raise EngineError(
                f"torch2trt cannot convert {self.model.name}: {first_line(error)}"
            ) from error

    def compute(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Probabilities (rows, classes) in CPU memory, from tensors on the GPU."""
        with torch.inference_mode():
            logits: torch.Tensor = self.module(*inputs)
            return logits.float().softmax(dim=1).cpu()

    def create_context(self) -> Torch2TrtContext:
        """A context; torch2trt has one of TensorRT's for all of them."""
        return Torch2TrtContext(self)


class Torch2TrtContext(ExecutionContext):
    """An input buffer on the GPU."""

    engine: Torch2TrtEngine

    def _allocate_input(self, spec: TensorSpec, rows: int) -> torch.Tensor:
        return spec.allocate(rows, self.engine.torch_device)

    def _execute(self, rows: int) -> list[torch.Tensor]:
        with torch.cuda.device(self.engine.torch_device):
            return [self.engine.compute([buffer[:rows] for buffer in self._inputs])]
