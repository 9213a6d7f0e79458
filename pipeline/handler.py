"""The pipeline handler: every image is one item of a `pipe`, whose instances batch them."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from engine.classifier import classifier_input_size, classifier_normalization, probabilities
from engine.cpu import available_cores
from engine.interface import Engine, EngineError
from engine.registry import (
    EngineChoice,
    choose_engine,
    stand_in_precision,
    suggested_batch_size,
    suggested_instances,
)
from engine.zoo import open_model
from pipeline.assembly import settings_of
from pipeline.backend_file import load_backends
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.config import PipelineConfig, apply_overrides, parse_config, read_toml
from pipeline.engine_facts import EngineFacts
from pipeline.engine_process.finder import connect
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.engine_process.split import entry_of_engine_process, front_part
from pipeline.errors import DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_RESULT_KEY,
    TASK_STAGE_TIMES_KEY,
)
from pipeline.pipe import Pipe
from service.handler import (
    ConfigurationError,
    Deadline,
    HandlerInfo,
    HandlerSettings,
    ImageFailure,
    Scores,
)

logger = logging.getLogger(__name__)

SHIPPED_CONFIGS = {"cpu": "resnet50_cpu.toml", "gpu": "resnet50_gpu.toml"}


def create_handler(settings: HandlerSettings) -> PipelineHandler:
    """Build the handler; ConfigurationError says which setting cannot work."""
    try:
        return PipelineHandler(settings)
    except (EngineError, PipelineConfigError) as error:
        raise ConfigurationError(str(error)) from error


class PipelineHandler:
    """Implements `service.handler.Handler`."""

    def __init__(self, settings: HandlerSettings) -> None:
        if settings.backends is not None:
            load_backends(settings.backends)
        document = handler_document(settings)
        config = parse_config(document)
        self._model_node = model_node = engine_node(config)
        node = config.nodes[model_node]
        postprocessor = settings_of(ENGINE_BACKEND, node.backend, node.settings)["postprocessor"]
        if not postprocessor.gives_tensors:
            raise PipelineConfigError(
                f"[{model_node}] postprocessor = {postprocessor.name} gives a class and no scores, "
                'which the service cannot serve; use "split", "cpu" or "SoftmaxCpu"'
            )
        entry = None
        if settings.shared_folder is not None:
            entry = entry_of_engine_process(config, settings.engine)
        if entry is None:
            self._pipe = Pipe(config, engine=settings.engine)
            engine: Engine = self._pipe.local_nodes[model_node].shared.get(ENGINE)
            self._facts = EngineFacts.of(engine)
        else:
            remote = RemoteNode(entry, partial(_engine_process, settings, document, entry))
            front = front_part(config, entry)
            self._pipe = Pipe(front, engine=settings.engine, elsewhere={entry: remote})
            self._facts = EngineFacts(**remote.info)
        self._are_probabilities = self._facts.outputs_probabilities or postprocessor.softmax

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        """One outcome per image, in order."""
        items: list[dict[str, Any]] = [{TASK_DATA_KEY: data} for data in images]
        if deadline is None:
            self._pipe(items)
        else:
            timeout_ms = None if deadline.at_s == math.inf else deadline.remaining_s() * 1000
            self._pipe(items, timeout_ms=timeout_ms, has_gone=deadline.has_gone)
        return [self._outcome(item, deadline) for item in items]

    def info(self) -> HandlerInfo:
        """What runs."""
        facts = self._facts
        packages = ("torch", "numpy", "opencv-python-headless")
        instances = {}
        for name, node in self._pipe.local_nodes.items():
            counts = node.counts
            instances[f"{name}.instances"] = str(node.instance_num)
            instances[f"{name}.working_instances"] = str(counts.working_instances)
            instances[f"{name}.rebuilds"] = str(counts.rebuilds)
        return HandlerInfo(
            engine=facts.engine,
            precision=facts.precision,
            model=facts.model,
            model_sha256=facts.model_sha256,
            config_sha256=self._pipe.config.sha256,
            num_classes=facts.num_classes,
            versions={**{name: version(name) for name in packages}, **facts.versions},
            settings={
                **instances,
                "max_batch_size": str(facts.max_batch_size),
                "threads_per_context": str(facts.threads_per_context),
                "engine_process": "shared by the workers" if self._pipe.elsewhere else "none",
            },
            images_at_work=self._images_at_work(),
        )

    def why_not_ready(self) -> str:
        """Which node has no working instance, since when and why; "" where all have one."""
        return self._pipe.why_not_ready()

    def close(self) -> None:
        """Stop the instances and free the engine."""
        self._pipe.close()

    def _images_at_work(self) -> int:
        """A batch for each instance of the engine, and an image for each of the other nodes'."""
        images = 0 if self._model_node in self._pipe.local_nodes else self._facts.max_batch_size
        for name, node in self._pipe.local_nodes.items():
            instances = node.instance_num * max(1, len(node.device_ids))
            largest = self._facts.max_batch_size if name == self._model_node else 1
            images += instances * largest
        return images

    def _outcome(self, item: dict[str, Any], deadline: Deadline | None) -> Scores | ImageFailure:
        error = item.get(TASK_ERROR_KEY)
        if error is None:
            row = probabilities(item[TASK_RESULT_KEY], are_probabilities=self._are_probabilities)[0]
            return Scores(row, item[TASK_STAGE_TIMES_KEY])
        cause = error.cause if isinstance(error, NodeError) else error
        if isinstance(cause, ImageFailure):
            return cause
        if isinstance(cause, DeadlinePassedError) and deadline is not None:
            return deadline.failure()
        failure = ImageFailure(str(error))
        failure.__cause__ = cause
        return failure


