"""What is measured on this machine fills in what a document leaves open of the engine's node."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.calibration.choice import SIZES
from engine.calibration.kept import kept_or_measured
from engine.calibration.measurement import CannotMeasureError, Open
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
"""The keys that a measurement can fill in."""

_logger = logging.getLogger(__name__)


def open_keys(node: NodeConfig) -> list[str]:
    """Those of FILLED_IN that the engine's node has neither of its own nor from the globals."""
    own = _engine_backend(node).own
    return [key for key in FILLED_IN if node.origins[key] == "default" and key not in own]


def calibrated(
    node: NodeConfig, keys: list[str], engine: str, model: OnnxModel
) -> tuple[dict[str, Any], str]:
    """What suits this machine, measured now or at an earlier start.

    Args:
        node: the engine's node.
        keys: those of FILLED_IN that are open.
        engine: as `--engine` names it.
        model: that of the node.

    Returns:
        Values of the keys, none where nothing could be measured; and in one line what was chosen
        and why.
    """
    settings = _engine_backend(node).settings
    if runs_on_gpu(node.backend, node.settings, engine):
        return {}, "the defaults: batches on a GPU are not measured"
    choice = chosen_engine(settings, engine)
    if _most_rows(settings["min"]) > 1:
        # A smaller batch would contradict it.
        keys = [key for key in keys if key != _MAX]
    asked = _asked(node, keys, settings, choice, model)
    if asked.is_decided:
        return _values(keys, settings, asked.sizes[0], asked.contexts[0]), (
            f"nothing to measure: {asked.contexts[0]} instances, as suits the engine and the cores"
        )

    def load(rows: int, contexts: int) -> Engine:
        if any(it.op_type == "Loop" for it in nodes_within(model.proto.graph)):
            # Only the warm-up of a server has a time limit for that.
            raise EngineError("the model has a loop, which may have no end")
        wanted = {**settings, _MAX: _with_rows(settings[_MAX], rows)} if _MAX in keys else settings
        config = InstanceConfig(node.name, wanted, contexts, engine, SharedResources())
        options = engine_options(config, choice.precision)
        return load_engine(choice, prepared_model(model, settings), options)

    try:
        found = kept_or_measured(asked, _key(settings, choice, model), load)
    except CannotMeasureError as error:
        line = f"the defaults: nothing is measured, because {error}"
        _logger.info("[%s] %s", node.name, line)
        return {}, line
    _logger.info("[%s] %s", node.name, found.reason)
    return _values(keys, settings, found.batch, found.contexts), found.reason


def _asked(
    node: NodeConfig,
    keys: list[str],
    settings: Mapping[str, Any],
    choice: EngineChoice,
    model: OnnxModel,
) -> Open:
    if _MAX not in keys:
        # Larger ones take longer to measure, and tell the same of the contexts.
        sizes: tuple[int, ...] = (min(_most_rows(settings[_MAX]), SIZES[-1]),)
    elif model.trial.only_alone:
        sizes = (1,)
    else:
        sizes = SIZES
    if _INSTANCES not in keys:
        return Open(sizes, (fitting_instances(choice, node.instance_num),))
    # One a core, and what the engine is known to like, which comes first.
    contexts = dict.fromkeys([suggested_instances(choice), available_cores()])
    return Open(sizes, tuple(contexts))


def _values(
    keys: list[str], settings: Mapping[str, Any], batch: int, contexts: int
) -> dict[str, Any]:
    values: dict[str, Any] = {_INSTANCES: contexts}
    if _MAX in keys:
        values[_MAX] = str(_with_rows(settings[_MAX], batch))
    return {key: values[key] for key in keys}


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
