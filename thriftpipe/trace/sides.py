"""The two sides of a timeline under load: a pipe, and the locked baseline with its model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence

from baseline_trt.handler import BaselineHandler
from engine.interface import Engine
from engine.normalization import PLAIN_PIXELS
from engine.onnx_graph.activations import AUTO
from interfaces.error_text import in_one_line
from pipeline.backends.assembly import settings_of
from pipeline.backends.engine_settings import batch_shapes, image_size, normalization
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.backends.opencv import RESIZE_SHORTER, ResizeCropMat
from pipeline.benchmark.load import Load, run_load, warm_up
from pipeline.callable_pipe import Pipe
from pipeline.config import PipelineConfig
from pipeline.handler_document import engine_node
from pipeline.image_files import Image
from pipeline.keys import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_NODE_NAME_KEY
from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import ImageFailure
from thriftpipe.trace.recorder import BASELINE_ENGINE, RecordedInference, Recorder
from thriftpipe.trace.recording import Request, Side


def run_pipeline(
    pipe: Pipe, recorder: Recorder, images: Sequence[Image], load: Load, node: str | None
) -> None:
    """Send the load through a pipe that has the recorder's parts, after a few requests before it.

    Args:
        pipe: it must have no other callers.
        recorder: keeps what happens.
        images: at least one.
        load: how much.
        node: where images enter; needed where several nodes could be meant.

    Raises:
        PipelineInputError: there is no such node, or several could be meant.
    """
    entry = {} if node is None else {TASK_NODE_NAME_KEY: node}

    def call(data: bytes) -> str:
        item = {TASK_DATA_KEY: data, **entry}
        pipe(item)
        return str(item.get(TASK_ERROR_KEY, ""))

    # What is wrong with every request is told once, and not as so many failed images.
    call(images[0][1])
    _run(recorder, images, load, call)


def baseline_settings(pipe: Pipe) -> HandlerSettings:
    """The settings of a baseline with the model, engine and precision of a pipe.

    Raises:
        PipelineConfigError: the pipe has not exactly one node with a model.
    """
    config = pipe.config
    name = engine_node(config)
    node = config.nodes[name]
    settings = settings_of(ENGINE_BACKEND, node.backend, node.settings)
    engine: Engine = pipe.local_nodes[name].shared.get(ENGINE)
    pixels = normalization(settings) or PLAIN_PIXELS
    output = settings["output"]
    return HandlerSettings(
        engine=engine.name,
        precision=engine.options.precision,
        model=settings["model"],
        mean=pixels.mean,
        std=pixels.std,
        layout=settings["model::layout"],
        color=settings["model::color"],
        input_size=image_size(batch_shapes(settings)),
        resize=_shorter_side(config),
        output=None if output == AUTO else output,
        output_activation=settings["output_activation"],
        calibration_images=settings["calibration_images"],
        devices=pipe.local_nodes[name].device_ids[:1],
    )


def _shorter_side(config: PipelineConfig) -> int | None:
    """To which images are resized before their middle is cut out; None where they are not."""
    backends = (it for node in config.nodes.values() for it in node.backends())
    found = (it.settings[RESIZE_SHORTER] for it in backends if issubclass(it.cls, ResizeCropMat))
    return next(found, None)


def baseline_side(settings: HandlerSettings, images: Sequence[Image], load: Load) -> Side:
    """Load the baseline, and send the load through it.

    Raises:
        EngineError, ConfigurationError: the baseline cannot serve that model.
    """
    recorder = Recorder()
    handler = BaselineHandler(settings, locked=lambda engine: RecordedInference(engine, recorder))

    def call(data: bytes) -> str:
        began_s = time.monotonic()
        outcome = handler.classify([data], None)[0]
        if isinstance(outcome, ImageFailure):
            return str(outcome)
        for name in ("decode", "preprocess"):
            ended_s = began_s + outcome.stage_times_ms[name] / 1000
            recorder.step(name, began_s, ended_s)
            began_s = ended_s
        return ""

    try:
        _run(recorder, images, load, call)
        facts = handler.info()
    finally:
        handler.close()
    return _side(
        "baseline",
        {"engine": f"{facts.engine} {facts.precision}", "model": facts.model},
        {BASELINE_ENGINE: [BASELINE_ENGINE]},
        frozenset({BASELINE_ENGINE}),
        load.clients,
        recorder,
    )


def pipeline_side(pipe: Pipe, recorder: Recorder, facts: Mapping[str, str], clients: int) -> Side:
    """What a pipe did; it has been closed since."""
    instances = {name: recorder.instances[name] for name in pipe.local_nodes}
    engines = frozenset(name for name in instances if _has_engine(pipe, name))
    return _side("pipeline", facts, instances, engines, clients, recorder)


def engine_facts(pipe: Pipe) -> dict[str, str]:
    """What runs the models of a pipe, which is open."""
    facts = {}
    for name, node in pipe.local_nodes.items():
        if _has_engine(pipe, name):
            engine: Engine = node.shared.get(ENGINE)
            facts["engine"] = f"{engine.name} {engine.options.precision}"
            facts["model"] = engine.model.name
    return facts


def _has_engine(pipe: Pipe, node: str) -> bool:
    return ENGINE_BACKEND in pipe.config.nodes[node].backend.names()


def _run(
    recorder: Recorder, images: Sequence[Image], load: Load, call: Callable[[bytes], str]
) -> None:
    """Send the load, and record it.

    Args:
        recorder: gets the requests.
        images: at least one.
        load: how much.
        call: runs one image; why it has failed, or "".
    """
    numbers = itertools.count()

    def client(place: int) -> Callable[[list[Image]], list[str]]:
        def request(several: list[Image]) -> list[str]:
            ((name, data),) = several
            number = next(numbers)
            recorder.begin(number)
            began_s = time.monotonic()
            try:
                failure = call(data)
            except Exception as error:  # noqa: BLE001 (it is the request's outcome)
                failure = in_one_line(error)
            ended_s = time.monotonic()
            recorder.requests.append(Request(number, place, name, began_s, ended_s, failure))
            return [failure] if failure else []

        return request

    def unrecorded(several: list[Image]) -> list[str]:
        call(several[0][1])
        return []

    warm_up([unrecorded], images, load)
    run_load([client(place) for place in range(load.clients)], images, load)


def _side(
    title: str,
    facts: Mapping[str, str],
    instances: Mapping[str, Sequence[str]],
    engines: frozenset[str],
    clients: int,
    recorder: Recorder,
) -> Side:
    requests = sorted(recorder.requests, key=lambda request: request.number)
    done = requests, recorder.batches, recorder.steps
    return Side(title, facts, instances, engines, clients, *done)
