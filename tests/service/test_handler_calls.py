"""Calls that are begun: whose thread has others to begin before it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from service.admission import Admission
from service.call_counts import CallCounts
from service.call_limits import CallLimits
from service.handler_calls import HandlerCalls
from service.handlers.deadline import Deadline
from service.handlers.null import NullHandler
from service.handlers.outcomes import ImageFailure, InvalidImageError, Scores
from service.images.cost import known_cost
from service.options.server_settings import ServerSettings
from tests.service.conftest import TIMEOUT_S, ScriptedHandler
from tests.service.pictures import PICTURE


def _png(side: int) -> bytes:
    return cv2.imencode(".png", np.full((side, side, 3), 10, np.uint8))[1].tobytes()


COSTLY, USUAL, TOO_LARGE = _png(1300), _png(20), _png(2100)


class RecordingHandler(NullHandler):
    """Remembers which images were begun, and which waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[list[bytes]] = []
        self.waited_for: list[list[bytes]] = []

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        self.waited_for.append(list(images))
        return super().classify(images, deadline)

    def begin(
        self, images: Sequence[bytes], deadline: Deadline, done: Callable[[], None]
    ) -> Callable[[], list[Scores | ImageFailure]]:
        self.begun.append(list(images))
        return super().begin(images, deadline, done)


def _outcomes(
    handler: NullHandler | ScriptedHandler, images: list[bytes], counts: CallCounts
) -> list[Scores | ImageFailure]:
    calls = HandlerCalls(handler, CallLimits(ServerSettings(max_image_pixels=4_000_000)), counts)
    done = threading.Event()
    with Admission(1, 100).admit(len(images)) as place:
        begun = calls.begin(images, Deadline.after(TIMEOUT_S * 1000), place, done.set)
        assert done.wait(TIMEOUT_S)
        outcomes = begun.result()
    assert all(known_cost(image) is None for image in images)
    assert place.worked_on == sum(isinstance(one, Scores) for one in outcomes)
    return outcomes


def test_costly_images_get_a_thread_that_waits_for_them() -> None:
    handler, counts = RecordingHandler(), CallCounts()
    [usual] = _outcomes(handler, [USUAL], counts)
    assert isinstance(usual, Scores)
    assert (handler.begun, handler.waited_for) == ([[USUAL]], [])
    assert len(_outcomes(handler, [COSTLY, USUAL], counts)) == 2
    assert (handler.begun, handler.waited_for) == ([[USUAL]], [[USUAL], [COSTLY]])
    assert counts.read().images["ok"] == 3


def test_images_that_are_refused_are_not_begun() -> None:
    handler, counts = RecordingHandler(), CallCounts()
    refused, scores = _outcomes(handler, [TOO_LARGE, USUAL], counts)
    assert isinstance(refused, InvalidImageError)
    assert isinstance(scores, Scores)
    assert handler.begun == [[USUAL]]
    [refused] = _outcomes(handler, [TOO_LARGE], counts)
    assert isinstance(refused, InvalidImageError)
    assert handler.begun == [[USUAL]]


def test_what_a_handler_raises_in_a_thread_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(RuntimeError, match="secret cause"):
        _outcomes(ScriptedHandler(), [PICTURE + b"raise"], CallCounts())
