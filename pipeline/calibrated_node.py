"""What is measured on this machine fills in what a document leaves open of the engine's node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.calibration.choice import SIZES
from engine.calibration.kept import kept_or_measured
from engine.calibration.measurement import CannotMeasureError, Open, measure
from engine.cpu.cores import available_cores, cpu_identity
from engine.errors import EngineError
from engine.interface import Engine
from engine.onnx_graph.model import OnnxModel
from engine.onnx_graph.tensors import nodes_within
from engine.registry import (
    EngineChoice,
    fitting_instances,
    load_engine,
    package_of,
    suggested_instances,
)
from interfaces.versions import package_versions
from pipeline.backends.assembly import ConfiguredBackend, runs_on_gpu
from pipeline.backends.engine_settings import engine_options
from pipeline.backends.inference import ENGINE_BACKEND, chosen_engine, prepared_model
from pipeline.backends.interface import InstanceConfig, SharedResources
from pipeline.backends.registry import backend_class
from pipeline.config import NodeConfig
from pipeline.language.settings import BatchShape

_MAX, _INSTANCES = "max", "instance_num"
FILLED_IN = (_MAX, _INSTANCES)
"""The keys that the machine can decide."""

_logger = logging.getLogger(__name__)


def open_keys(node: NodeConfig) -> list[str]:
    """Those of FILLED_IN that the engine's node has neither of its own nor from the globals."""
    own = _engine_backend(node).own
    return [key for key in FILLED_IN if node.origins[key] == "default" and key not in own]


def calibrated(
    node: NodeConfig, keys: list[str], engine: str, model: OnnxModel, start_folder: Path | None
) -> tuple[dict[str, Any], str]:
    """What suits this machine, measured now or at an earlier start.

    Args:
        node: the engine's node.
        keys: those of FILLED_IN that are open.
        engine: as `--engine` names it.
        model: that of the node.
        start_folder: as for `kept_or_measured`.

    Returns:
        Values of the keys, without `max` where it could not be measured; and in one line what was
        chosen and why.
    """
    settings = _engine_backend(node).settings
    if runs_on_gpu(node.backend, node.settings, engine):
        return {}, "the defaults: batches on a GPU are not measured"
    choice = chosen_engine(settings, engine)
    if _most_rows(settings["min"]) > 1:
        # A smaller batch would contradict it.
        keys = [key for key in keys if key != _MAX]
    values: dict[str, Any] = {}
    contexts = fitting_instances(choice, node.instance_num)
    if _INSTANCES in keys:
        values[_INSTANCES] = contexts = suggested_instances(choice)
    if _MAX in keys and model.trial.only_alone:
        values[_MAX] = str(_with_rows(settings[_MAX], 1))
    if _MAX not in keys or _MAX in values:
        why = "one for each core" if _INSTANCES in keys else "as it says"
        return values, f"nothing to measure: {contexts} instances, {why}"

    asked = Open(SIZES, contexts)

    def load(rows: int) -> Engine:
        if any(it.op_type == "Loop" for it in nodes_within(model.proto.graph)):
            # Only the warm-up of a server has a time limit for that.
            raise EngineError("the model has a loop, which may have no end")
        wanted = {**settings, _MAX: _with_rows(settings[_MAX], rows)}
        config = InstanceConfig(node.name, wanted, contexts, engine, SharedResources())
        options = engine_options(config, choice.precision)
        return load_engine(choice, prepared_model(model, settings), options)

    try:
        found = kept_or_measured(
            asked,
            _key(settings, choice, model),
            start_folder,
            lambda: measure(asked, load, _decoding()),
        )
    except CannotMeasureError as error:
        line = f"the default for max: nothing is measured, because {error}"
        _logger.info("[%s] %s", node.name, line)
        return values, line
    _logger.info("[%s] %s", node.name, found.reason)
    values[_MAX] = str(_with_rows(settings[_MAX], found.batch))
    return values, found.reason


def _decoding() -> Callable[[], object]:
    """What decodes an image of the usual size: 500 x 375 pixels, some 90 KB."""
    numbers = np.random.default_rng(0)
    coarse = numbers.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
    noisy = (image + numbers.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    return partial(cv2.imdecode, cv2.imencode(".jpg", noisy)[1], cv2.IMREAD_COLOR)


def _with_rows(shape: BatchShape, rows: int) -> BatchShape:
    return replace(shape, rows=rows)


def _most_rows(shapes: BatchShape | tuple[BatchShape, ...]) -> int:
    return max(it.rows for it in ((shapes,) if isinstance(shapes, BatchShape) else shapes))


def _engine_backend(node: NodeConfig) -> ConfiguredBackend:
    wanted = backend_class(ENGINE_BACKEND)
    return next(it for it in node.backends() if it.cls is wanted)


def _key(settings: Mapping[str, Any], choice: EngineChoice, model: OnnxModel) -> dict[str, str]:
    """All that a measurement depends on."""
    names = (
        "mean",
        "std",
        "model::layout",
        "model::color",
        "output",
        "min",
        "max",
        "precision::fp32",
        "model::cache",
    )
    return {
        "model": model.sha256,
        "settings": ", ".join(f"{name} = {settings[name]}" for name in names),
        "engine": choice.name,
        "precision": choice.precision,
        "device": cpu_identity(),
        "cores": str(available_cores()),
        **package_versions(["thriftpipe", "torch", package_of(choice)]),
    }
