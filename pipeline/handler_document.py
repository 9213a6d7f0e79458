"""The TOML document that the service's options ask for: a file with changes on top."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from engine.classifier import (
    classifier_input,
    classifier_normalization,
    classifier_output,
    input_size,
)
from engine.cpu.cores import available_cores
from engine.onnx_graph.activations import AUTO
from engine.onnx_graph.model import OnnxModel
from engine.registry import (
    EngineChoice,
    choose_engine,
    suggested_batch_size,
    suggested_instances,
)
from engine.resizing import Resizing
from engine.zoo import DEFAULT_MODEL, ZOO_NAMES, open_model
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.backends.opencv import RESIZE_SHORTER
from pipeline.calibrated_node import FILLED_IN, calibrated, open_keys
from pipeline.config import NodeConfig, PipelineConfig, parse_config
from pipeline.decoding_place import CPU, GPU, DecodingPlace, decoding_place
from pipeline.errors import PipelineConfigError
from pipeline.language.document import apply_overrides, read_toml
from pipeline.language.node_tables import normal_form
from service.handlers.handler_settings import HandlerSettings

OPTIONS = (
    "model weights mean std output output_activation config decode engine precision "
    "calibration_images skip_bad_images layout color input_size resize crop"
)
"""Names of the settings that a document and its engine follow from, but for `set`."""
_TEMPLATES = {CPU: "resnet50_cpu.toml", GPU: "resnet50_gpu.toml"}
# What of a template's operators keeps the aspect ratio, for --resize.
_RESIZE, _RESIZE_CROP = "ResizeMat", "ResizeCropMat"


def handler_document(settings: HandlerSettings) -> dict[str, Any]:
    """The document that the settings ask for.

    Without `--config` the shipped file that `--decode` names is a template: model, normalisation
    and image size come from the model, the largest batch and the instances are what suits the
    engine, and the engine's node is called after the model. With it the file is taken at its word,
    and `--model`, `--mean`, `--std`, `--precision`, `--layout`, `--color`, `--output`,
    `--output-activation` and `--calibration-images` replace only what they name. Of a model with
    several outputs the one that scores the classes is served. `--set` comes last, but its model and
    output of the template's node count as `--model` and `--output` do; it may call that node as the
    template or as the model.

    Raises:
        PipelineConfigError: the file has a mistake, or not one node with a model.
        EngineError: the engine, its precision or the model cannot be had.
    """
    return _document(settings)[0]


def calibrated_document(settings: HandlerSettings) -> tuple[dict[str, Any], str]:
    """The same, with the largest batch and the instances of the engine that suit this machine.

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
        overrides = _asked(settings).overrides
        keys = [key for key in FILLED_IN if not _is_overridden(key, node, overrides)]
    if not keys:
        return document, f"nothing to decide: [{name}] has its {' and '.join(FILLED_IN)}"
    if model is None:
        model = open_model(node.settings["model"])
    shared = None if settings.shared_folder is None else Path(settings.shared_folder)
    values, line = calibrated(node, keys, settings.engine, model, shared)
    return _merged(document, {name: values}), line


def _is_overridden(key: str, node: NodeConfig, overrides: Mapping[str, str]) -> bool:
    is_global = node.origins[key] == "global" and key in overrides
    return is_global or f"{node.name}.{key}" in overrides


class _Asked(NamedTuple):
    """What the settings name before a model is opened.

    Attributes:
        document: the file, or the template with its engine's node called after the model.
        node: the engine's node.
        overrides: those of `--set`, in these names.
    """

    document: dict[str, Any]
    node: str
    overrides: Mapping[str, str]


def _asked(settings: HandlerSettings) -> _Asked:
    document = normal_form(read_toml(settings.config or _template(_place(settings).name)))
    # A mistake in the file is reported before a model is exported, which may take minutes.
    node = engine_node(parse_config(document))
    overrides = settings.overrides
    if settings.config is not None:
        return _Asked(document, node, overrides)
    model = _assigned_texts(node, overrides).get("model", settings.model) or DEFAULT_MODEL
    name = _node_name(model, document.keys() - {node})
    renamed = {name if key == node else key: value for key, value in document.items()}
    for key, table in renamed.items():
        if isinstance(table, Mapping) and table.get("next") == node:
            renamed[key] = {**table, "next": name}
    prefix = f"{node}."
    overrides = {
        f"{name}.{key.removeprefix(prefix)}" if key.startswith(prefix) else key: value
        for key, value in overrides.items()
    }
    return _Asked(_merged(renamed, {name: {"model": model}}), name, overrides)


def _template(place: str) -> str:
    return str(files("pipeline") / "configs" / _TEMPLATES[place])


def _place(settings: HandlerSettings) -> DecodingPlace:
    """Where the template decodes."""
    cpu, gpu = (
        {key for key, value in read_toml(_template(place)).items() if isinstance(value, Mapping)}
        for place in (CPU, GPU)
    )
    return decoding_place(settings, cpu - gpu)


