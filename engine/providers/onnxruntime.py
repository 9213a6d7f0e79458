"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime

from engine.cache.engine_cache import load_or_build
from engine.contexts.cpu_context import CpuContext
from engine.cpu.cores import cpu_identity
from engine.cpu.vnni import largest_weight
from engine.errors import EngineError
from engine.int8.cpu_graph import graph_for_cpu
from engine.interface import Engine
from engine.onnx_graph.optimization import cpu_session, optimized
from interfaces.error_text import first_line


class OnnxRuntimeEngine(Engine):
    """One session for all contexts: `run` may be called from many threads at once."""

    name: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    device: ClassVar[str] = "cpu"
    thread_safe: ClassVar[bool] = True

    session: onnxruntime.InferenceSession

    @property
    def versions(self) -> dict[str, str]:
        """The version of onnxruntime."""
        return {"onnxruntime": onnxruntime.__version__}

    def _load(self) -> None:
        options = self._session_options()
        graph = content = graph_for_cpu(self.model, self.options, largest_weight())
        try:
            if self.options.cache_path is not None:
                key = self.cache_key(graph, device=cpu_identity(), settings={})
                content = load_or_build(
                    self.options.cache_path,
                    key,
                    lambda: optimized(graph, for_this_cpu=True),
                    secret_file=self.options.cache_key_file,
                )
                options.graph_optimization_level = (
                    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
                )
            self.session = cpu_session(content, options)
        except EngineError:
            raise
        except Exception as error:
            # onnxruntime's own exception classes share no other base.
            raise EngineError(
                f"onnxruntime cannot load {self.model.path}: {first_line(error)}"
            ) from error

    def _session_options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        contexts, threads = self.options.num_contexts, self.options.threads_per_context
        # The pool is shared and holds one thread less than this number; every thread that calls
        # `run` works, too. Together they are contexts x threads.
        options.intra_op_num_threads = contexts * (threads - 1) + 1
        options.inter_op_num_threads = 1
        if contexts > 1 or threads == 1:
            # A pool thread that spins takes its core from the other contexts.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def create_context(self) -> OnnxRuntimeContext:
        """A context for the calling thread."""
        return OnnxRuntimeContext(self)


class OnnxRuntimeContext(CpuContext):
    """One run at a time of the shared session."""

    any_thread = True
    engine: OnnxRuntimeEngine

    def _compute(self, inputs: list[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
        names = [spec.name for spec in self.engine.inputs]
        outputs: list[npt.NDArray[np.generic]] = self.engine.session.run(
            None, dict(zip(names, inputs, strict=True))
        )
        return outputs
