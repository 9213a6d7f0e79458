"""OpenVINO on the CPU."""

from __future__ import annotations

import io
import threading
import weakref
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import openvino

from engine.cache.engine_cache import load_or_build
from engine.contexts.cpu_context import CpuContext
from engine.cpu.cores import cpu_identity, fitting_contexts
from engine.cpu.vnni import largest_weight, onednn_max_isa
from engine.errors import EngineError, MissingOnHostError
from engine.int8.cpu_graph import graph_for_cpu
from engine.interface import Engine

_DEVICE = "CPU"
# In int8 the graph says which layers are quantised; the hint is for all others.
_PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
# Of all copies of a model's weights together, ResNet-50's in fp32 ten times.
_MOST_WEIGHTS_BYTES = 1 << 30
_core_lock = threading.Lock()
_the_core: openvino.Core | None = None


def core() -> openvino.Core:
    """The only one of this process, which stays.

    Each has its CPU plugin give the thread that makes it another stack for signals, which is
    unmapped when it goes; where one goes before another that was made later, the thread is left
    with a stack that is not there, and the next signal with a handler ends the process.
    """
    global _the_core
    with _core_lock:
        if _the_core is None:
            _the_core = openvino.Core()
        return _the_core


class OpenVinoEngine(Engine):
    """A compiled model for each context, which computes in the thread that calls it.

    A model that is compiled for several runs at a time has threads of its own for them, to and
    from which each batch is handed. There is one such model for all contexts, with as many runs at
    a time as contexts, up to the cores, where copies of the weights would be too much, or where
    more threads than cores call: then the next one's batch lies ready when a run ends.
    """

    name: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = tuple(_PRECISION_HINTS)
    device: ClassVar[str] = "cpu"
    thread_safe: ClassVar[bool] = True

    models: list[openvino.CompiledModel]

    @classmethod
    def check_host(cls, precision: str) -> None:
        """For bf16 the CPU has to have it."""
        if precision == "bf16":
            require_bf16(core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))

    @property
    def versions(self) -> dict[str, str]:
        """The version of OpenVINO."""
        return {"openvino": openvino.__version__}

    def _load(self) -> None:
        self.models = self._compiled()
        self._contexts: list[weakref.WeakSet[OpenVinoContext]] = [
            weakref.WeakSet() for _ in self.models
        ]
        self._contexts_lock = threading.Lock()
        # The first tensors that its Python binding makes in a process must not be made by two
        # threads at once: one waits inside of it, holding the interpreter's lock, for another
        # that waits for that lock. So the first runs are here, where there is one thread.
        rows = [[spec.allocate(1).zero_() for spec in self.inputs]]
        try:
            for compiled in self.models:
                OpenVinoContext(self, compiled).run(rows)
        except RuntimeError as error:
            raise EngineError(
                f"openvino cannot run {self.model.path}: {_one_line(error)}"
            ) from error

    def _compiled(self) -> list[openvino.CompiledModel]:
        self.check_host(self.options.precision)
        content = graph_for_cpu(self.model, self.options, largest_weight(max_isa=onednn_max_isa()))
        contexts = fitting_contexts(self.options.num_contexts)
        is_shared = self.options.unbounded or contexts * len(content) > _MOST_WEIGHTS_BYTES
        models, streams = (1, contexts) if is_shared else (contexts, 1)
        settings = self._settings(streams)
        try:
            if self.options.cache_path is None:
                graph = core().read_model(content)
                return [core().compile_model(graph, _DEVICE, settings) for _ in range(models)]
            key = self.cache_key(
                content,
                device=cpu_identity(),
                settings={
                    **{name: str(value) for name, value in settings.items()},
                    "ONEDNN_MAX_CPU_ISA": onednn_max_isa(),
                },
            )

            def compile_for_cache() -> bytes:
                compiled = core().compile_model(core().read_model(content), _DEVICE, settings)
                blob = io.BytesIO()
                compiled.export_model(blob)
                return blob.getvalue()

            blob = load_or_build(
                self.options.cache_path,
                key,
                compile_for_cache,
                secret_file=self.options.cache_key_file,
            )
            return [core().import_model(io.BytesIO(blob), _DEVICE, settings) for _ in range(models)]
        except RuntimeError as error:
            raise EngineError(
                f"openvino cannot load {self.model.path}: {_one_line(error)}"
            ) from error

    def _settings(self, streams: int) -> dict[str, Any]:
        """Everything that shapes the speed; OpenVINO guesses what it is not told."""
        return {
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": streams * self.options.threads_per_context,
            # On a CPU with bf16 the default is bf16, whatever the model holds.
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[self.options.precision],
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            # The number of threads is given above, in logical cores of any kind; pinned threads
            # would get stuck behind others that the scheduler has put on their core.
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
            "SCHEDULING_CORE_TYPE": "ANY_CORE",
        }

    def create_context(self) -> OpenVinoContext:
        """A context for the calling thread: one of the model that has the fewest."""
        with self._contexts_lock:
            number = min(range(len(self.models)), key=lambda it: len(self._contexts[it]))
            compiled = self.models[number]
            runs_alone = compiled.get_property("NUM_STREAMS") == 1
            context = (CallersContext if runs_alone else OpenVinoContext)(self, compiled)
            self._contexts[number].add(context)
        return context

    def forget(self, context: OpenVinoContext) -> None:
        """It is closed, and another one may take its place."""
        with self._contexts_lock:
            for contexts in self._contexts:
                contexts.discard(context)


class OpenVinoContext(CpuContext):
    """An inference request."""

    engine: OpenVinoEngine

    def __init__(self, engine: OpenVinoEngine, compiled: openvino.CompiledModel) -> None:
        super().__init__(engine)
        self.compiled = compiled
        self._request = compiled.create_infer_request()

    def _compute(self, inputs: list[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
        results = self._request.infer(
            dict(enumerate(inputs)), share_inputs=True, share_outputs=True
        )
        return [results[index] for index in range(len(self.engine.outputs))]

    def close(self) -> None:
        """Leave its place at the model to another context."""
        self.engine.forget(self)


class CallersContext(OpenVinoContext):
    """One of a model with one run at a time."""

    any_thread = True


def require_bf16(capabilities: list[str]) -> None:
    """Raise MissingOnHostError unless the CPU computes in bf16.

    Args:
        capabilities: OpenVINO's OPTIMIZATION_CAPABILITIES of the CPU.
    """
    if "BF16" not in capabilities:
        raise MissingOnHostError(
            f"this CPU has no bf16 instructions (AVX512_BF16 or AMX); it runs "
            f"{', '.join(sorted(capabilities))}: use precision fp32"
        )


def _one_line(error: RuntimeError) -> str:
    """OpenVINO's message without the places in its source."""
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(("Exception", "Check ")))
