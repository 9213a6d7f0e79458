"""The baseline handler: per request decode and preprocess on the CPU, then the one engine.

This is the service that most teams ship first, and the one that the quick-start starts from. Two
of its faults are repaired, because they are errors and not costs: an undecodable image is reported
and not silently skipped, and results line up with requests.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch

from baseline_trt.baseline_engine import load_baseline_engine
from baseline_trt.engine_counts import EngineCounts
from baseline_trt.inference import Inference, LockedInference, LockFreeInference
from baseline_trt.preprocessing import Preprocessor
from baseline_trt.recovering_engine import RecoveringEngine
from engine.classifier import (
    classifier_input,
    classifier_normalization,
    classifier_output,
    contradiction_of,
    input_size,
)
from engine.contexts.cuda_device import check_device
from engine.cpu.cores import available_cores
from engine.errors import EngineError
from engine.interface import Engine
from engine.onnx_graph.activations import AUTO
from engine.options import EngineOptions
from engine.registry import choose_engine
from engine.resizing import Resizing
from engine.scoring import scoring_of
from engine.zoo import DEFAULT_MODEL, open_model
from interfaces.error_text import in_one_line
from interfaces.versions import package_versions
from service.errors import ConfigurationError
from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import HandlerInfo, HandlerStats
from service.handlers.outcomes import ImageFailure, Scores, was_worked_on
from service.handlers.restart_policy import DEFAULT_POLICY, RestartPolicy

_logger = logging.getLogger(__name__)

# An image's place in its call, its pixels of shape (1, 3, height, width), and its stage times.
_Prepared: TypeAlias = tuple[int, torch.Tensor, dict[str, float]]


def create_handler(settings: HandlerSettings) -> BaselineHandler:
    """Build the handler; ConfigurationError says which setting cannot work."""
    try:
        for number in settings.devices:
            check_device(number)
        return BaselineHandler(settings)
    except EngineError as error:
        raise ConfigurationError(str(error)) from error


class BaselineHandler:
    """Implements `service.handlers.interface.Handler`.

    Args:
        settings: what the command line says.
        rebuild: when the engine counts as broken, and how often it is rebuilt.
        locked: what runs batches where there is the lock; a trace has one that records them.
    """

    def __init__(
        self,
        settings: HandlerSettings,
        rebuild: RestartPolicy = DEFAULT_POLICY,
        locked: Callable[[Engine], Inference] = LockedInference,
    ) -> None:
        rebuild = replace(rebuild, stuck_s=settings.hang_timeout_s)
        choice = choose_engine(settings.engine, settings.precision)
        size = settings.input_size or settings.crop
        model = classifier_input(
            classifier_output(
                open_model(settings.model, settings.weights, size, settings.layout), settings.output
            ),
            *(settings.layout, settings.color, settings.input_size, settings.crop),
        )
        normalization = classifier_normalization(model, settings.mean, settings.std)
        if warning := contradiction_of(model, normalization):
            _logger.warning("%s", warning)
        resizing = Resizing.of(input_size(model), settings.resize, settings.crop)
        self._preprocessor = Preprocessor(
            resizing, normalization, reduced=settings.reduced_decoding
        )
        self._scoring = scoring_of(model, settings.output_activation or AUTO)
        cores = available_cores()
        # With the lock one run has all cores; without it as many runs as cores have one each.
        self._contexts, threads = (1, cores) if settings.lock else (cores, 1)
        options = EngineOptions(
            choice.precision,
            settings.max_batch_size,
            self._contexts,
            threads,
            unbounded=not settings.lock,
            device_id=settings.devices[0] if settings.devices else 0,
            calibration_dir=(
                None if settings.calibration_images is None else Path(settings.calibration_images)
            ),
            calibration_normalization=normalization,
            calibration_skips_bad=settings.skip_bad_images,
            calibration_shorter_side=settings.resize,
        )
        name = settings.model or DEFAULT_MODEL
        self._engine = RecoveringEngine(
            lambda: load_baseline_engine(choice, model, options, name, settings.weights),
            locked if settings.lock else _without_lock,
            rebuild,
        )
        self._max_batch_size = self._engine.engine.options.max_batch_size
        self._counts = EngineCounts()
        self._settings = {
            "lock": "on" if settings.lock else "off",
            "max_batch_size": str(self._max_batch_size),
            "reduced_decoding": "on" if settings.reduced_decoding else "off",
            "threads_per_context": str(threads),
            "input": str(model.image_format),
            "resize": str(resizing),
        }
        if normalization is not None:
            self._settings["mean"] = ", ".join(f"{value:g}" for value in normalization.mean)
            self._settings["std"] = ", ".join(f"{value:g}" for value in normalization.std)

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        """One outcome per image, in order."""
        outcomes: list[Scores | ImageFailure | None] = [None] * len(images)
        prepared: list[_Prepared] = []
        image_done = None if deadline is None else deadline.image_done
        for index, data in enumerate(images):
            try:
                prepared.append((index, *self._prepare(data, deadline)))
            except ImageFailure as failure:
                outcomes[index] = failure
        for start in range(0, len(prepared), self._max_batch_size):
            portion = prepared[start : start + self._max_batch_size]
            inferred = self._infer(portion, deadline)
            failed = sum(isinstance(outcome, ImageFailure) for _, outcome in inferred)
            self._counts.items_done(len(inferred), failed)
            for index, outcome in inferred:
                outcomes[index] = outcome
                if image_done is not None:
                    image_done(worked_on=was_worked_on(outcome))
        return [outcome for outcome in outcomes if outcome is not None]

    def info(self) -> HandlerInfo:
        """What runs."""
        engine = self._engine.engine
        model = engine.model
        canonical = json.dumps(self._settings, sort_keys=True)
        packages = ("torch", "numpy", "opencv-python-headless")
        return HandlerInfo(
            engine=engine.name,
            precision=engine.options.precision,
            model=model.name,
            model_sha256=model.sha256,
            config_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
            num_classes=self._scoring.num_classes,
            versions={**package_versions(packages), **engine.versions},
            settings=self._settings,
            images_at_work=self._contexts * self._max_batch_size,
            note=model.note,
        )

    def stats(self) -> HandlerStats:
        """The engine as the one node; without the lock it has a context for each core."""
        engine = self._engine
        counts = self._counts.read(
            rebuilds=engine.rebuilds,
            instances=self._contexts,
            working_instances=self._contexts if engine.works else 0,
            stuck_instances=int(engine.is_stuck),
        )
        return HandlerStats({"engine": counts})

    def why_not_ready(self) -> str:
        """Since when and why the engine is broken; "" where it is not."""
        return self._engine.why_not_ready()

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _prepare(
        self, data: bytes, deadline: Deadline | None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        if deadline is not None:
            deadline.check()
        started_s = time.monotonic()
        image = self._preprocessor.decode(data, math.inf if deadline is None else deadline.at_s)
        decoded_s = time.monotonic()
        tensor = self._preprocessor.transform(image)
        times = {
            "decode": (decoded_s - started_s) * 1000,
            "preprocess": (time.monotonic() - decoded_s) * 1000,
        }
        return tensor, times

    def _infer(
        self, portion: list[_Prepared], deadline: Deadline | None
    ) -> list[tuple[int, Scores | ImageFailure]]:
        """Run a batch; if the engine raises, each of its images once more, alone."""
        try:
            inference = self._engine.inference
        except ImageFailure as failure:
            return [(index, failure) for index, _, _ in portion]
        try:
            outcomes = self._scores(inference, portion, deadline)
        except ImageFailure as failure:
            return [(index, failure) for index, _, _ in portion]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever an engine raises)
            _logger.warning(
                "the engine raised %s; each of its %d images runs once more, alone",
                in_one_line(error),
                len(portion),
            )
            raised = error
        else:
            self._engine.worked(portion[0][1])
            return outcomes
        outcomes = [self._alone(inference, entry, deadline) for entry in portion]
        if any(isinstance(outcome, Scores) for _, outcome in outcomes):
            self._engine.worked()
        else:
            self._engine.failed(inference, raised)
        return outcomes

    def _alone(
        self, inference: Inference, entry: _Prepared, deadline: Deadline | None
    ) -> tuple[int, Scores | ImageFailure]:
        """The second and last try of an image, unless its call has been abandoned."""
        try:
            if deadline is not None:
                deadline.check()
            return self._scores(inference, [entry], deadline)[0]
        except ImageFailure as failure:
            return entry[0], failure
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever an engine raises)
            broken = ImageFailure(in_one_line(error))
            broken.__cause__ = error
            return entry[0], broken

    def _scores(
        self, inference: Inference, portion: list[_Prepared], deadline: Deadline | None
    ) -> list[tuple[int, Scores | ImageFailure]]:
        batch = torch.cat([tensor for _, tensor, _ in portion])
        output, waited_ms, ran_ms = inference.run(batch, deadline)
        self._counts.batch_done(len(portion), waited_ms, ran_ms)
        if deadline is not None:
            deadline.check()
        rows = self._scoring.scores(output)
        return [
            (index, Scores(row, {**times, "lock": waited_ms, "infer": ran_ms}))
            for row, (index, _, times) in zip(rows, portion, strict=True)
        ]


def _without_lock(engine: Engine) -> Inference:
    if not engine.thread_safe:
        raise ConfigurationError(
            f"--no-lock: engine {engine.name!r} is not thread-safe and needs the lock"
        )
    return LockFreeInference(engine)
