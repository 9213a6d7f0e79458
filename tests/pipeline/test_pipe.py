"""The callable: results, failures, threads, deadlines, closing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

import pytest

from pipeline import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_RESULT_KEY,
    DeadlinePassedError,
    NodeError,
    Pipe,
    PipelineConfigError,
    PipelineInputError,
    Status,
    pipe,
    register_filter,
)
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.runtime.counts import LeaveReason

CHAIN = {
    "first": {"backend": "TestDouble", "next": "second", "instance_num": 2},
    "second": {"backend": "S[TestDouble,TestDouble]", "test_max": 4, "instance_num": 2},
}


def items(*data: Any) -> list[dict[str, Any]]:
    return [{TASK_DATA_KEY: value} for value in data]


def test_one_dict_or_a_list_of_dicts_is_filled_in_place() -> None:
    with pipe(CHAIN) as run:
        one = {TASK_DATA_KEY: 1, "mine": "kept"}
        run(one)
        several = items(1, 2, 3)
        run(several)
    assert (one[TASK_RESULT_KEY], one[TASK_DATA_KEY], one["mine"]) == (8, 1, "kept")
    assert [item[TASK_RESULT_KEY] for item in several] == [8, 16, 24]


def test_stage_times_name_every_node_in_order() -> None:
    with pipe(CHAIN) as run:
        one = {TASK_DATA_KEY: 1}
        run(one)
    assert list(one["stage_times_ms"]) == [
        "first.queue",
        "first.forward",
        "second.queue",
        "second.forward",
    ]


def test_many_threads_get_their_own_results() -> None:
    with pipe(CHAIN) as run, ThreadPoolExecutor(16) as callers:

        def call(number: int) -> bool:
            batch = items(number, number + 0.5)
            run(batch)
            return [item[TASK_RESULT_KEY] for item in batch] == [number * 8, number * 8 + 4]

        assert all(callers.map(call, range(2000)))


def test_a_bad_item_loses_only_itself_even_inside_a_batch(gate: Any) -> None:
    document = {"only": {"backend": "TestGated", "test_max": 4}}
    with pipe(document) as run:
        # The first item occupies the instance, so that the other four leave as one batch.
        blocker = threading.Thread(target=run, args=({TASK_DATA_KEY: 0},))
        blocker.start()
        gate.entered.acquire()
        batch = items(1, "boom", 2, 3)
        caller = threading.Thread(target=run, args=(batch,))
        caller.start()
        gate.open.set()
        blocker.join(30)
        caller.join(30)
    assert [item.get(TASK_RESULT_KEY) for item in batch] == [2, None, 4, 6]
    error = batch[1][TASK_ERROR_KEY]
    assert isinstance(error, NodeError)
    assert str(error) == "node 'only': boom is no number"
    assert all(TASK_ERROR_KEY not in batch[index] for index in (0, 2, 3))


def test_a_failed_item_goes_no_further_in_a_sequence() -> None:
    with pipe({"only": {"backend": "S[TestDouble,TestDouble]", "test_max": 3}}) as run:
        batch = items("boom", 5)
        run(batch)
    assert TASK_RESULT_KEY not in batch[0]
    assert batch[1][TASK_RESULT_KEY] == 20


def test_a_backend_without_a_result_is_an_error_that_names_the_node() -> None:
    with pipe({"silent": {"backend": "TestNoResult", "next": "b"}, "b": CHAIN["second"]}) as run:
        one = {TASK_DATA_KEY: 1, TASK_RESULT_KEY: "stale"}
        run(one)
    assert TASK_RESULT_KEY not in one
    assert str(one[TASK_ERROR_KEY]) == "node 'silent': the backend gave no result"


def test_an_error_of_an_earlier_call_is_gone_when_the_item_succeeds() -> None:
    with pipe(CHAIN) as run:
        one: dict[str, Any] = {TASK_DATA_KEY: "boom"}
        run(one)
        assert TASK_ERROR_KEY in one
        one[TASK_DATA_KEY] = 1
        run(one)
    assert one[TASK_RESULT_KEY] == 8
    assert TASK_ERROR_KEY not in one


def test_items_that_wait_while_all_instances_work_leave_together(gate: Any) -> None:
    with pipe({"only": {"backend": "TestGated", "test_max": 4}}) as run:
        first = threading.Thread(target=run, args=({TASK_DATA_KEY: 0},))
        first.start()
        gate.entered.acquire()
        rest = threading.Thread(target=run, args=(items(1, 2, 3, 4, 5, 6),))
        rest.start()
        # All six are queued before the gate opens: the queue counts what it holds.
        queue = run.nodes["only"]._queue
        end_s = time.monotonic() + 30
        while len(queue) < 6:
            assert time.monotonic() < end_s
        gate.open.set()
        first.join(30)
        rest.join(30)
        assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert run.nodes["only"].counts.batches.by_reason == {
            LeaveReason.IDLE: 2,
            LeaveReason.FULL: 1,
        }


def test_a_second_idle_instance_takes_an_item_while_the_first_works(gate: Any) -> None:
    """No item waits for its batching_timeout while an instance is idle."""
    document = {
        "batching_timeout": 60_000,
        "only": {"backend": "TestGated", "test_max": 4, "instance_num": 2},
    }
    with pipe(document) as run:
        callers = [
            threading.Thread(target=run, args=({TASK_DATA_KEY: number},)) for number in (1, 2)
        ]
        for caller in callers:
            caller.start()
            assert gate.entered.acquire(timeout=30)
        gate.open.set()
        for caller in callers:
            caller.join(30)
    assert gate.batches == [[1], [2]]


def test_the_deadline_frees_the_caller_and_drops_what_has_not_begun(gate: Any) -> None:
    with pipe({"only": {"backend": "TestGated"}}) as run:
        batch = items(1, 2)
        run(batch, timeout_ms=30)
        assert all(isinstance(item[TASK_ERROR_KEY], DeadlinePassedError) for item in batch)
        before = [dict(item) for item in batch]
        gate.open.set()
    # Closing has run what was queued: the first item late, the second not at all, and neither
    # has touched what the caller holds.
    assert gate.batches == [[1]]
    assert batch == before


def test_node_name_chooses_the_entry() -> None:
    with pipe(CHAIN) as run:
        one = {TASK_DATA_KEY: 1, "node_name": "second"}
        run(one)
        assert one[TASK_RESULT_KEY] == 4


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "an item needs 'data'"),
        ({5: 1, "x": 2}, r"an item needs 'data', got \['5', 'x'\]"),
        ({TASK_DATA_KEY: 1, "node_name": "secnd"}, "did you mean 'second'"),
        ({TASK_DATA_KEY: 1, "node_name": ["second"]}, "unknown node"),
        (5, "a call takes a dictionary or a list of dictionaries, .* got a list with int"),
        (MappingProxyType({TASK_DATA_KEY: 1}), "got a list with mappingproxy"),
    ],
)
def test_a_call_that_makes_no_sense_runs_nothing(item: Any, message: str) -> None:
    with pipe(CHAIN) as run:
        good = {TASK_DATA_KEY: 1}
        with pytest.raises(PipelineInputError, match=message):
            run([good, item])
        if not isinstance(item, dict):
            with pytest.raises(PipelineInputError, match=f"got {type(item).__name__}"):
                run(item)
    assert good == {TASK_DATA_KEY: 1}


def test_several_roots_need_a_node_name() -> None:
    with pipe({"a": {"backend": "TestDouble"}, "b": {"backend": "TestDouble"}}) as run:
        with pytest.raises(PipelineInputError, match="needs 'node_name': one of a, b"):
            run({TASK_DATA_KEY: 1})
        one = {TASK_DATA_KEY: 1, "node_name": "b"}
        run(one)
    assert one[TASK_RESULT_KEY] == 2


def test_what_a_file_says_without_effect_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pipe({"a": {"next": "a.2", "priority": "low"}, "a.2": {"backend": "DecodeMat"}}):
        pass
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "[a]: priority is ignored: instances have one priority",
        "[a.2] runs the instances of [a]; without effect here: backend",
    ]


def test_an_empty_list_is_no_work() -> None:
    with pipe(CHAIN) as run:
        run([])


def test_a_failed_init_is_reported_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with pytest.raises(PipelineConfigError, match=r"\[bad\] no device for bad"):
        pipe({"good": {"backend": "TestDouble"}, "bad": {"backend": "TestBrokenInit"}})
    assert set(threading.enumerate()) == before


def test_closing_ends_every_thread_and_a_later_call_is_refused() -> None:
    before = set(threading.enumerate())
    run = pipe(CHAIN)
    assert len(threading.enumerate()) == len(before) + 4
    run.close()
    run.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(PipelineInputError, match="closed"):
        run({TASK_DATA_KEY: 1})


@register("TestWithin")
class Within(Backend):
    """Does what the item holds, in the instance's thread."""

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            data = item[TASK_DATA_KEY]
            item[TASK_RESULT_KEY] = data() if callable(data) else data


