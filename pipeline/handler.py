"""The pipeline handler: every image is one item of a `pipe`, whose instances batch them."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.contexts.cuda_device import check_device
from engine.errors import EngineError
from engine.interface import Engine
from engine.scoring import check_results
from interfaces.error_text import in_one_line
from interfaces.versions import package_versions
from pipeline.backends.assembly import runs_on_gpu, settings_of
from pipeline.backends.backend_file import load_backends
from pipeline.backends.filters import FilterError
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.callable_pipe import Pipe
from pipeline.config import NodeConfig, PipelineConfig, parse_config
from pipeline.decoding_place import GPU
from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.launcher import connect_or_start
from pipeline.engine_process.messages import EngineProcessSettings
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.engine_process.slots import SlotLimits
from pipeline.engine_process.split import entry_of_engine_process, front_part
from pipeline.errors import DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.handler_document import (
    calibrated_document,
    engine_node,
    place_of_decoding,
    resize_in_words,
)
from pipeline.interpreter_lock import hand_on_lock_soon
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_RESULT_KEY,
    TASK_STAGE_TIMES_KEY,
)
from pipeline.node_stats import nodes_stats
from pipeline.pixel_warnings import pixel_warnings
from service.errors import ConfigurationError
from service.handlers.deadline import Deadline, ImageDone
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import HandlerInfo, HandlerStats
from service.handlers.outcomes import ImageFailure, Scores, was_worked_on
from service.handlers.restart_policy import RestartPolicy
from service.logs.start import used_log_settings

logger = logging.getLogger(__name__)

# Items on their way to the engine process are copies of messages, for which the limit is meant.
_SHARES_OF_SLOTS = 4


def create_handler(settings: HandlerSettings) -> PipelineHandler:
    """Build the handler; ConfigurationError says which setting cannot work."""
    try:
        for number in settings.devices:
            check_device(number)
        return PipelineHandler(settings)
    except (EngineError, PipelineConfigError) as error:
        raise ConfigurationError(str(error)) from error


class PipelineHandler:
    """Implements `service.handlers.interface.Handler`."""

    def __init__(self, settings: HandlerSettings) -> None:
        if settings.backends is not None:
            load_backends(settings.backends)
        document, self._calibration = calibrated_document(settings)
        self._resize = resize_in_words(document, settings)
        place = place_of_decoding(settings)
        self._decoding = str(place or "as the configuration says")
        if place is not None and place.name == GPU:
            logger.info("images are decoded on the %s", place)
        config = parse_config(document)
        self._model_node = engine_node(config)
        for warning in (
            *config.warnings,
            *pixel_warnings(config.with_instances.values()),
            *_idle_override_warnings(config, settings.overrides),
        ):
            logger.warning("%s", warning)
        model_settings = _model_settings(config.nodes[self._model_node])
        entry = None
        if settings.shared_folder is not None:
            entry = entry_of_engine_process(config, settings.engine)
        if entry is None:
            self._pipe, self._facts = _in_this_process(
                config, settings, self._model_node, model_settings
            )
        else:
            self._pipe, self._facts = _with_engine_process(config, settings, document, entry)
        self._scoring = self._facts.scoring

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        """One outcome per image, in order."""
        items: list[dict[str, Any]] = [{TASK_DATA_KEY: data} for data in images]
        if deadline is None:
            self._pipe(items)
        else:
            self._pipe(items, **_terms(deadline))
        return [self._outcome(item, deadline) for item in items]

    def begin(
        self, images: Sequence[bytes], deadline: Deadline, done: Callable[[], None]
    ) -> Callable[[], list[Scores | ImageFailure]]:
        """As `service.handlers.interface.BeginningHandler` has it."""
        items: list[dict[str, Any]] = [{TASK_DATA_KEY: data} for data in images]
        fill = self._pipe.begin(items, done, **_terms(deadline))

        def outcomes() -> list[Scores | ImageFailure]:
            fill()
            return [self._outcome(item, deadline) for item in items]

        return outcomes

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
            instances[f"{name}.stuck_instances"] = str(node.stuck_instances)
        return HandlerInfo(
            engine=facts.engine,
            precision=facts.precision,
            model=facts.model,
            model_sha256=facts.model_sha256,
            config_sha256=self._pipe.config.sha256,
            num_classes=facts.num_classes,
            versions={**package_versions(packages), **facts.versions},
            settings={
                **instances,
                "max_batch_size": str(facts.max_batch_size),
                "threads_per_context": str(facts.threads_per_context),
                "calibration": self._calibration,
                "input": facts.image,
                "resize": self._resize,
                "decode": self._decoding,
                "engine_process": "shared by the workers" if self._pipe.elsewhere else "none",
            },
            images_at_work=self._images_at_work(),
            note=facts.note,
        )

    def stats(self) -> HandlerStats:
        """What the nodes of this process and those of the engine process have done."""
        elsewhere = [node.stats() for node in self._pipe.elsewhere.values()]
        return HandlerStats(
            nodes_stats(self._pipe.local_nodes), elsewhere[0] if elsewhere else None
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
        if error is None and TASK_RESULT_KEY not in item:
            error = FilterError("a filter has ended its way before it had a result")
        if error is None:
            try:
                row = self._scoring.scores(item[TASK_RESULT_KEY])[0]
            # Whatever it is: the last node may be a backend of the user's.
            except Exception as unusable:  # noqa: BLE001
                return _failure(f"the result is no scores: {in_one_line(unusable)}", unusable)
            return Scores(row, item[TASK_STAGE_TIMES_KEY])
        cause = error.cause if isinstance(error, NodeError) else error
        if isinstance(cause, ImageFailure):
            return cause
        if isinstance(cause, DeadlinePassedError) and deadline is not None:
            return deadline.failure()
        return _failure(str(error), cause)


def _failure(message: str, cause: BaseException) -> ImageFailure:
    failure = ImageFailure(message)
    failure.__cause__ = cause
    return failure


def _terms(deadline: Deadline) -> dict[str, Any]:
    """A call's deadline as a pipe takes it."""
    return {
        "timeout_ms": None if deadline.at_s == math.inf else deadline.remaining_s() * 1000,
        "has_gone": deadline.is_disconnected,
        "item_done": None if deadline.image_done is None else _item_done(deadline.image_done),
    }


