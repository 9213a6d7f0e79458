"""The graph that an engine for the CPU reads."""

from __future__ import annotations

import logging

from engine.cpu.vnni import LARGEST_OF_7_BITS
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions

_logger = logging.getLogger(__name__)


def graph_for_cpu(model: OnnxModel, options: EngineOptions, largest_weight: int) -> bytes:
    """What an engine for the CPU reads: the model as it is, or its int8 graph.

    Args:
        model: see `quantized_graph`.
        options: see `quantized_graph`.
        largest_weight: that the engine takes in int8; see `engine.cpu.vnni`.

    Raises:
        EngineError: see `quantized_graph`.
    """
    if options.precision != "int8":
        return model.serialized()
    # Here, since onnxruntime's quantiser would make each other start longer.
    from engine.int8.quantization import quantized_graph

    if largest_weight == LARGEST_OF_7_BITS:
        _logger.info(
            "int8: weights of %s have 7 bits, as the CPU has no VNNI (or ONEDNN_MAX_CPU_ISA "
            "forbids it) and sums of products of 8 bits would saturate",
            model.name,
        )
    graph = quantized_graph(model, options, symmetric=False, largest_weight=largest_weight)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content
