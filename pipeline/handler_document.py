"""The TOML document that the service's options ask for: a file with changes on top."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from engine.classifier import classifier_input_size, classifier_normalization, classifier_output
from engine.cpu.cores import available_cores
from engine.onnx_graph.activations import AUTO
from engine.onnx_graph.model import OnnxModel
from engine.registry import (
    EngineChoice,
    choose_engine,
    suggested_batch_size,
    suggested_instances,
)
from engine.zoo import open_model
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.calibrated_node import FILLED_IN, calibrated, open_keys
from pipeline.config import NodeConfig, PipelineConfig, parse_config
from pipeline.errors import PipelineConfigError
from pipeline.language.document import apply_overrides, read_toml
from pipeline.language.node_tables import normal_form
from service.handlers.interface import HandlerSettings

_TEMPLATES = {"cpu": "resnet50_cpu.toml", "gpu": "resnet50_gpu.toml"}


def handler_document(settings: HandlerSettings) -> dict[str, Any]:
    """The document that the settings ask for.

    Without `--config` the shipped file that `--decode` names is a template: model, normalisation
    and image size come from the model, and the largest batch and the instances are what suits the
    engine. With it the file is taken at its word, and `--model`, `--mean`, `--std`, `--precision`,
    `--output`, `--output-activation` and `--calibration-images` replace only what they name. Of a
    model with several outputs the one that scores the classes is served. `--set` comes last, but
    its model and output of the template's node count as `--model` and `--output` do.

    Raises:
        PipelineConfigError: the file has a mistake, or not one node with a model.
        EngineError: the engine, its precision or the model cannot be had.
    """
    return _document(settings)[0]


def calibrated_document(settings: HandlerSettings) -> tuple[dict[str, Any], str]:
    """The same, with what a measurement says of the largest batch and the instances of the engine.

    It decides what neither the file nor `--set` does; the shipped file leaves both open.

    Returns:
        The document; and in one line what was chosen and why.

    Raises:
        PipelineConfigError, EngineError: as `handler_document` does.
    """
    document, model = _document(settings)
    if settings.calibrate == "off":
        return document, "off: the defaults"
    config = parse_config(document)
    name = engine_node(config)
    node = config.nodes[name]
    keys = open_keys(node)
    if settings.config is None:
        keys = [key for key in FILLED_IN if not _is_overridden(key, node, settings.overrides)]
    if not keys:
        return document, f"nothing to decide: [{name}] has its {' and '.join(FILLED_IN)}"
    if model is None:
        model = open_model(node.settings["model"])
    values, line = calibrated(node, keys, settings.engine, model)
    return _merged(document, {name: values}), line


def _is_overridden(key: str, node: NodeConfig, overrides: Mapping[str, str]) -> bool:
    is_global = node.origins[key] == "global" and key in overrides
    return is_global or f"{node.name}.{key}" in overrides


def _document(settings: HandlerSettings) -> tuple[dict[str, Any], OnnxModel | None]:
    """The document, and the model where it was opened for it."""
    is_template = settings.config is None
    document = _file(settings)
    # A mistake in the file is reported before a model is exported, which may take minutes.
    node = engine_node(parse_config(document))
    choice = choose_engine(settings.engine, settings.precision)
    overrides = settings.overrides
    model = None
    if is_template or settings.model is not None or settings.weights is not None:
        assigned = _assigned_texts(node, overrides)
        model = open_model(assigned.get("model", settings.model), settings.weights)
        document = _merged(document, {node: {"model": str(model.path)}})
        if "model" in assigned:
            overrides = {k: value for k, value in overrides.items() if k != f"{node}.model"}
        if is_template:
            output = assigned.get("output", settings.output)
            document = _fitted(document, node, settings, model, output, choice)
    if "output" not in {**document, **document[node]}:
        document = _merged(document, {node: {"output": AUTO}})
    if settings.reduced_decoding:
        document = _with_reduced_decoding(document)
    return apply_overrides(_merged(document, _options(node, settings)), overrides), model


def outline_document(settings: HandlerSettings) -> dict[str, Any]:
    """The same document as far as it can be known before a model is opened.

    Raises:
        PipelineConfigError: as `handler_document`.
    """
    document = _file(settings)
    node = engine_node(parse_config(document))
    return apply_overrides(_merged(document, _options(node, settings)), settings.overrides)


def engine_node(config: PipelineConfig) -> str:
    """The one node that runs a model."""
    nodes = config.with_instances.items()
    names = [name for name, node in nodes if ENGINE_BACKEND in node.backend.names()]
    if len(names) != 1:
        raise PipelineConfigError(
            "the service classifies with one model: the configuration needs exactly one node "
            f"with {ENGINE_BACKEND}, got {', '.join(names) or 'none'}"
        )
    return names[0]


def _file(settings: HandlerSettings) -> dict[str, Any]:
    """The file that `--config` names, or the template."""
    path = settings.config or files("pipeline") / "configs" / _TEMPLATES[settings.decode]
    return normal_form(read_toml(str(path)))


def _fitted(
    document: Mapping[str, Any],
    node: str,
    settings: HandlerSettings,
    model: OnnxModel,
    output: str | None,
    choice: EngineChoice,
) -> dict[str, Any]:
    """The template with the values that suit the model, the engine and the cores."""
    height, width = classifier_input_size(model)
    normalization = classifier_normalization(model, settings.mean, settings.std)
    engine: dict[str, Any] = {
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "min": f"1x3x{height}x{width}",
        "max": f"{suggested_batch_size(choice)}x3x{height}x{width}",
    }
    if len(model.outputs) > 1 or output is not None:
        wanted = None if output == AUTO else output
        engine["output"] = classifier_output(model, wanted).outputs[0].name
    size = {"resize_h": height, "resize_w": width}
    changes: dict[str, Any] = {
        name: size
        for name, table in document.items()
        if isinstance(table, Mapping) and "resize_h" in table
    }
    if settings.decode == "cpu":
        # Instances of the engine as it needs them, and of the other nodes one a core; a worker
        # has its share of the cores.
        instances, cores = suggested_instances(choice), available_cores()
        changes["instance_num"] = max(instances, cores)
        if instances < cores:
            engine["instance_num"] = instances
    return _merged(_merged(document, changes), {node: engine})


def _options(node: str, settings: HandlerSettings) -> dict[str, Any]:
    """What the command line replaces in any file."""
    engine = {
        "mean": None if settings.mean is None else list(settings.mean),
        "std": None if settings.std is None else list(settings.std),
        "output": settings.output,
        "output_activation": settings.output_activation,
        "calibration_images": settings.calibration_images,
        "precision": settings.precision,
    }
    changes: dict[str, Any] = {node: {k: value for k, value in engine.items() if value is not None}}
    if settings.devices:
        changes["device_id"] = ",".join(map(str, settings.devices))
    return changes


def _with_reduced_decoding(document: Mapping[str, Any]) -> dict[str, Any]:
    nodes = parse_config(document).with_instances.items()
    decoders = [name for name, node in nodes if "DecodeMat" in node.backend.names()]
    if not decoders:
        raise PipelineConfigError(
            "--reduced-decoding: no node has DecodeMat, which alone decodes so; leave it out"
        )
    return _merged(document, {name: {"reduced": True} for name in decoders})


def _merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A new document: global values replaced, and values of tables one by one."""
    merged = dict(document)
    for key, value in changes.items():
        merged[key] = {**document[key], **value} if isinstance(value, Mapping) else value
    return merged


def _assigned_texts(node: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """The texts that overrides give a node, by key; values of another kind are refused later."""
    own = {key: value for key, value in overrides.items() if key.startswith(f"{node}.")}
    table = apply_overrides({node: {}}, own)[node]
    return {key: value for key, value in table.items() if isinstance(value, str)}
