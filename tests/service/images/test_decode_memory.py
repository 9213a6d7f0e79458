"""Decodes wait for memory, in turn, and get it when the images before them are gone."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from service.handlers.outcomes import DeadlineExceededError, ImageFailure, InvalidImageError
from service.images.cost import image_cost
from service.images.decode_memory import (
    DECODE_MEMORY,
    DecodeMemory,
    inherit_decode_memory,
    limit_decode_memory,
)
from service.images.decoding import decode_bgr
from service.options.given import OTHER_VARIABLES
from service.options.server_settings import ServerSettings
from service.processes.placement import Placement

WATCHDOG_S = 30


def waiting(memory: DecodeMemory, count: int) -> None:
    """Return when so many wait."""
    end_s = time.monotonic() + WATCHDOG_S
    while len(memory._waiting) < count:
        assert time.monotonic() < end_s
        threading.Event().wait(0.001)


def test_a_decoding_that_needs_more_than_there_is_waits_and_none_overtakes() -> None:
    memory = DecodeMemory(100)
    order: list[int] = []

    def take(need_bytes: int) -> None:
        memory.take(need_bytes)
        order.append(need_bytes)

    memory.take(60)
    with ThreadPoolExecutor(3) as pool:
        futures = []
        for count, need_bytes in enumerate((90, 10, 20), 1):
            futures.append(pool.submit(take, need_bytes))
            waiting(memory, count)
        assert not order, "10 would fit, and came later than 90"
        memory.give_back(60)
        futures[0].result(WATCHDOG_S)
        futures[1].result(WATCHDOG_S)
        assert sorted(order) == [10, 90]
        memory.give_back(90)
        futures[2].result(WATCHDOG_S)
    memory.give_back(30)
    assert memory.taken_bytes == 0


def test_more_than_there_ever_is_is_refused_at_once() -> None:
    with pytest.raises(InvalidImageError, match="takes 101 bytes of memory, and"):
        DecodeMemory(100).take(101)


def test_none_waits_beyond_the_deadline_or_in_front_of_others() -> None:
    memory = DecodeMemory(100)
    memory.take(60)
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(memory.take, 90, time.monotonic() + 0.2)
        waiting(memory, 1)
        small = pool.submit(memory.take, 40)
        with pytest.raises(DeadlineExceededError, match="came free in time"):
            late.result(WATCHDOG_S)
        small.result(WATCHDOG_S)
    assert memory.taken_bytes == 100


def test_images_that_are_never_let_go_are_an_error_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Instead of a wait for ever: for a graph that keeps whole images while it decodes others."""
    monkeypatch.setattr("service.images.decode_memory._STALLED_S", 0.05)
    memory = DecodeMemory(100)
    memory.take(60)
    with pytest.raises(ImageFailure, match="decoded images fill the 100 bytes") as caught:
        memory.take(50)
    assert not isinstance(caught.value, InvalidImageError | DeadlineExceededError)


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Sets the process's limit, and takes it away again."""

    def limit(limit_bytes: int) -> None:
        DECODE_MEMORY.limit_bytes = limit_bytes

    yield limit
    DECODE_MEMORY.limit_bytes = math.inf


def jpeg(side: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((side, side, 3), np.uint8))[1].tobytes()


def test_an_image_is_counted_until_its_last_view_is_gone(limited: Callable[[int], None]) -> None:
    data = jpeg(1000)
    cost = image_cost(data)
    assert cost is not None
    limited(cost.memory_bytes)
    before = DECODE_MEMORY.taken_bytes
    part = decode_bgr(data)[100:200]
    assert DECODE_MEMORY.taken_bytes == before + cost.memory_bytes
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(lambda: decode_bgr(data).shape)
        waiting(DECODE_MEMORY, 1)
        del part
        assert second.result(WATCHDOG_S) == (1000, 1000, 3)
    assert DECODE_MEMORY.taken_bytes == before


def test_what_a_damaged_image_took_comes_back() -> None:
    before = DECODE_MEMORY.taken_bytes
    with pytest.raises(InvalidImageError):
        decode_bgr(jpeg(100)[:-40])
    assert DECODE_MEMORY.taken_bytes == before


def test_many_threads_never_take_more_than_the_limit(limited: Callable[[int], None]) -> None:
    data = [jpeg(side) for side in (200, 400, 600)]
    largest = image_cost(data[-1])
    assert largest is not None
    limited(2 * largest.memory_bytes)
    seen: list[int] = []

    def decode(number: int) -> None:
        image = decode_bgr(data[number % 3])
        seen.append(DECODE_MEMORY.taken_bytes)
        del image

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(decode, range(200)))
    assert max(seen) <= 2 * largest.memory_bytes
    assert DECODE_MEMORY.taken_bytes == 0


def test_each_worker_has_its_share_and_room_for_one_image() -> None:
    whole = ServerSettings(workers=4, max_decoded_bytes=2**33, max_image_pixels=1_000_000)
    assert Placement(0, 4).server_settings(whole).max_decoded_bytes == 2**31
    large = ServerSettings(workers=4, max_decoded_bytes=1_000_000_000)
    share = Placement(0, 4).server_settings(large).max_decoded_bytes
    assert 300_000_000 < share < 400_000_000
    little = ServerSettings(workers=4, max_decoded_bytes=1000)
    assert Placement(0, 4).server_settings(little).max_decoded_bytes == 1000


def test_children_of_a_server_have_its_limit(limited: Callable[[int], None]) -> None:
    environment: dict[str, str] = {}
    limit_decode_memory(12345, environment)
    assert set(environment) <= OTHER_VARIABLES, (
        "a server that a child starts has options of its own"
    )
    limited(1)
    inherit_decode_memory(environment)
    assert DECODE_MEMORY.limit_bytes == 12345
    inherit_decode_memory({})
    assert DECODE_MEMORY.limit_bytes == 12345
