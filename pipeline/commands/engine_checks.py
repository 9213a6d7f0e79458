"""What a node with a model needs, found without loading the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engine.cache.bounded_file import why_no_file, why_no_folder
from engine.int8.calibration import calibrated_size
from engine.onnx_graph.layer_names import named_layers
from engine.onnx_graph.model import OnnxModel
from engine.registry import EngineChoice, check_sizes, loading_errors
from engine.zoo import ZOO_NAMES, outline
from interfaces.names import unknown_name
from pipeline.backends.assembly import ConfiguredBackend
from pipeline.backends.engine_settings import (
    batch_shapes,
    check_shapes,
    engine_options,
    normalization,
)
from pipeline.backends.inference import (
    ENGINE_BACKEND,
    chosen_engine,
    prepared_model,
)
from pipeline.backends.interface import InstanceConfig, SharedResources
from pipeline.backends.postprocessing import check_activation
from pipeline.config import NodeConfig
from pipeline.errors import PipelineConfigError
from pipeline.findings import Findings
from pipeline.language.settings import BatchShape

_MIB_BYTES = 2**20


def check_engine(
    node: NodeConfig, backend: ConfiguredBackend, engine: str, findings: Findings
) -> None:
    """Add what loading the node's model would be refused for.

    The model's file is read, and its graph is looked at; nothing is run.

    Args:
        node: it has the backend.
        backend: that of the model.
        engine: a provider's name or "auto".
        findings: where it goes.
    """
    settings, where = dict(backend.settings), f"[{node.name}]"
    if findings.of(where, lambda: _check_normalization(settings)) is None:
        settings["mean"] = settings["std"] = None
    findings.of(where, lambda: check_activation(settings))
    shapes = findings.of(where, lambda: batch_shapes(settings))
    model = findings.of(where, lambda: _untried_model(settings["model"]))
    if model is not None:
        model = _check_model(model, settings, shapes, where, findings)
    wanted = settings["precision"]
    choice = findings.of(where, lambda: chosen_engine(settings, engine))
    if choice is None:
        # What is missing beside it is told, too.
        choice = EngineChoice("onnxruntime", wanted or "fp32", "")
    elif wanted not in (None, choice.precision):
        findings.warnings.append(
            f"{where} precision = {wanted!r}: the engine of this host, {choice.name}, runs "
            f"{choice.precision} instead"
        )
    if model is not None:
        for check in _precision_checks(model, choice, settings):
            findings.of(where, check)
    if shapes is None:
        settings["min"] = settings["max"] = BatchShape(1)
    instance = InstanceConfig(node.name, settings, node.instance_num, engine, SharedResources())
    options = findings.of(where, lambda: engine_options(instance, choice.precision))
    for error in () if options is None else loading_errors(choice, options):
        findings.add(where, error)
    findings.warnings += [f"{where} {text}" for text in _doubtful_settings(settings, choice)]


def _check_normalization(settings: dict[str, Any]) -> bool:
    """True where mean and std are fine; EngineError where they are not."""
    normalization(settings)
    return True


def _untried_model(model: str | None) -> OnnxModel:
    """A model's graph; PipelineConfigError or EngineError where there is none."""
    if model is None:
        raise PipelineConfigError(
            f"model is missing: {ENGINE_BACKEND} needs an ONNX file, or one of "
            f"{', '.join(ZOO_NAMES)}"
        )
    if model in ZOO_NAMES:
        return outline(model)
    path = Path(model)
    if not path.suffix and path.name == model and not os.path.lexists(path):
        hint = unknown_name("model", model, ZOO_NAMES)
        raise PipelineConfigError(f"model = {model!r}: {hint}, or a path to an ONNX file")
    if reason := why_no_file(path):
        raise PipelineConfigError(f"model = {model!r}: {reason}")
    # Trying it out would run it.
    return OnnxModel.load(path, is_ours=True)


def _check_model(
    model: OnnxModel,
    settings: dict[str, Any],
    shapes: list[tuple[BatchShape, BatchShape]] | None,
    where: str,
    findings: Findings,
) -> OnnxModel | None:
    """Add what in the settings does not suit the model; one mistake hides no other.

    Returns:
        The model as an engine gets it; None where it cannot be made so.
    """
    plain = {
        **dict.fromkeys(("output", "mean", "std", "model::layout", "model::color")),
        "min": BatchShape(1),
        "max": BatchShape(1),
    }
    output = {**plain, "output": settings["output"]}
    if findings.of(where, lambda: prepared_model(model, output)) is None:
        settings["output"] = None
    prepared = findings.of(where, lambda: prepared_model(model, settings))
    if prepared is None:
        return None
    fits = shapes is None or findings.of(where, lambda: check_shapes(shapes, prepared.inputs))
    findings.of(where, lambda: settings["postprocessor"].check(prepared))
    if fits:
        # From shapes that do not fit it a model gets no sizes.
        findings.of(where, lambda: check_sizes(prepared))
    return prepared


def _precision_checks(
    model: OnnxModel, choice: EngineChoice, settings: dict[str, Any]
) -> Iterator[Callable[[], object]]:
    """What raises where the precision does not suit the model."""
    if choice.precision == "int8":
        yield partial(calibrated_size, model)
    # Of a packaged model only the inputs and outputs are known here.
    names_layers = choice.precision == "int8" or choice.name == "tensorrt"
    if names_layers and settings["model"] not in ZOO_NAMES:
        for setting in ("precision::fp32", "precision::fp16"):
            yield partial(named_layers, model.proto, settings[setting], setting)


def _doubtful_settings(settings: dict[str, Any], choice: EngineChoice) -> list[str]:
    """What may not be meant."""
    found = []
    size = settings["max_workspace_size"]
    if size >= _MIB_BYTES:
        found.append(
            f"max_workspace_size = {size} is in MiB; if bytes were meant, write "
            f"{max(1, size // _MIB_BYTES)}"
        )
    folder = settings["calibration_images"]
    if folder and choice.precision != "int8" and (reason := why_no_folder(Path(folder))):
        found.append(f"calibration_images = {folder!r}: {reason}, as int8 would need it")
    cache = settings["model::cache"]
    if cache and not why_no_folder(parent := Path(cache).parent) and not os.access(parent, os.W_OK):
        found.append(
            f"model::cache = {cache!r} cannot be written: the engine is prepared at every start"
        )
    return found