@register_filter("TestAsk")
def ask(item: Item) -> Status:
    """Does what the item holds, and leaves it out."""
    item["told"] = item[TASK_DATA_KEY]()
    return Status.SKIP


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(PipelineInputError) as refusal:
        action()
    return str(refusal.value)


def test_closing_by_what_it_would_wait_for_is_refused() -> None:
    with pipe({"only": {"backend": "TestWithin", "instance_num": 2}}) as run:
        inner = {TASK_DATA_KEY: lambda: refused(run.close)}
        run(inner)
        assert inner[TASK_RESULT_KEY] == (
            "close() was called in the thread of an instance of node 'only', for whose end it "
            "would wait: call it in another thread, such as the one that has loaded the pipeline"
        )
        raising = {TASK_DATA_KEY: run.close}
        run([raising, good := {TASK_DATA_KEY: 1}])
        assert "node 'only': close() was called" in str(raising[TASK_ERROR_KEY])
        assert good[TASK_RESULT_KEY] == 1
    run.close()
    with pipe({"only": {"backend": "Identity", "filter": "TestAsk"}}) as run:
        in_caller = {TASK_DATA_KEY: lambda: refused(run.close)}
        run(in_caller)
        assert "in the thread of a call of the pipeline" in in_caller["told"]


def test_an_item_that_its_one_instance_would_wait_for_is_refused() -> None:
    document = {
        "first": {"backend": "TestWithin", "next": "second"},
        "second": {"backend": "TestWithin"},
    }

    def again(run: Pipe, node: str) -> Callable[[], object]:
        def call() -> object:
            item = {TASK_DATA_KEY: 5, "node_name": node}
            run(item)
            return item[TASK_RESULT_KEY]

        return call

    with pipe(document) as run, pipe(document) as other:
        items = [
            {TASK_DATA_KEY: lambda: refused(again(run, "first"))},
            {TASK_DATA_KEY: again(run, "second")},
            {TASK_DATA_KEY: again(other, "first")},
        ]
        for item in items:
            run(item)
    assert items[0][TASK_RESULT_KEY] == (
        "node 'first' has one instance, and that has called its own pipeline with an item for "
        "'first': it would wait for itself. Call another pipe, or connect nodes by next, map or "
        "jump"
    )
    assert [item[TASK_RESULT_KEY] for item in items[1:]] == [5, 5]
    two = {"only": {"backend": "TestWithin", "instance_num": 2}}
    with pipe(two) as run:
        run(item := {TASK_DATA_KEY: again(run, "only")})
    assert item[TASK_RESULT_KEY] == 5


