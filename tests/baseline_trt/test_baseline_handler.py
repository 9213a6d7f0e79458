"""The locked baseline, its lock-free control, and the preprocessing they share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from baseline_trt.handler import BaselineHandler, create_handler
from baseline_trt.inference import LockedInference
from baseline_trt.preprocessing import Preprocessor
from engine.cpu.cores import available_cores
from engine.normalization import IMAGENET_NORMALIZATION
from engine.options import EngineOptions
from engine.providers.onnxruntime import OnnxRuntimeEngine
from engine.providers.openvino import OpenVinoEngine
from engine.registry import choose_engine, load_engine
from engine.resizing import Resizing
from engine.zoo import open_model
from pipeline.handler import create_handler as create_pipeline_handler
from service.errors import ConfigurationError
from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import Handler
from service.handlers.outcomes import DeadlineExceededError, InvalidImageError, Scores
from tests.engines import CPU_ENGINES, INT8_ENGINES


@pytest.fixture(scope="module", params=CPU_ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=[True, False], ids=["lock", "no-lock"])
def handler(request: pytest.FixtureRequest, engine_name: str) -> BaselineHandler:
    return create_handler(
        HandlerSettings(engine=engine_name, model="efficientnet_lite0", lock=request.param)
    )


def labels_of(handler: BaselineHandler, images: list[bytes], names: list[str]) -> list[str]:
    outcomes = handler.classify(images, None)
    assert all(isinstance(outcome, Scores) for outcome in outcomes)
    return [names[int(outcome.probabilities.argmax())] for outcome in outcomes]


def test_real_photographs_get_their_labels(
    handler: BaselineHandler,
    labelled_photographs: list[tuple[bytes, tuple[str, ...]]],
    imagenet_labels: list[str],
) -> None:
    """Six images, so that they also do not fit into one batch of four."""
    found = labels_of(handler, [data for data, _ in labelled_photographs], imagenet_labels)
    for label, (_, words) in zip(found, labelled_photographs, strict=True):
        assert any(word in label for word in words), label


def test_many_threads_get_their_own_results(
    handler: BaselineHandler, photographs: list[bytes], imagenet_labels: list[str]
) -> None:
    expected = labels_of(handler, photographs, imagenet_labels)
    with ThreadPoolExecutor(6) as callers:
        found = list(
            callers.map(
                lambda data: labels_of(handler, [data], imagenet_labels)[0], photographs * 3
            )
        )
    assert found == expected * 3


def test_a_bad_image_fails_alone_and_in_its_place(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    first, bad, last = handler.classify([photographs[0], b"no image", photographs[1]], None)
    assert isinstance(bad, InvalidImageError)
    (alone,) = handler.classify([photographs[1]], None)
    assert isinstance(first, Scores)
    assert isinstance(last, Scores)
    assert isinstance(alone, Scores)
    assert int(last.probabilities.argmax()) == int(alone.probabilities.argmax())


def test_stage_times_are_those_of_the_code_path(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    (outcome,) = handler.classify(photographs[:1], None)
    assert isinstance(outcome, Scores)
    assert list(outcome.stage_times_ms) == ["decode", "preprocess", "lock", "infer"]


def test_a_deadline_that_has_passed_stops_the_work(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    outcomes = handler.classify(photographs[:2], Deadline(at_s=0.0, timeout_ms=7))
    assert [str(outcome) for outcome in outcomes] == ["not finished within timeout_ms = 7"] * 2
    assert all(isinstance(outcome, DeadlineExceededError) for outcome in outcomes)


def test_images_of_several_are_told_of_when_they_are_done(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    told: list[bool] = []

    def image_done(*, worked_on: bool) -> None:
        told.append(worked_on)

    deadline = replace(Deadline.after(timeout_ms=60_000), image_done=image_done)
    handler.classify([photographs[0], b"no image", photographs[1]], deadline)
    assert told == [True, True], "what cannot be decoded is told of with the call"


def test_info_says_what_runs(handler: BaselineHandler, engine_name: str) -> None:
    info = handler.info()
    assert (info.engine, info.precision, info.num_classes) == (engine_name, "fp32", 1000)
    assert len(info.model_sha256) == len(info.config_sha256) == 64
    assert info.settings["lock"] in ("on", "off")


def test_preprocessing_is_the_quick_starts_arithmetic(photographs: list[bytes]) -> None:
    preprocessor = Preprocessor(Resizing(224, 224), IMAGENET_NORMALIZATION)
    image = preprocessor.decode(photographs[0])
    tensor = preprocessor.transform(image)
    assert tensor.shape == (1, 3, 224, 224)
    pixels = cv2.resize(image[:, :, ::-1], (224, 224)).astype(np.float64) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(tensor[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_waiting_for_the_lock_ends_with_the_deadline() -> None:
    choice = choose_engine("onnxruntime", None)
    engine = load_engine(choice, open_model("efficientnet_lite0"), EngineOptions())
    inference = LockedInference(engine)
    with inference._lock, pytest.raises(DeadlineExceededError, match="waited for the lock"):
        inference.run(torch.zeros(1, 3, 224, 224), Deadline.after(timeout_ms=5))
    engine.close()


def test_a_batch_is_copied_to_the_device_before_the_lock() -> None:
    choice = choose_engine("onnxruntime", None)
    engine = load_engine(choice, open_model("efficientnet_lite0"), EngineOptions())
    copied = threading.Event()
    to_device = engine.to_device

    def observed(rows: torch.Tensor) -> torch.Tensor:
        on_device = to_device(rows)
        copied.set()
        return on_device

    engine.to_device = observed  # type: ignore[method-assign]
    inference = LockedInference(engine)
    batch = torch.zeros(1, 3, 224, 224)
    with ThreadPoolExecutor(1) as caller:
        with inference._lock:
            running = caller.submit(inference.run, batch, None)
            assert copied.wait(60)
            assert not running.done()
        scores, _, _ = running.result()
    assert scores.shape == (1, 1000)
    inference.close()
    engine.close()


def test_images_of_a_call_run_in_batches_of_the_engines_size(photographs: list[bytes]) -> None:
    handler = create_handler(HandlerSettings(engine="onnxruntime", model="efficientnet_lite0"))
    inference = handler._engine.inference
    batches: list[int] = []
    run = inference.run

    def observed(
        batch: torch.Tensor, deadline: Deadline | None
    ) -> tuple[torch.Tensor, float, float]:
        batches.append(len(batch))
        return run(batch, deadline)

    inference.run = observed  # type: ignore[method-assign]
    outcomes = handler.classify([*photographs, *photographs][:9], None)
    assert all(isinstance(outcome, Scores) for outcome in outcomes)
    assert batches == [4, 4, 1]
    handler.close()


def test_without_its_lock_openvino_has_threads_of_its_own() -> None:
    """More threads than cores call it, whose batches wait for them."""
    for lock in (True, False):
        handler = create_handler(
            HandlerSettings(engine="openvino", model="efficientnet_lite0", lock=lock)
        )
        engine = handler._engine.engine
        assert isinstance(engine, OpenVinoEngine)
        (compiled,) = engine.models
        assert compiled.get_property("NUM_STREAMS") == (1 if lock else available_cores())
        assert compiled.get_property("INFERENCE_NUM_THREADS") == available_cores()
        handler.close()


def test_no_lock_is_refused_on_an_engine_that_is_not_thread_safe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No engine for a CPU is of that kind, so one is told to say so."""
    monkeypatch.setattr(OnnxRuntimeEngine, "thread_safe", False)
    with pytest.raises(ConfigurationError, match="'onnxruntime' is not thread-safe"):
        create_handler(HandlerSettings(model="efficientnet_lite0", lock=False))


