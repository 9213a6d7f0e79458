"""Instances that decode with hardware that only one of them can use."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from pipeline import TASK_DATA_KEY, TASK_RESULT_KEY, Pipe, pipe
from pipeline.backends.decoder_lock import DecoderLock
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register


def test_only_the_holder_releases_it() -> None:
    lock = DecoderLock()
    lock.release()
    lock.acquire()
    other = threading.Thread(target=lock.release)
    other.start()
    other.join()
    had = threading.Event()
    waiting = threading.Thread(target=lambda: (lock.acquire(), had.set(), lock.release()))
    waiting.start()
    assert not had.is_set()
    lock.release()
    waiting.join()
    assert had.is_set()
    lock.acquire()


@register("TestUsesHardware")
class UsesHardware(Backend):
    """Counts how many instances are in their first part at once; the second part is open to all."""

    locks_decoder: ClassVar[bool] = True
    inside: ClassVar[int] = 0
    most_inside: ClassVar[int] = 0
    both_behind: ClassVar[threading.Barrier] = threading.Barrier(2)

    @property
    def max(self) -> int:
        return 1

    def init(self, config: InstanceConfig) -> None:
        self._decoder_lock = config.decoder_lock

    def forward(self, items: Sequence[Item]) -> None:
        cls = type(self)
        cls.inside += 1
        cls.most_inside = max(cls.most_inside, cls.inside)
        cls.inside -= 1
        assert self._decoder_lock is not None
        self._decoder_lock.release()
        if items[0][TASK_DATA_KEY] == "fails":
            raise ValueError("no such thing")
        # Passed only if the other instance gets here while this one has not finished its batch.
        self.both_behind.wait(30)
        for item in items:
            item[TASK_RESULT_KEY] = item[TASK_DATA_KEY]


@pytest.fixture
def running() -> Iterator[Pipe]:
    with pipe({"node": {"backend": "TestUsesHardware", "instance_num": 2}}) as started:
        yield started


def test_the_next_instance_goes_ahead_while_the_first_still_works(running: Pipe) -> None:
    items: list[dict[str, Any]] = [{TASK_DATA_KEY: number} for number in range(100)]
    running(items)
    assert [item[TASK_RESULT_KEY] for item in items] == list(range(100))
    assert UsesHardware.most_inside == 1


def test_a_failure_does_not_keep_the_lock(running: Pipe) -> None:
    items: list[dict[str, Any]] = [{TASK_DATA_KEY: "fails"} for _ in range(5)]
    running(items)
    good: list[dict[str, Any]] = [{TASK_DATA_KEY: number} for number in range(4)]
    running(good)
    assert [item[TASK_RESULT_KEY] for item in good] == list(range(4))
