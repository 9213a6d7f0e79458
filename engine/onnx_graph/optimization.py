"""onnxruntime as a tool on graphs: optimizing them, and running them on the CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime

_CPU = ["CPUExecutionProvider"]
_ERRORS_ONLY = 3


def cpu_session(
    content: bytes, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A session that runs a serialized model on the CPU, and logs errors only.

    Args:
        content: the model.
        options: of the session; None for onnxruntime's own, with threads that sleep between runs:
            in a loop they would take the cores from what the caller does there.
    """
    if options is None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(content, options, providers=_CPU)


def optimized(content: bytes, *, for_this_cpu: bool) -> bytes:
    """A serialized model, optimized.

    Args:
        content: the model.
        for_this_cpu: True for a graph that only onnxruntime on this CPU can read; False for one in
            standard operators, in which constants and BatchNormalization are folded.
    """
    options = onnxruntime.SessionOptions()
    if not for_this_cpu:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        options.optimized_model_filepath = str(path)
        cpu_session(content, options)
        return path.read_bytes()
