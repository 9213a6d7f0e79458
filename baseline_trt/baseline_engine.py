"""Which engine stands behind the lock: torch2trt's where it can, else the one that was chosen."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from baseline_trt.torch2trt_engine import Torch2TrtEngine
from engine.errors import EngineError
from engine.interface import Engine
from engine.onnx_graph.model import OnnxModel
from engine.options import BatchProfile, EngineOptions
from engine.registry import EngineChoice, load_engine
from engine.zoo.store import ZOO

_logger = logging.getLogger(__name__)


def load_baseline_engine(
    choice: EngineChoice, model: OnnxModel, options: EngineOptions, name: str, weights: str | None
) -> Engine:
    """Load the baseline's engine, and log the fallback for the quick-start's.

    Args:
        choice: the engine that the user or `auto` has chosen. TensorRT means torch2trt where
            that works, and else TensorRT by itself.
        model: the model as ONNX.
        options: how to run it.
        name: the model's name in the zoo, or its file.
        weights: state-dict file for a model of the zoo, or None for its own.

    Raises:
        EngineError: the engine cannot load the model.
    """
    if choice.name != "tensorrt":
        # Where there is no GPU it could not be anything else.
        level = logging.DEBUG if choice.device == "cpu" else logging.INFO
        _logger.log(level, "engine %s is the fallback for torch2trt", choice.name)
        return load_engine(choice, model, options)
    # As torch2trt does with the quick-start's sample: kernels for one image, room for more.
    profile = BatchProfile(1, options.max_batch_size, usual_rows=1)
    options = replace(options, precision=choice.precision, profiles=(profile,))
    reason = why_not_torch2trt(name, choice.precision)
    if model.image_format is not None and not model.image_format.is_usual:
        reason = f"the graph prepares its image: {model.image_format}"
    if reason is None:
        try:
            network = ZOO[name].build(None if weights is None else Path(weights))
            return Torch2TrtEngine(model, options, network)
        except EngineError as error:
            reason = str(error)
    _logger.info("TensorRT by itself is the fallback for torch2trt: %s", reason)
    return load_engine(choice, model, options)


def why_not_torch2trt(name: str, precision: str) -> str | None:
    """Why torch2trt cannot make the engine, or None where it is worth trying.

    Args:
        name: the model's name in the zoo, or its file.
        precision: the precision to run.
    """
    if find_spec("torch2trt") is None:
        return "it is not installed (it has no release on PyPI; see its own repository)"
    if name not in ZOO:
        return f"it converts networks of torch, and {name} is an ONNX file"
    if precision not in Torch2TrtEngine.precisions:
        return f"it runs {' or '.join(Torch2TrtEngine.precisions)}, not {precision}"
    return None
