"""`Event`: calls that return at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

import thriftpipe.torchpipe as torchpipe


class _Waits:
    gate: ClassVar[threading.Event]

    def forward(self, items: list[dict[str, Any]]) -> None:
        assert _Waits.gate.wait(30)
        for item in items:
            item["result"] = 1 // item["data"]


torchpipe.register_backend(_Waits, "ApiWaits")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    _Waits.gate = threading.Event()
    yield _Waits.gate
    _Waits.gate.set()


@pytest.fixture
def run(gate: threading.Event) -> Iterator[torchpipe.pipe]:
    with torchpipe.pipe({"only": {"backend": "ApiWaits"}}) as pipe:
        yield pipe
        gate.set()


def test_a_call_with_an_event_returns_before_the_item_is_filled(
    run: torchpipe.pipe, gate: threading.Event
) -> None:
    event = torchpipe.Event()
    item = {"data": 1, "result": "old", torchpipe.TASK_EVENT_KEY: event}
    assert run(item) is None
    assert event.wait(1) is False
    assert event.valid()
    assert item == {"data": 1, "event": event}
    gate.set()
    assert event.Wait() is True
    assert event.wait(0) is True
    assert not event.valid()
    assert (item["result"], item["event"]) == (1, event)
    assert event.time_passed() > 0


def test_waiting_raises_what_the_call_would_have_raised(
    run: torchpipe.pipe, gate: threading.Event
) -> None:
    gate.set()
    event = torchpipe.Event()
    assert event.get_exception() is None
    event.try_throw()
    item = {"data": 0, "event": event}
    run(item)
    with pytest.raises(ZeroDivisionError):
        event.Wait()
    with pytest.raises(ZeroDivisionError):
        event.try_throw()
    assert isinstance(event.get_exception(), ZeroDivisionError)
    assert "result" not in item


def test_a_list_may_have_items_with_and_without_events(
    run: torchpipe.pipe, gate: threading.Event
) -> None:
    gate.set()
    event = torchpipe.Event(num=2)
    items: list[dict[str, Any]] = [
        {"data": 1, "event": event},
        {"data": 1},
        {"data": 1, "event": event},
    ]
    run(items)
    assert items[1]["result"] == 1
    assert event.wait(30_000)
    assert [item["result"] for item in items] == [1, 1, 1]


def test_callbacks_run_when_the_item_is_filled_and_before_waiting_ends(
    run: torchpipe.pipe, gate: threading.Event
) -> None:
    event = torchpipe.Event()
    item: dict[str, Any] = {"data": 1, "event": event}
    told: list[str] = []

    def first() -> None:
        # It may wait for the same pipe, and for its own event.
        event.Wait()
        told.append(f"first {item['result']} {run(data=1)}")

    event.set_final_callback(lambda: told.append("final"))
    event.set_callback(first)
    event.set_callback(lambda: 1 // 0)
    event.set_callback(lambda: told.append("last"))
    event.set_exception_callback(lambda error: told.append(repr(error)))
    with pytest.raises(RuntimeError, match="final callback already"):
        event.set_final_callback(lambda: None)
    run(item)
    gate.set()
    assert event.wait(30_000)
    assert told == ["last", "first 1 1", "final"]
    event.set_callback(lambda: told.append("at once"))
    assert told[-1] == "at once"


def test_an_exception_callback_gets_the_exception_first(
    run: torchpipe.pipe, gate: threading.Event
) -> None:
    event = torchpipe.Event()
    told: list[str] = []
    event.set_callback(lambda: told.append("done"))
    event.set_exception_callback(lambda error: told.append(type(error).__name__))
    run({"data": 0, "event": event})
    gate.set()
    with pytest.raises(ZeroDivisionError):
        event.wait(30_000)
    event.set_exception_callback(lambda error: told.append(f"late {type(error).__name__}"))
    assert told == ["ZeroDivisionError", "done", "late ZeroDivisionError"]


def test_a_callback_alone_is_told_even_if_nobody_waits_and_the_pipe_is_dropped(
    gate: threading.Event,
) -> None:
    told = threading.Event()
    event = torchpipe.Event()
    event.set_callback(told.set)
    pipe = torchpipe.pipe({"only": {"backend": "ApiWaits"}})
    pipe({"data": 1, "event": event})
    gate.set()
    del pipe
    assert told.wait(30)


def test_an_event_is_used_once_and_holds_an_event(
    run: torchpipe.pipe, gate: threading.Event
) -> None:
    gate.set()
    event = torchpipe.Event()
    run({"data": 1, "event": event})
    event.Wait()
    with pytest.raises(ValueError, match="used before: make a new Event"):
        run({"data": 1, "event": event})
    with pytest.raises(TypeError, match="'event' holds a Event: expected a"):
        run({"data": 1, "event": threading.Event()})
    # Any other value is a key like others.
    item = {"data": 1, "event": 1}
    run(item)
    assert (item["result"], item["event"]) == (1, 1)
    with pytest.raises(ValueError, match=r"Event\(num=0\)"):
        torchpipe.Event(0)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({}, IndexError),
        ({"event": torchpipe.Event()}, IndexError),
        ({"data": 1, "event": threading.Event()}, TypeError),
        ({"data": 1, "request_size": 0}, IndexError),
    ],
    ids=["no data", "no data, event", "another event", "no size"],
)
def test_of_a_list_with_a_bad_item_nothing_is_run(
    run: torchpipe.pipe, gate: threading.Event, bad: dict[str, Any], error: type[Exception]
) -> None:
    gate.set()
    event = torchpipe.Event(num=2)
    items = [{"data": 1, "event": event}, {"data": 1}, {"data": 1, "event": event}, bad]
    with pytest.raises(error):
        run(items)
    # Closing waits for what is under way.
    run.close()
    assert [item.keys() & {"result", "error"} for item in items] == [set()] * 4
    if error is IndexError:
        with pytest.raises(IndexError):
            event.Wait()


def test_of_a_list_with_a_used_event_nothing_is_run_and_the_others_can_be_used(
    run: torchpipe.pipe, gate: threading.Event
) -> None:
    gate.set()
    new, twice = torchpipe.Event(), torchpipe.Event()
    items = [{"data": 1, "event": event} for event in (new, twice, twice)]
    with pytest.raises(ValueError, match="used before"):
        run(items)
    run(items[:2])
    assert new.wait(30_000)
    assert twice.wait(30_000)
    run.close()
    assert ["result" in item for item in items] == [True, True, False]


def test_an_item_that_cannot_enter_fails_its_event_and_the_call(run: torchpipe.pipe) -> None:
    event = torchpipe.Event()
    with pytest.raises(IndexError, match="needs 'data'"):
        run({"event": event})
    with pytest.raises(IndexError, match="needs 'data'"):
        event.Wait()
