"""Decoded images in graphs: how many are there at a time, and what waits for them to go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import pipe
from pipeline.backends.containers import Sequential
from pipeline.backends.cpu_operator import CpuOperator
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from service.handlers.outcomes import DeadlineExceededError
from service.images.cost import image_cost
from service.images.decode_memory import DECODE_MEMORY

WATCHDOG_S = 30
IMAGE = cv2.imencode(".jpg", np.full((1000, 1000, 3), 90, np.uint8))[1].tobytes()


@pytest.fixture
def room_for_one() -> Iterator[int]:
    """Room for one image at a time: how many bytes that is."""
    cost = image_cost(IMAGE)
    assert cost is not None
    DECODE_MEMORY.limit_bytes = cost.memory_bytes
    yield cost.memory_bytes
    DECODE_MEMORY.limit_bytes = math.inf


class _Noting(CpuOperator):
    """Writes down which item passes it."""

    def __init__(self, name: str, notes: list[tuple[str, Any]]) -> None:
        self._name, self._notes = name, notes

    def process(self, item: Item) -> Any:
        self._notes.append((self._name, item["data"]))
        return item["data"]


@register("TestBatching")
class _Batching(Backend):
    """Takes up to eight items."""

    max = 8

    def __init__(self, notes: list[tuple[str, Any]] | None = None) -> None:
        self._notes = [] if notes is None else notes

    def init(self, config: InstanceConfig) -> None:
        """Nothing."""

    def forward(self, items: Sequence[Item]) -> None:
        self._notes.append(("batch", [item["data"] for item in items]))
        for item in items:
            item["result"] = item["data"]


@pytest.mark.parametrize("profile", [False, True])
def test_operators_of_one_item_are_done_with_it_before_the_next(profile: bool) -> None:
    notes: list[tuple[str, Any]] = []
    sequence = Sequential([_Noting("a", notes), _Noting("b", notes), _Batching(notes)])
    sequence.init(InstanceConfig("node", {}, 1, "auto", None, profile_stages=profile))
    sequence.forward([{"data": 1}, {"data": 2}])
    by_item = [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    by_operator = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert notes == [*(by_operator if profile else by_item), ("batch", [1, 2])]


@pytest.mark.usefixtures("room_for_one")
def test_a_batch_needs_room_for_one_of_its_images() -> None:
    """It would wait for itself if all were decoded first."""
    document = {
        "node": {
            "backend": "S[DecodeMat,ResizeMat,TestBatching]",
            "resize_h": 8,
            "resize_w": 8,
            "instance_num": 2,
        }
    }
    with pipe(document) as running:
        items: list[dict[str, Any]] = [{"data": IMAGE} for _ in range(20)]
        running(items)
        assert running.nodes["node"].counts.batches.by_size[8] >= 1
    assert [item["result"].shape for item in items] == [(8, 8, 3)] * 20
    assert DECODE_MEMORY.taken_bytes == 0


@pytest.mark.usefixtures("room_for_one")
def test_many_decoders_of_a_node_and_those_behind_it_share_the_room() -> None:
    """Whole images wait in the queue between, and decoders for them: nothing stands still."""
    document = {
        "decode": {"backend": "DecodeMat", "instance_num": 4, "next": "resize"},
        "resize": {"backend": "ResizeMat", "resize_h": 8, "resize_w": 8, "instance_num": 2},
    }
    with pipe(document) as running, ThreadPoolExecutor(8) as pool:

        def call(_: int) -> list[tuple[int, ...]]:
            items: list[dict[str, Any]] = [{"data": IMAGE} for _ in range(5)]
            running(items)
            return [item["result"].shape for item in items]

        for shapes in pool.map(call, range(16), timeout=WATCHDOG_S):
            assert shapes == [(8, 8, 3)] * 5
    assert DECODE_MEMORY.taken_bytes == 0


def test_an_image_waits_for_room_until_its_deadline(room_for_one: int) -> None:
    DECODE_MEMORY.take(room_for_one)
    try:
        with pipe({"node": {"backend": "DecodeMat"}}) as running:
            item: dict[str, Any] = {"data": IMAGE}
            running(item, timeout_ms=100)
            assert isinstance(item["error"].cause, DeadlineExceededError)
            DECODE_MEMORY.give_back(room_for_one)
            room_for_one = 0
            item = {"data": IMAGE}
            running(item, timeout_ms=WATCHDOG_S * 1000)
            assert item["result"].shape == (1000, 1000, 3)
    finally:
        DECODE_MEMORY.give_back(room_for_one)
