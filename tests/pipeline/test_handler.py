"""The pipeline handler: real photographs, failures, and which setting wins."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from baseline_trt.handler import create_handler as create_baseline
from engine.cpu.cores import CORES_VARIABLE
from pipeline.handler import PipelineHandler, create_handler
from service.errors import ConfigurationError
from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import DeadlineExceededError, InvalidImageError, Scores
from tests.engines import CPU_ENGINES


@pytest.fixture(scope="module", params=CPU_ENGINES)
def handler(request: pytest.FixtureRequest) -> PipelineHandler:
    return create_handler(
        HandlerSettings(engine=request.param, model="efficientnet_lite0", calibrate="off")
    )


def scores(outcome: object) -> np.ndarray:
    assert isinstance(outcome, Scores)
    return outcome.probabilities


def test_real_photographs_get_their_labels(
    handler: PipelineHandler,
    labelled_photographs: list[tuple[bytes, tuple[str, ...]]],
    imagenet_labels: list[str],
) -> None:
    outcomes = handler.classify([data for data, _ in labelled_photographs], None)
    for outcome, (_, words) in zip(outcomes, labelled_photographs, strict=True):
        label = imagenet_labels[int(scores(outcome).argmax())]
        assert any(word in label for word in words), label


def test_the_scores_are_those_of_the_baseline(
    handler: PipelineHandler, photographs: list[bytes]
) -> None:
    baseline = create_baseline(HandlerSettings(model="efficientnet_lite0"))
    for ours, theirs in zip(
        handler.classify(photographs, None), baseline.classify(photographs, None), strict=True
    ):
        np.testing.assert_allclose(scores(ours), scores(theirs), atol=1e-4)
    baseline.close()


def test_many_threads_get_their_own_results(
    handler: PipelineHandler, photographs: list[bytes]
) -> None:
    expected = [int(scores(o).argmax()) for o in handler.classify(photographs, None)]
    with ThreadPoolExecutor(6) as callers:
        found = list(
            callers.map(
                lambda data: int(scores(handler.classify([data], None)[0]).argmax()),
                photographs * 3,
            )
        )
    assert found == expected * 3


def test_a_bad_image_fails_alone_and_in_its_place(
    handler: PipelineHandler, photographs: list[bytes]
) -> None:
    cut = photographs[0][: len(photographs[0]) // 2]
    outcomes = handler.classify([photographs[0], b"no image", cut, photographs[1]], None)
    assert [type(outcome) for outcome in outcomes] == [
        Scores,
        InvalidImageError,
        InvalidImageError,
        Scores,
    ]


def test_a_deadline_that_has_passed_is_a_failure_of_each_image(
    handler: PipelineHandler, photographs: list[bytes]
) -> None:
    outcomes = handler.classify(photographs[:2], Deadline(at_s=0.0, timeout_ms=7))
    assert all(isinstance(outcome, DeadlineExceededError) for outcome in outcomes)
    assert "timeout_ms = 7" in str(outcomes[0])


def test_each_image_of_several_is_told_of_when_it_is_done(
    handler: PipelineHandler, photographs: list[bytes]
) -> None:
    told: SimpleQueue[bool] = SimpleQueue()

    def image_done(*, worked_on: bool) -> None:
        told.put(worked_on)

    in_time = Deadline(time.monotonic() + 60, 60_000, image_done=image_done)
    handler.classify([photographs[0], b"no image", photographs[1]], in_time)
    assert [told.get_nowait() for _ in range(3)] == [True] * 3
    gone = type("Gone", (), {"is_disconnected": lambda _: True})()
    handler.classify(photographs[:2], replace(in_time, peer=gone))
    assert [told.get_nowait() for _ in range(2)] == [False] * 2
    assert told.empty()


def test_calls_that_are_begun_have_the_same_outcomes(
    handler: PipelineHandler, photographs: list[bytes]
) -> None:
    calls = [[photographs[0]], [b"no image", photographs[1]], [photographs[2]]]
    done: SimpleQueue[int] = SimpleQueue()
    begun = [
        handler.begin(images, Deadline.after(60_000), partial(done.put, number))
        for number, images in enumerate(calls)
    ]
    assert sorted(done.get(timeout=60) for _ in calls) == [0, 1, 2]
    for images, outcomes in zip(calls, begun, strict=True):
        for own, other in zip(outcomes(), handler.classify(images, None), strict=True):
            assert type(own) is type(other)
            if isinstance(own, Scores):
                np.testing.assert_allclose(scores(own), scores(other), atol=1e-4)
    [late] = handler.begin(photographs[:1], Deadline(at_s=0.0, timeout_ms=7), lambda: None)()
    assert isinstance(late, DeadlineExceededError)


def test_info_says_what_runs(handler: PipelineHandler) -> None:
    info = handler.info()
    assert (info.precision, info.num_classes) == ("fp32", 1000)
    assert info.model.startswith("efficientnet_lite0")
    assert set(info.settings) >= {
        "cpu_decoder.instances",
        "efficientnet_lite0.instances",
        "max_batch_size",
    }


def test_the_shipped_file_starts_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        create_handler(
            HandlerSettings(engine="onnxruntime", model="efficientnet_lite0", calibrate="off")
        ).close()
    (line,) = caplog.messages
    assert line.startswith("engine onnxruntime (asked for by name): efficientnet_lite0-")
    assert "fp32" in line


def test_a_worker_counts_on_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORES_VARIABLE, "1")
    handler = create_handler(
        HandlerSettings(engine="onnxruntime", model="efficientnet_lite0", calibrate="off")
    )
    settings = handler.info().settings
    handler.close()
    assert settings["cpu_decoder.instances"] == settings["efficientnet_lite0.instances"] == "1"
    assert settings["threads_per_context"] == "1"


def test_int8_runs_with_the_calibration_images_that_are_given(
    tmp_path: Path,
    labelled_photographs: list[tuple[bytes, tuple[str, ...]]],
    imagenet_labels: list[str],
) -> None:
    for index, (data, _) in enumerate(labelled_photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    handler = create_handler(
        HandlerSettings(
            precision="int8",
            model="efficientnet_lite0",
            calibration_images=str(tmp_path),
            calibrate="off",
        )
    )
    outcomes = handler.classify([data for data, _ in labelled_photographs], None)
    assert handler.info().precision == "int8"
    handler.close()
    for outcome, (_, words) in zip(outcomes, labelled_photographs, strict=True):
        label = imagenet_labels[int(scores(outcome).argmax())]
        assert any(word in label for word in words), label


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (HandlerSettings(model="efficientnet_lite0", precision="int8"), "--calibration-images"),
        (
            HandlerSettings(config="none.toml"),
            r"cannot read the configuration: there is no file none\.toml",
        ),
        (
            HandlerSettings(model="efficientnet_lite0", engine="onnxrutime"),
            "did you mean 'onnxruntime'",
        ),
        (HandlerSettings(model="resnet5"), "did you mean 'resnet50'"),
        (
            HandlerSettings(model="efficientnet_lite0", overrides={"resnet50.maxx": "4"}),
            "did you mean 'max'",
        ),
        (
            HandlerSettings(model="efficientnet_lite0", engine="onnxruntime", precision="bf16"),
            "bf16",
        ),
        (
            HandlerSettings(model="efficientnet_lite0", decode="gpu", reduced_decoding=True),
            "no node has DecodeMat",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: HandlerSettings, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_handler(settings)


def test_a_configuration_without_a_model_cannot_classify(tmp_path: Path) -> None:
    config = tmp_path / "decode.toml"
    config.write_text('[decoder]\nbackend = "DecodeMat"\n')
    with pytest.raises(ConfigurationError, match="exactly one node with TensorrtTensor, got none"):
        create_handler(HandlerSettings(config=str(config)))