def test_a_pipe_that_is_dropped_stops_its_threads() -> None:
    before = set(threading.enumerate())
    run = pipe(CHAIN)
    del run
    assert set(threading.enumerate()) == before


def test_a_submitted_item_is_filled_before_its_caller_is_told(gate: Any) -> None:
    with pipe({"only": {"backend": "TestGated"}}) as run:
        good, bad = {TASK_DATA_KEY: 1, TASK_RESULT_KEY: "old"}, {TASK_DATA_KEY: "boom"}
        told = [threading.Event(), threading.Event()]
        run.submit(good, told[0].set)
        run.submit(bad, told[1].set)
        assert gate.entered.acquire(timeout=30)
        assert not told[0].is_set()
        gate.open.set()
        assert all(event.wait(30) for event in told)
    assert (good[TASK_RESULT_KEY], good[TASK_DATA_KEY]) == (2, 1)
    assert TASK_RESULT_KEY not in bad
    assert isinstance(bad[TASK_ERROR_KEY], NodeError)


def test_calls_that_one_thread_begins_are_each_a_caller(gate: Any) -> None:
    with pipe({"only": {"backend": "TestGated"}}) as run:
        many = [{TASK_DATA_KEY: number} for number in (1, 2, 3)]
        one = [{TASK_DATA_KEY: 10}]
        told = [threading.Event(), threading.Event()]
        fills = [run.begin(many, told[0].set), run.begin(one, told[1].set)]
        gate.open.set()
        assert all(event.wait(30) for event in told)
        for fill in fills:
            fill()
    # The other caller's item does not wait for all of many.
    assert gate.batches.index([10]) < gate.batches.index([3])
    assert [item[TASK_RESULT_KEY] for item in [*many, *one]] == [2, 4, 6, 20]


