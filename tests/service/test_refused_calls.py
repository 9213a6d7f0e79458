"""Calls that are refused before any work: too many images, and no places in the queue."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest
from thriftpy2.thrift import TApplicationException

from idl import inference
from tests.service.images.image_costs import webp_of_tiles

TIMEOUT_S = 30
Params = inference.InferenceParams
Code = inference.ErrorCode


def test_a_call_of_too_many_images_is_refused(serve: Any, scripted: Any) -> None:
    client = serve(scripted, max_images_per_call=3).client()
    calls = len(scripted.deadlines)
    with pytest.raises(inference.InvalidRequest) as caught:
        client.infer_images([Params("u", b"x")] * 4)
    assert caught.value.message == (
        "the call has 4 images, --max-images-per-call allows 3; split it"
    )
    assert len(scripted.deadlines) == calls
    assert len(client.infer_images([Params("u", b"x")] * 3)) == 3
    client.close()


def test_images_beyond_the_queue_are_refused_at_once(serve: Any, scripted: Any) -> None:
    """The refused client learns when to retry; the admitted ones are not disturbed."""
    server = serve(scripted, max_queue=1)
    first, second = server.client(), server.client()
    with ThreadPoolExecutor(1) as pool:
        # The scripted handler works on one image at once, so that the other one waits.
        requests = [Params("u", b"wait"), Params("u", b"best=2")]
        admitted = pool.submit(first.infer_images, requests)
        assert scripted.entered.acquire(timeout=TIMEOUT_S)
        calls = len(scripted.deadlines)
        for refused in (
            lambda: second.infer_batch(Params("u", b"x")),
            lambda: second.infer_images([Params("u", b"x")]),
        ):
            with pytest.raises(inference.Overloaded) as caught:
                refused()
            assert caught.value.message == (
                "1 images wait already, and --max-queue allows 1 here; 1 more do not fit"
            )
            assert 10 <= caught.value.retry_after_ms <= 10_000
        with pytest.raises(inference.InvalidRequest, match="a call of 3 images never fits"):
            second.infer_images([Params("u", b"x")] * 3)
        second.ping()
        assert len(scripted.deadlines) == calls
        scripted.release.set()
        labels = [result.label for result in admitted.result(TIMEOUT_S)]
    assert labels == ["class_0", "class_2"]
    assert second.infer_batch(Params("u", b"x")).label == "class_0", "the places are free again"
    first.close()
    second.close()


def test_calls_that_would_wait_too_long_are_refused_at_once(serve: Any, scripted: Any) -> None:
    """One image at work for longer than all the time that may be waited; one more may wait."""
    classify = scripted.classify

    def slowly(images: Any, deadline: Any) -> Any:
        # Four at a time while the server warms up: 5 ms from one to the next at least.
        threading.Event().wait(0.02 * len(images))
        return classify(images, deadline)

    scripted.classify = slowly
    server = serve(scripted, max_queue_ms=1)
    clients = [server.client() for _ in range(12)]
    with ThreadPoolExecutor(len(clients)) as pool:
        calls = [pool.submit(clients[0].infer_batch, Params("u", b"wait"))]
        assert scripted.entered.acquire(timeout=TIMEOUT_S)
        # All wait, so that the one that is admitted does not leave before the others have come.
        calls += [pool.submit(client.infer_batch, Params("u", b"wait")) for client in clients[1:]]
        # Refused calls do not wait for those that are admitted.
        refused = [
            call.exception(TIMEOUT_S)
            for call in itertools.islice(as_completed(calls, TIMEOUT_S), len(clients) - 2)
        ]
        scripted.release.set()
        admitted = [call.result(TIMEOUT_S) for call in calls if call.exception(TIMEOUT_S) is None]
    assert len(admitted) == 2
    for error in refused:
        assert isinstance(error, inference.Overloaded)
        assert "--max-queue-ms = 1 allows" in error.message
        assert 10 <= error.retry_after_ms <= 10_000
    for client in clients:
        client.close()


def test_a_client_that_comes_back_at_once_is_refused_later(serve: Any, scripted: Any) -> None:
    """In a loop without a pause refusals would take the time that serving needs."""
    client, other = (server := serve(scripted, max_queue=0)).client(), server.client()
    with ThreadPoolExecutor(1) as pool:
        admitted = pool.submit(client.infer_batch, Params("u", b"wait"))
        assert scripted.entered.acquire(timeout=TIMEOUT_S)
        started_s, told_ms = time.monotonic(), []
        for _ in range(4):
            with pytest.raises(inference.Overloaded) as refused:
                other.infer_batch(Params("u", b"x"))
            told_ms.append(refused.value.retry_after_ms)
        assert time.monotonic() - started_s >= sum(min(20, ms) for ms in told_ms[:-1]) / 1000
        scripted.release.set()
        assert admitted.result(TIMEOUT_S).label == "class_0"


def test_refused_calls_are_not_decoded(serve: Any, scripted: Any) -> None:
    """What is wrong with those of many images shows when there is room."""
    server = serve(scripted, max_queue=20)
    client, other = server.client(), server.client()
    wrong = [Params(None, bytes(1000))] * 20
    with ThreadPoolExecutor(1) as pool:
        admitted = pool.submit(client.infer_images, [Params("u", b"wait"), Params("u", b"x")])
        assert scripted.entered.acquire(timeout=TIMEOUT_S)
        with pytest.raises(inference.Overloaded):
            other.infer_images(wrong)
        assert other.infer_images([]) == []
        scripted.release.set()
        assert admitted.result(TIMEOUT_S)[0].label == "class_0"
    with pytest.raises(TApplicationException, match="uuid"):
        other.infer_images(wrong)
    client.close()
    other.close()


def test_headers_are_read_no_longer_than_the_call_may_stay(serve: Any, scripted: Any) -> None:
    """Each of these is refused after some milliseconds."""
    image = webp_of_tiles(5700, 60_000)
    client = serve(scripted).client()
    results = client.infer_images([Params("", image)] * 200, inference.InferOptions(timeout_ms=20))
    assert results[-1].error.code == Code.DEADLINE_EXCEEDED