def _node_name(model: str, taken: Collection[str]) -> str:
    """What the node of a model is called: as the model, in characters that names have."""
    stem = model if model in ZOO_NAMES else Path(model).stem
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_") or "model"
    return f"{name}_model" if name in taken else name


def _document(settings: HandlerSettings) -> tuple[dict[str, Any], OnnxModel | None]:
    """The document, and the model where it was opened for it."""
    is_template = settings.config is None
    document, node, overrides = _asked(settings)
    choice = choose_engine(settings.engine, settings.precision)
    model = None
    if is_template or settings.model is not None or settings.weights is not None:
        assigned = _assigned_texts(node, overrides)
        name = assigned.get("model", settings.model)
        size = settings.input_size or settings.crop
        model = open_model(name, settings.weights, size, settings.layout)
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
    document, node, overrides = _asked(settings)
    return apply_overrides(_merged(document, _options(node, settings)), overrides)


def resize_in_words(document: Mapping[str, Any], settings: HandlerSettings) -> str:
    """How images come to the model's size, for `server_info`.

    Args:
        document: what `handler_document` gave for the settings.
        settings: the settings.
    """
    tables = [it for it in document.values() if isinstance(it, Mapping) and "resize_h" in it]
    if settings.config is not None or len(tables) != 1:
        return "as the configuration says"
    (table,) = tables
    return str(Resizing(table["resize_h"], table["resize_w"], table.get(RESIZE_SHORTER)))


def place_of_decoding(settings: HandlerSettings) -> DecodingPlace | None:
    """Where images are decoded, and why there; None where a file of one's own decides it."""
    return None if settings.config is not None else _place(settings)


def overrides_of(settings: HandlerSettings) -> Mapping[str, str]:
    """Those of `--set`, with the names that the nodes of `outline_document` have."""
    return _asked(settings).overrides


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


def _fitted(
    document: Mapping[str, Any],
    node: str,
    settings: HandlerSettings,
    model: OnnxModel,
    output: str | None,
    choice: EngineChoice,
) -> dict[str, Any]:
    """The template with the values that suit the model, the engine and the cores."""
    engine: dict[str, Any] = {}
    if len(model.outputs) > 1 or output is not None:
        model = classifier_output(model, None if output == AUTO else output)
        engine["output"] = model.outputs[0].name
    image = classifier_input(
        model, settings.layout, settings.color, settings.input_size, settings.crop
    )
    normalization = classifier_normalization(image, settings.mean, settings.std)
    resizing = Resizing.of(input_size(image), settings.resize, settings.crop)
    shape = "x".join(map(str, image.inputs[0].item_shape))
    engine |= {"min": f"1x{shape}", "max": f"{suggested_batch_size(choice)}x{shape}"}
    # With them the model takes R, G and B whatever its file wants; bytes stay as they are.
    mean, std = ([0], [1]) if normalization is None else (normalization.mean, normalization.std)
    engine |= {"mean": list(mean), "std": list(std)}
    # A template's own precision is what suits a GPU.
    changes: dict[str, Any] = {"precision": choice.precision, **_resized(document, resizing)}
    if _place(settings).name == CPU:
        # Instances of the engine as it needs them, and of the other nodes one a core; a worker
        # has its share of the cores.
        instances, cores = suggested_instances(choice), available_cores()
        changes["instance_num"] = max(instances, cores)
        if instances < cores:
            engine["instance_num"] = instances
    return _merged(_merged(document, changes), {node: engine})


def _resized(document: Mapping[str, Any], resizing: Resizing) -> dict[str, Any]:
    """What changes in the nodes of a template that resize."""
    changes: dict[str, Any] = {}
    for name, table in document.items():
        if not isinstance(table, Mapping) or "resize_h" not in table:
            continue
        changes[name] = {"resize_h": resizing.height, "resize_w": resizing.width}
        if resizing.shorter_side is None:
            continue
        expression = re.sub(rf"\b{_RESIZE}\b", _RESIZE_CROP, table["backend"])
        if expression == table["backend"]:
            raise PipelineConfigError(
                "--resize: images that are decoded on the GPU are resized there, to the model's "
                "size whatever their aspect ratio; leave out --decode gpu or --resize"
            )
        changes[name] |= {"backend": expression, RESIZE_SHORTER: resizing.shorter_side}
    return changes


def _options(node: str, settings: HandlerSettings) -> dict[str, Any]:
    """What the command line replaces in any file."""
    engine = {
        "mean": None if settings.mean is None else list(settings.mean),
        "std": None if settings.std is None else list(settings.std),
        "model::layout": settings.layout,
        "model::color": settings.color,
        "output": settings.output,
        "output_activation": settings.output_activation,
        "calibration_images": settings.calibration_images,
        "calibration_resize": settings.resize,
        "skip_bad_images": settings.skip_bad_images or None,
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
