"""Backends and documents that the pipeline's tests share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.errors import ItemError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting, read_count


@register("TestDouble")
class Double(Backend):
    """Doubles numbers, several at a time; "boom", which is at fault, raises for the whole batch."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("test_max", read_count, "a count", 1),
        Setting("test_min", read_count, "a count", 1),
    )

    def init(self, config: InstanceConfig) -> None:
        self.max = config.settings["test_max"]
        self.min = config.settings["test_min"]
        self._thread = threading.get_ident()

    def forward(self, items: Sequence[Item]) -> None:
        assert threading.get_ident() == self._thread, "init and forward in one thread"
        assert len(items) <= self.max
        if any(item[TASK_DATA_KEY] == "boom" for item in items):
            raise ItemError("boom is no number")
        for item in items:
            item[TASK_RESULT_KEY] = item[TASK_DATA_KEY] * 2


class Gate:
    """Holds every forward of TestGated until `open` is set, and counts those inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[Any]] = []


@register("TestGated")
class Gated(Double):
    """Doubles once the gate is open."""

    gate: ClassVar[Gate]

    def forward(self, items: Sequence[Item]) -> None:
        gate = Gated.gate
        gate.batches.append([item[TASK_DATA_KEY] for item in items])
        gate.entered.release()
        assert gate.open.wait(30)
        super().forward(items)


@register("TestBrokenInit")
class BrokenInit(Double):
    """Cannot be initialised."""

    def init(self, config: InstanceConfig) -> None:
        raise OSError(f"no device for {config.node}")


@register("TestNoResult")
class NoResult(Double):
    """Gives no result and raises nothing."""

    def forward(self, items: Sequence[Item]) -> None:
        pass


@register("TestText")
class Text(Double):
    """Takes anything and makes text of it."""

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            item[TASK_RESULT_KEY] = f"text {item[TASK_DATA_KEY]}"


@register("TestKeep")
class Keep(Double):
    """Keeps its data under `last`, where a caller finds it, and as its result."""

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            item["last"] = item[TASK_RESULT_KEY] = item[TASK_DATA_KEY]


@pytest.fixture
def gate() -> Iterator[Gate]:
    """The gate of every TestGated in this test; opened at the end, so that no thread is left."""
    Gated.gate = Gate()
    yield Gated.gate
    Gated.gate.open.set()