def test_calls_that_are_begun_again_and_again_do_not_pass_one_of_many(gate: Any) -> None:
    with pipe({"only": {"backend": "TestGated"}}) as run:
        told, last = threading.Event(), threading.Event()
        under_way: deque[Callable[[], None]] = deque()

        def again() -> None:
            under_way.popleft()()
            if len(gate.batches) < 100:
                under_way.append(run.begin(items(10), again))
            elif not under_way:
                last.set()

        fill = run.begin(items(1, 2, 3), told.set)
        under_way.extend(run.begin(items(10), again) for _ in range(2))
        gate.open.set()
        assert last.wait(30)
        assert told.wait(30)
        fill()
    assert gate.batches.index([3]) < 10


def test_a_call_that_was_begun_ends_with_its_time(gate: Any) -> None:
    with pipe({"only": {"backend": "TestGated"}}) as run:
        items = [{TASK_DATA_KEY: 1}, {TASK_DATA_KEY: 2}]
        told, dropped = threading.Event(), SimpleQueue[object]()
        fill = run.begin(
            items, told.set, timeout_ms=60_000, has_gone=gate.open.is_set, item_done=dropped.put
        )
        assert gate.entered.acquire(timeout=30)
        fill()
        assert all(isinstance(item[TASK_ERROR_KEY], DeadlinePassedError) for item in items)
        gate.open.set()
        assert told.wait(30)
    # Only the first one was at work when its caller went.
    assert gate.batches == [[1]]
    assert dropped.get_nowait() is None
    assert isinstance(dropped.get_nowait(), NodeError)
    with pytest.raises(PipelineInputError, match="closed"):
        run.begin(items, told.set)


def test_submitted_items_pass_chains_and_forks() -> None:
    fork = {
        "first": {"backend": "TestDouble", "next": "left,right"},
        "left": {"backend": "TestDouble"},
        "right": {"backend": "TestText"},
    }
    for document, key, value in (
        (CHAIN, TASK_RESULT_KEY, 8),
        (fork, "results", {"left": 4, "right": "text 2"}),
    ):
        with pipe(document) as run:
            one, told = {TASK_DATA_KEY: 1}, threading.Event()
            run.submit(one, told.set)
            assert told.wait(30)
        assert one[key] == value


def test_closing_waits_for_submitted_items(gate: Any) -> None:
    run = pipe({"only": {"backend": "TestGated"}})
    one = {TASK_DATA_KEY: 1}
    run.submit(one, lambda: None)
    assert gate.entered.acquire(timeout=30)
    closer = threading.Thread(target=run.close)
    closer.start()
    gate.open.set()
    closer.join(30)
    assert one[TASK_RESULT_KEY] == 2
    with pytest.raises(PipelineInputError, match="closed"):
        run.submit(one, lambda: None)


def test_what_the_caller_of_a_submitted_item_raises_costs_no_other_item(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> None:
        raise ValueError("not mine")

    with pipe(CHAIN) as run:
        run.submit({TASK_DATA_KEY: 1}, broken)
        one = {TASK_DATA_KEY: 1}
        run(one)
    assert one[TASK_RESULT_KEY] == 8
    assert "ValueError: not mine" in caplog.text


def test_a_submitted_item_that_no_configuration_accepts_is_refused() -> None:
    with pipe(CHAIN) as run, pytest.raises(PipelineInputError, match="needs 'data'"):
        run.submit({}, pytest.fail)