@pytest.mark.usefixtures("few_views")
@pytest.mark.parametrize("engine", INT8_ENGINES)
def test_int8_keeps_the_labels_of_photographs(
    engine: str,
    tmp_path: Path,
    labelled_photographs: list[tuple[bytes, tuple[str, ...]]],
    imagenet_labels: list[str],
) -> None:
    for index, (data, _) in enumerate(labelled_photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    handler = create_handler(
        HandlerSettings(
            engine=engine,
            precision="int8",
            model="efficientnet_lite0",
            calibration_images=str(tmp_path),
        )
    )
    assert handler.info().precision == "int8"
    found = labels_of(handler, [data for data, _ in labelled_photographs], imagenet_labels)
    handler.close()
    for label, (_, words) in zip(found, labelled_photographs, strict=True):
        assert any(word in label for word in words), label


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (HandlerSettings(model="efficientnet_lite0", precision="int8"), "--calibration-images"),
        (HandlerSettings(engine="onnxrutime"), "did you mean 'onnxruntime'"),
        (HandlerSettings(model="efficientnet_lite"), "did you mean 'efficientnet_lite0'"),
        (HandlerSettings(model="efficientnet_lite0", mean=(1.0, 2.0, 3.0)), "std is missing"),
        (HandlerSettings(engine="onnxruntime", precision="bf16"), "bf16"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: HandlerSettings, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_handler(settings)


@pytest.mark.parametrize("create", [create_handler, create_pipeline_handler])
def test_reduced_decoding_changes_pixels_and_keeps_scores_near(
    create: Callable[[HandlerSettings], Handler], photographs: list[bytes]
) -> None:
    """In both handlers, and alike."""
    settings = HandlerSettings(model="efficientnet_lite0", precision="fp32")
    scores = {}
    for reduced in (False, True):
        handler = create(replace(settings, reduced_decoding=reduced))
        try:
            outcomes = handler.classify(photographs, None)
        finally:
            handler.close()
        assert all(isinstance(outcome, Scores) for outcome in outcomes)
        scores[reduced] = np.stack([outcome.probabilities for outcome in outcomes])  # type: ignore[union-attr]
    difference = np.abs(scores[True] - scores[False]).max(axis=1)
    assert difference.max() > 0
    assert np.median(difference) < 0.1
