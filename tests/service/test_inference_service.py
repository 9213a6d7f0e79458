"""What each method promises, over the wire."""

from __future__ import annotations

import logging
import os
import platform
from typing import Any

import pytest

from idl import inference

Params = inference.InferenceParams
Options = inference.InferOptions
Code = inference.ErrorCode


@pytest.fixture
def client(scripted_server: Any) -> Any:
    client = scripted_server.client()
    yield client
    client.close()


def test_infer_batch_gives_the_best_label_and_score_only(client: Any) -> None:
    result = client.infer_batch(Params("u", b"best=3"))
    assert (result.label, result.score) == ("class_3", pytest.approx(0.6))
    others = (result.uuid, result.class_id, result.top_k, result.error, result.stage_times_ms)
    assert others == (None,) * 5


def test_infer_batch_raises_the_declared_exceptions(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(inference.InvalidImage) as invalid:
        client.infer_batch(Params("u1", b"invalid"))
    assert (invalid.value.message, invalid.value.uuid) == ("no image at all", "u1")
    with pytest.raises(inference.DeadlineExceeded, match="too late"):
        client.infer_batch(Params("u1", b"late"))
    with pytest.raises(inference.InternalError) as internal:
        client.infer_batch(Params("u1", b"broken"))
    assert "secret" not in internal.value.message
    assert internal.value.error_id in caplog.text
    assert "secret cause" in caplog.text


def test_infer_images_answers_in_order_with_each_ones_own_error(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    images = [b"best=1", b"invalid", b"best=2", b"late", b"broken", b"best=4"]
    results = client.infer_images([Params(f"u{n}", data) for n, data in enumerate(images)])
    assert [r.uuid for r in results] == [f"u{n}" for n in range(6)]
    assert [r.label for r in results] == ["class_1", "", "class_2", "", "", "class_4"]
    assert [r.class_id for r in results] == [1, None, 2, None, None, 4]
    codes = [r.error and r.error.code for r in results]
    assert codes == [None, Code.INVALID_IMAGE, None, Code.DEADLINE_EXCEEDED, Code.INTERNAL, None]
    assert [r.score for r in results][1] == 0.0
    assert (results[1].error.message, results[1].error.error_id) == ("no image at all", None)
    assert "secret" not in results[4].error.message
    assert results[4].error.error_id in caplog.text


def test_infer_images_of_nothing_is_nothing(client: Any) -> None:
    assert client.infer_images([]) == []


def test_top_k_gives_that_many_classes_best_first(client: Any) -> None:
    (result,) = client.infer_images([Params("u", b"best=3")], Options(top_k=3))
    assert [entry.class_id for entry in result.top_k] == [3, 0, 1]
    assert [entry.label for entry in result.top_k] == ["class_3", "class_0", "class_1"]
    assert [entry.score for entry in result.top_k] == pytest.approx([0.6, 0.1, 0.1])
    assert (result.label, result.class_id, result.score) == (
        "class_3",
        3,
        result.top_k[0].score,
    )


@pytest.mark.parametrize("options", [None, Options(), Options(timeout_ms=5000)])
def test_top_k_is_one_where_unset(client: Any, options: Any) -> None:
    (result,) = client.infer_images([Params("u", b"x")], options)
    assert len(result.top_k) == 1


@pytest.mark.parametrize("top_k", [0, -1, 6, 2**31 - 1])
def test_a_top_k_outside_the_classes_is_refused(client: Any, top_k: int) -> None:
    with pytest.raises(inference.InvalidRequest, match=f"top_k must be 1 to 5, got {top_k}"):
        client.infer_images([Params("u", b"x")], Options(top_k=top_k))


def test_a_reply_that_would_be_too_long_is_refused(null_server: Any) -> None:
    client = null_server.client()
    with pytest.raises(inference.InvalidRequest, match="101000 entries, at most 100000"):
        client.infer_images([Params("u", b"x")] * 101, Options(top_k=1000))
    assert len(client.infer_images([Params("u", b"x")] * 100, Options(top_k=1000))) == 100
    client.close()


def test_a_timeout_becomes_the_handlers_deadline(client: Any, scripted: Any) -> None:
    scripted.deadlines.clear()
    client.infer_images([Params("u", b"x")], Options(timeout_ms=20_000))
    client.infer_images([Params("u", b"x")])
    with_limit, without = scripted.deadlines
    assert with_limit.timeout_ms == 20_000
    assert 0 < with_limit.remaining_s() <= 20
    assert without.timeout_ms == 30_000, "the server's own"


@pytest.mark.parametrize("timeout_ms", [0, -5])
def test_a_timeout_that_has_passed_already_is_refused(client: Any, timeout_ms: int) -> None:
    with pytest.raises(inference.InvalidRequest, match=f"at least 1, got {timeout_ms}"):
        client.infer_images([Params("u", b"x")], Options(timeout_ms=timeout_ms))


def test_stage_times_are_sent_only_on_demand(client: Any) -> None:
    (result,) = client.infer_images([Params("u", b"x")], Options(with_stage_times=True))
    assert result.stage_times_ms == {"decode": 0.5, "infer": 2.5}
    for options in (None, Options(with_stage_times=False)):
        (result,) = client.infer_images([Params("u", b"x")], options)
        assert result.stage_times_ms is None


def test_scores_that_are_no_numbers_are_an_internal_error(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    results = client.infer_images([Params("u", b"nan"), Params("u", b"x")])
    assert results[0].error.code == Code.INTERNAL
    assert results[1].label == "class_0"
    with pytest.raises(inference.InternalError):
        client.infer_batch(Params("u", b"nan"))
    assert "not finite" in caplog.text


def test_a_handler_that_loses_an_image_is_an_internal_error(
    client: Any, scripted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.classify = lambda *_: []
    with pytest.raises(inference.InternalError):
        client.infer_batch(Params("u", b"x"))
    assert "gave 0 outcomes for 1 images" in caplog.text


def test_failures_give_their_places_back(serve: Any, scripted: Any) -> None:
    client = serve(scripted, max_queue=0).client()
    for _ in range(3):
        with pytest.raises(inference.InternalError):
            client.infer_batch(Params("u", b"raise"))
        with pytest.raises(inference.InvalidImage):
            client.infer_batch(Params("u", b"invalid"))
    assert client.infer_batch(Params("u", b"x")).label == "class_0"
    client.close()


def test_server_info_says_who_answers(client: Any) -> None:
    info = client.server_info()
    assert (info.handler, info.engine, info.precision) == ("null", "scripted", "fp32")
    assert (info.model, info.model_sha256, info.config_sha256) == (
        "model.onnx",
        "ab" * 32,
        "cd" * 32,
    )
    assert info.pid == os.getpid()
    assert (info.worker, info.workers, info.supervisor_pid) == (0, 1, None)
    assert info.settings == {"lock": "none", "classes": "5", "workers": "1 (--workers)"}
    assert info.versions["scripted"] == "1.2"
    assert info.versions["python"] == platform.python_version()
    assert set(info.versions) >= {"thriftpipe", "thriftpy2", "numpy"}


def test_an_ordinary_client_error_is_no_error_in_the_log(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(inference.InvalidImage):
        client.infer_batch(Params("u", b"invalid"))
    with pytest.raises(inference.InvalidRequest):
        client.infer_images([Params("u", b"x")], Options(top_k=0))
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