def _item_done(image_done: ImageDone) -> Callable[[Exception | None], None]:
    """A function for the ends of items that reports them as ends of images."""

    def item_done(error: Exception | None) -> None:
        cause = error.cause if isinstance(error, NodeError) else error
        image_done(worked_on=was_worked_on(cause))

    return item_done


def _model_settings(node: NodeConfig) -> Mapping[str, Any]:
    """The settings of the model; PipelineConfigError if the service cannot use its results."""
    settings = settings_of(ENGINE_BACKEND, node.backend, node.settings)
    postprocessor = settings["postprocessor"]
    if not postprocessor.gives_tensors:
        raise PipelineConfigError(
            f"[{node.name}] postprocessor = {postprocessor.name} gives a class and no scores, "
            'which the service cannot serve; use "split", "cpu" or "SoftmaxCpu"'
        )
    return settings


def _in_this_process(
    config: PipelineConfig,
    settings: HandlerSettings,
    model_node: str,
    model_settings: Mapping[str, Any],
) -> tuple[Pipe, EngineFacts]:
    """All nodes, loaded here."""
    nodes = config.with_instances.values()
    if any(runs_on_gpu(node.backend, node.settings, settings.engine) for node in nodes):
        hand_on_lock_soon()
    loaded = Pipe(
        config,
        engine=settings.engine,
        rebuild=RestartPolicy(stuck_s=settings.hang_timeout_s),
        check_result=check_results,
    )
    engine: Engine = loaded.local_nodes[model_node].shared.get(ENGINE)
    try:
        return loaded, EngineFacts.of(engine, model_settings)
    except EngineError:
        loaded.close()
        raise


def _with_engine_process(
    config: PipelineConfig, settings: HandlerSettings, document: Mapping[str, Any], entry: str
) -> tuple[Pipe, EngineFacts]:
    """The nodes before `entry`, loaded here, and the others in the engine process."""
    remote = RemoteNode(
        entry,
        partial(_engine_process, settings, document, entry),
        SlotLimits(settings.max_frame_bytes, settings.max_buffered_bytes // _SHARES_OF_SLOTS),
        settings.hang_timeout_s,
    )
    loaded = Pipe(
        front_part(config, entry),
        engine=settings.engine,
        elsewhere={entry: remote},
        rebuild=RestartPolicy(stuck_s=settings.hang_timeout_s),
    )
    return loaded, remote.facts


def _engine_process(
    settings: HandlerSettings, document: Mapping[str, Any], entry: str
) -> tuple[socket.socket, int]:
    """A connection to the engine process that runs the document's nodes from `entry` on."""
    wanted = EngineProcessSettings(
        document,
        entry,
        settings.engine,
        settings.backends,
        settings.hang_timeout_s,
        used_log_settings(),
    )
    return connect_or_start(Path(str(settings.shared_folder)), wanted)


def _idle_override_warnings(config: PipelineConfig, overrides: Mapping[str, str]) -> Iterator[str]:
    """One for each override of a global setting that all its readers have of their own."""
    for key in overrides:
        readers = [name for name, node in config.nodes.items() if key in node.origins]
        if readers and all(config.nodes[name].origins[key] == "node" for name in readers):
            yield (
                f"--set {key} changes nothing, since each node that reads it has a value of its "
                f"own; use --set {readers[0]}.{key}=..."
            )
