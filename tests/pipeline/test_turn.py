"""Instances that take turns at something that only one of them can use."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from pipeline import TASK_DATA_KEY, TASK_RESULT_KEY, Pipe, pipe
from pipeline.backend import Backend, InstanceConfig, Item
from pipeline.registry import register
from pipeline.turn import Turn


def test_only_the_holder_passes_it_on() -> None:
    turn = Turn()
    turn.pass_on()
    turn.wait()
    other = threading.Thread(target=turn.pass_on)
    other.start()
    other.join()
    had = threading.Event()
    waiting = threading.Thread(target=lambda: (turn.wait(), had.set(), turn.pass_on()))
    waiting.start()
    assert not had.is_set()
    turn.pass_on()
    waiting.join()
    assert had.is_set()
    turn.wait()


@register("TestUsesHardware")
class UsesHardware(Backend):
    """Counts how many instances are in their first part at once; the second part is open to all."""

    takes_turns: ClassVar[bool] = True
    inside: ClassVar[int] = 0
    most_inside: ClassVar[int] = 0
    both_behind: ClassVar[threading.Barrier] = threading.Barrier(2)

    @property
    def max(self) -> int:
        return 1

    def init(self, config: InstanceConfig) -> None:
        self._turn = config.turn

    def forward(self, items: Sequence[Item]) -> None:
        cls = type(self)
        cls.inside += 1
        cls.most_inside = max(cls.most_inside, cls.inside)
        cls.inside -= 1
        assert self._turn is not None
        self._turn.pass_on()
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


def test_a_failure_does_not_keep_the_turn(running: Pipe) -> None:
    items: list[dict[str, Any]] = [{TASK_DATA_KEY: "fails"} for _ in range(5)]
    running(items)
    good: list[dict[str, Any]] = [{TASK_DATA_KEY: number} for number in range(4)]
    running(good)
    assert [item[TASK_RESULT_KEY] for item in good] == list(range(4))
