"""TensorRT on an NVIDIA GPU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorrt as trt
import torch

from engine.cache.engine_cache import load_or_build
from engine.contexts.cpu_context import in_graph_order
from engine.contexts.cuda_context import CudaContext
from engine.contexts.cuda_device import check_device
from engine.contexts.stream_context import OpenStreamContext, StreamContext, own_stream
from engine.errors import EngineError
from engine.interface import Engine
from engine.options import BatchProfile
from engine.providers.tensorrt.builder import BuildSettings, build_plan, logger_of
from engine.providers.tensorrt.graph import tensorrt_graph
from engine.tensor_spec import TensorSpec


class TensorRtEngine(Engine):
    """One deserialized engine for all contexts; the n-th context has the n-th profile."""

    name: ClassVar[str] = "tensorrt"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    device: ClassVar[str] = "cuda"
    # A context must not run twice at a time, and holds graphs and buffers on the GPU.
    thread_safe: ClassVar[bool] = False

    cuda_engine: Any

    @property
    def versions(self) -> dict[str, str]:
        """The versions of TensorRT, torch and CUDA."""
        return {
            "tensorrt": trt.__version__,
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
        }

    @property
    def torch_device(self) -> torch.device:
        """The GPU."""
        return torch.device("cuda", self.options.device_id)

    @property
    def profiles(self) -> tuple[BatchProfile, ...]:
        """The batches that it is made for, at least one."""
        return self.options.profiles or (BatchProfile(1, self.options.max_batch_size),)

    def _load(self) -> None:
        check_device(self.options.device_id)
        self._context_numbers = itertools.count()
        properties = torch.cuda.get_device_properties(self.torch_device)
        gpu = (
            f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
            f"{properties.multi_processor_count} multiprocessors"
        )
        with torch.cuda.device(self.torch_device):
            plan = self.plan(gpu)
            self.log = logger_of(trt)
            self._runtime = trt.Runtime(self.log)
            self.cuda_engine = self._runtime.deserialize_cuda_engine(plan)
        if self.cuda_engine is None:
            raise EngineError(f"TensorRT cannot load {self.model.path}: {self.log.last_error}")

    def plan(self, gpu: str) -> bytes:
        """The serialized engine, from the cache file if that fits.

        Args:
            gpu: identity of the GPU that it is built on and for.

        Raises:
            EngineError: it cannot be built, or the cache cannot be used.
        """
        graph = tensorrt_graph(self.model, self.options)
        settings = BuildSettings(
            self.profiles,
            self.options.max_workspace_bytes,
            self.options.timing_cache_path,
            limits_in_graph(self.inputs),
        )

        def build() -> bytes:
            try:
                return build_plan(trt, graph, settings, self._configure)
            except EngineError as error:
                raise EngineError(f"{self.model.path}: {error}") from error

        if self.options.cache_path is None:
            return build()
        key = self.cache_key(graph, device=gpu, settings=settings.facts())
        return load_or_build(
            self.options.cache_path, key, build, secret_file=self.options.cache_key_file
        )

    def _configure(self, config: Any) -> None:
        """The last word on TensorRT's builder configuration."""

    def create_context(self) -> StreamContext:
        """A context on the calling thread's stream."""
        number = min(next(self._context_numbers), len(self.profiles) - 1)
        return TensorRtOpenContext(self, number) if self.is_open else TensorRtContext(self, number)

    def new_context(self, profile_number: int) -> Any:
        """TensorRT's own execution context, with that profile.

        Raises:
            EngineError: the GPU has no room for it.
        """
        context = self.cuda_engine.create_execution_context()
        if context is None:
            raise EngineError(f"TensorRT has no room for another context: {self.log.last_error}")
        stream = own_stream(self.torch_device)
        context.set_optimization_profile_async(profile_number, stream.cuda_stream)
        stream.synchronize()
        return context

    def enqueue(
        self, context: Any, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> None:
        """Enqueue a context, whose input shapes are set, on the current stream."""
        for specs, tensors in ((self.inputs, inputs), (self.outputs, outputs)):
            for spec, tensor in zip(specs, tensors, strict=True):
                context.set_tensor_address(spec.name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise EngineError(f"TensorRT cannot run: {self.log.last_error}")

    def close(self) -> None:
        """Free the engine's memory on the GPU."""
        del self.cuda_engine


def limits_in_graph(
    specs: Sequence[TensorSpec],
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The smallest and the largest shape of a row of each open input, as the graph has them."""
    limits = {}
    for spec in specs:
        if spec.is_open:
            lows, highs = zip(*spec.limits, strict=True)
            limits[spec.name] = (_in_graph(lows, spec), _in_graph(highs, spec))
    return limits


def _in_graph(item_shape: tuple[int, ...], spec: TensorSpec) -> tuple[int, ...]:
    return (*item_shape[1:], item_shape[0]) if spec.channels_last else item_shape


def _set_input_shapes(
    context: Any, specs: Sequence[TensorSpec], inputs: Sequence[torch.Tensor]
) -> None:
    for spec, tensor in zip(specs, inputs, strict=True):
        context.set_input_shape(spec.name, tuple(in_graph_order(tensor, spec).shape))


def _new_outputs(context: Any, engine: TensorRtEngine) -> list[torch.Tensor]:
    """Memory for the outputs of a context whose input shapes are set."""
    return [
        torch.empty(
            tuple(context.get_tensor_shape(spec.name)), dtype=spec.dtype, device=engine.torch_device
        )
        for spec in engine.outputs
    ]


class TensorRtContext(CudaContext):
    """TensorRT's own execution context and the memory of its outputs, in CUDA graphs."""

    engine: TensorRtEngine

    def __init__(self, engine: TensorRtEngine, profile_number: int) -> None:
        device = engine.torch_device
        profile = engine.profiles[profile_number]
        with torch.cuda.device(device):
            self._context = engine.new_context(profile_number)
            largest = [spec.allocate(profile.max_rows, "meta") for spec in engine.inputs]
            _set_input_shapes(self._context, engine.inputs, largest)
            self._outputs = _new_outputs(self._context, engine)
        super().__init__(engine, device, profile.min_rows, profile.max_rows)

    def _compute(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        _set_input_shapes(self._context, self.engine.inputs, inputs)
        self.engine.enqueue(self._context, inputs, self._outputs)
        rows = inputs[0].shape[0]
        return [output[:rows] for output in self._outputs]

    def close(self) -> None:
        """Free the graphs, TensorRT's context, and the memory that they hold on the GPU."""
        super().close()
        del self._context


class TensorRtOpenContext(OpenStreamContext):
    """TensorRT's own execution context, for rows of several shapes."""

    engine: TensorRtEngine

    def __init__(self, engine: TensorRtEngine, profile_number: int) -> None:
        profile = engine.profiles[profile_number]
        with torch.cuda.device(engine.torch_device):
            self._context = engine.new_context(profile_number)
        super().__init__(engine, engine.torch_device, profile.min_rows, profile.max_rows)

    def _compute(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        _set_input_shapes(self._context, self.engine.inputs, inputs)
        outputs = _new_outputs(self._context, self.engine)
        self.engine.enqueue(self._context, inputs, outputs)
        return outputs

    def close(self) -> None:
        """Free TensorRT's context."""
        super().close()
        del self._context