def _engine_process(
    settings: HandlerSettings, document: Mapping[str, Any], entry: str
) -> socket.socket:
    """A connection to the engine process that runs the document's nodes from `entry` on."""
    wanted = {
        "document": document,
        "entry": entry,
        "engine": settings.engine,
        "backends": settings.backends,
        "log_level": logging.getLevelName(logging.getLogger().getEffectiveLevel()),
    }
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    return connect(Path(str(settings.shared_folder)), digest[:16], wanted)


def handler_document(settings: HandlerSettings) -> dict[str, Any]:
    """The TOML document that the settings ask for.

    Without `--config` the shipped file that `--decode` names is a template: model, normalisation
    and image size come from the model, and the largest batch and the instances are what suits the
    engine. With it the file is taken at its word, and `--model`, `--mean`, `--std`, `--precision`
    and `--calibration-images` replace only what they name. `--set` comes last.
    """
    given = settings.config is not None
    path = settings.config or files("pipeline") / "configs" / SHIPPED_CONFIGS[settings.decode]
    document = apply_overrides(read_toml(str(path)), {})
    node = document[engine_node(parse_config(document))]
    if not given or settings.model is not None or settings.weights is not None:
        model = open_model(settings.model, settings.weights)
        node["model"] = str(model.path)
        if not given:
            normalization = classifier_normalization(model, settings.mean, settings.std)
            node["mean"], node["std"] = list(normalization.mean), list(normalization.std)
            _resize_to(document, classifier_input_size(model))
            choice = choose_engine(settings.engine, settings.precision)
            if settings.decode == "cpu":
                _suit(document, node, choice)
            largest = suggested_batch_size(choice)
            shape = "x".join(map(str, (3, *classifier_input_size(model))))
            node["min"], node["max"] = f"1x{shape}", f"{largest}x{shape}"
    if given and settings.mean is not None:
        node["mean"] = list(settings.mean)
    if given and settings.std is not None:
        node["std"] = list(settings.std)
    if settings.calibration_images is not None:
        node["calibration_images"] = settings.calibration_images
    if settings.devices:
        document = {**document, "device_id": ",".join(map(str, settings.devices))}
    if settings.precision is not None:
        _check_precision(settings.engine, settings.precision)
        node["precision"] = settings.precision
    return apply_overrides(document, settings.overrides)


def engine_node(config: PipelineConfig) -> str:
    """The one node that runs a model."""
    names = [name for name, node in config.nodes.items() if ENGINE_BACKEND in node.backend.names()]
    if len(names) != 1:
        raise PipelineConfigError(
            "the service classifies with one model: the configuration needs exactly one node "
            f"with {ENGINE_BACKEND}, got {', '.join(names) or 'none'}"
        )
    return names[0]


def _suit(document: Mapping[str, Any], engine_table: dict[str, Any], choice: EngineChoice) -> None:
    """Give an engine on a GPU the instances that it needs, and the CPU all of its cores."""
    instances = suggested_instances(choice)
    if instances is None:
        return
    for table in document.values():
        if isinstance(table, dict):
            table["instance_num"] = instances if table is engine_table else available_cores()


def _resize_to(document: Mapping[str, Any], size: tuple[int, int]) -> None:
    for table in document.values():
        if isinstance(table, dict) and "resize_h" in table:
            table["resize_h"], table["resize_w"] = size


def _check_precision(engine: str, precision: str) -> None:
    """Refuse what the engine cannot run: a precision that the user names is not replaced."""
    choice = choose_engine(engine, precision)
    if (runs := stand_in_precision(choice.name, precision)) != precision:
        raise ConfigurationError(
            f"engine {choice.name!r} cannot run --precision {precision} here; it runs {runs}"
        )
