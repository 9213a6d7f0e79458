"""Nodes on the CPU share the cores: who runs what, in which order, and what a failure costs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from engine.cpu.cores import CORES_VARIABLE
from pipeline import NodeError, Pipe, PipelineInputError, pipe
from pipeline.backends.cpu_operator import CpuOperator
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.errors import DeadlinePassedError
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_RESULT_KEY,
)
from pipeline.language.settings import Setting, read_count
from pipeline.runtime.counts import LeaveReason
from service.handlers.restart_policy import RestartPolicy
from service.images.cost import image_cost
from service.images.decode_memory import DECODE_MEMORY
from tests.robustness.colour_model import SIDE, write_colour_model
from tests.serving import TIMEOUT_S
from tests.waiting import wait_until

NEVER_MS = 60_000
AT_ONCE = RestartPolicy(first_wait_s=0.0)


class Log:
    """What the backends of this file have done; one for each test."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: list[tuple[str, list[Any]]] = []
        self.threads: list[int] = []
        self.init_threads: list[int] = []
        self.inside = 0
        self.most_inside = 0
        # Called within every forward, with the node's name.
        self.meanwhile: Callable[[str], None] = lambda _: None
        self.ends_pass: Callable[[str], None] = lambda _: None


@register("TestPooled")
class Pooled(Backend):
    """Hands numbers on, several at a time; an exception as data is raised."""

    settings: ClassVar[tuple[Setting, ...]] = (Setting("test_max", read_count, "a count", 1),)
    any_thread = True
    log: ClassVar[Log]

    def init(self, config: InstanceConfig) -> None:
        self.max = config.settings["test_max"]
        self._node = config.node
        Pooled.log.init_threads.append(threading.get_ident())

    def forward(self, items: Sequence[Item]) -> None:
        log = Pooled.log
        with log.lock:
            # An image that is kept here would keep its memory.
            numbers = [data for item in items if isinstance(data := item[TASK_DATA_KEY], int)]
            log.batches.append((self._node, numbers))
            log.threads.append(threading.get_ident())
            log.inside += 1
            log.most_inside = max(log.most_inside, log.inside)
        try:
            log.meanwhile(self._node)
            for item in items:
                if isinstance(item[TASK_DATA_KEY], BaseException):
                    raise item[TASK_DATA_KEY]
                item[TASK_RESULT_KEY] = item[TASK_DATA_KEY]
        finally:
            with log.lock:
                log.inside -= 1

    def end_pass(self) -> None:
        Pooled.log.ends_pass(self._node)


@pytest.fixture
def log() -> Log:
    Pooled.log = Log()
    return Pooled.log


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORES_VARIABLE, "1")


def two_nodes(largest: int, **settings: Any) -> dict[str, Any]:
    return {
        "first": {"backend": "TestPooled", "next": "second", **settings},
        "second": {"backend": "TestPooled", "test_max": largest, **settings},
    }


class Door:
    """Lets the first batch in, which then stands still until `open`."""

    def __init__(self, log: Log) -> None:
        self.is_entered, self.open = threading.Event(), threading.Event()
        log.meanwhile = self.pass_

    def pass_(self, node: str) -> None:
        del node
        self.is_entered.set()
        assert self.open.wait(TIMEOUT_S)


def until_idle(run: Pipe) -> None:
    """Return when all instances wait for work; when they are started, they are about to."""
    for node in run.local_nodes.values():
        queue = node.pooled
        assert queue is not None
        wait_until(lambda queue=queue, node=node: queue.idle_instances == node.instance_num)


def run_behind(
    run: Pipe, door: Door, numbers: Sequence[Any], entries: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Run items, of which the first has the one core until the others wait, from their entries."""
    until_idle(run)
    items: list[dict[str, Any]] = [{TASK_DATA_KEY: number} for number in numbers]
    for item, entry in zip(items, entries, strict=False):
        item["node_name"] = entry
    done = [threading.Event() for _ in items]
    run.submit(items[0], done[0].set)
    assert door.is_entered.wait(TIMEOUT_S)
    for item, event in zip(items[1:], done[1:], strict=True):
        run.submit(item, event.set)
    door.open.set()
    assert all(event.wait(TIMEOUT_S) for event in done)
    return items


@pytest.mark.usefixtures("one_core")
def test_nodes_before_a_batch_fill_it_and_a_full_one_comes_first(log: Log) -> None:
    with pipe(two_nodes(2, batching_timeout=NEVER_MS)) as run:
        items = run_behind(run, Door(log), range(5))
        counts = run.local_nodes["second"].counts.batches
    assert [item[TASK_RESULT_KEY] for item in items] == list(range(5))
    assert log.batches == [
        *(("first", [0]), ("first", [1]), ("second", [0, 1])),
        *(("first", [2]), ("first", [3]), ("second", [2, 3])),
        # Nothing could fill it any more.
        *(("first", [4]), ("second", [4])),
    ]
    assert counts.by_reason == {LeaveReason.FULL: 2, LeaveReason.IDLE: 1}
    assert log.most_inside == 1


@pytest.mark.usefixtures("one_core")
def test_a_batch_is_not_filled_for_longer_than_batching_timeout(log: Log) -> None:
    with pipe(two_nodes(4, batching_timeout=0)) as run:
        run_behind(run, Door(log), range(3))
    assert log.batches == [(node, [number]) for number in range(3) for node in ("first", "second")]


@pytest.mark.parametrize("cores", [1, 2])
def test_all_nodes_together_run_no_more_batches_than_there_are_cores(
    log: Log, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("pipeline.callable_pipe.available_cores", lambda: cores)
    nodes = two_nodes(3, instance_num=3)
    nodes["second"]["next"] = "third"
    nodes["third"] = {"backend": "TestPooled", "instance_num": 3}
    with pipe(nodes) as run, ThreadPoolExecutor(8) as callers:

        def call(number: int) -> list[Any]:
            items = [{TASK_DATA_KEY: number + k} for k in range(1 + number % 3)]
            run(items)
            return [item[TASK_RESULT_KEY] for item in items]

        for number, results in enumerate(callers.map(call, range(400))):
            assert results == [number + k for k in range(1 + number % 3)]
    assert log.most_inside <= cores


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("flooded", ["x", "y"])
def test_nodes_without_a_way_between_them_take_turns(log: Log, flooded: str) -> None:
    """Two models in one file: whoever asks for one of them does not wait for those of the other."""
    other = "y" if flooded == "x" else "x"
    nodes = {"x": {"backend": "TestPooled"}, "y": {"backend": "TestPooled"}}
    entries = [flooded, flooded, flooded, flooded, other]
    with pipe(nodes) as run:
        run_behind(run, Door(log), range(5), entries)
    assert [numbers for _, numbers in log.batches] == [[0], [1], [4], [2], [3]]


@pytest.mark.usefixtures("one_core")
def test_items_that_enter_later_in_a_chain_do_not_overtake_older_ones(log: Log) -> None:
    door = Door(log)
    entries = ["second", "second", "first", "second"]
    with pipe(two_nodes(1)) as run, ThreadPoolExecutor(4) as callers:
        until_idle(run)
        queues = {name: node.pooled for name, node in run.local_nodes.items()}
        calls = []
        for number, entry in enumerate(entries):
            item = {TASK_DATA_KEY: number, "node_name": entry}
            calls.append(callers.submit(run, item))
            # Each is there before the next one comes.
            wait_until(lambda: log.inside + sum(map(len, queues.values())) == len(calls))
        door.open.set()
        for call in calls:
            call.result(TIMEOUT_S)
    # In one queue the first to come is the first to leave.
    assert [numbers for _, numbers in log.batches] == [[0], [1], [2], [3], [2]]


def test_an_instance_that_a_caller_gives_back_is_used_at_once(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the caller goes on with its item, what waited behind it has the other core."""
    monkeypatch.setattr("pipeline.callable_pipe.available_cores", lambda: 2)
    nodes = two_nodes(1)
    nodes["second"]["instance_num"] = 2
    doors = {"first": threading.Event(), "second": threading.Event()}
    log.meanwhile = lambda node: assert_set(doors[node])
    with pipe(nodes) as run, ThreadPoolExecutor(2) as callers:
        queue = run.local_nodes["first"].pooled
        assert queue is not None
        items: list[dict[str, Any]] = [{TASK_DATA_KEY: number} for number in range(2)]
        calls = [callers.submit(run, items[0])]
        wait_until(lambda: log.inside)
        calls.append(callers.submit(run, items[1]))
        wait_until(lambda: len(queue))
        doors["first"].set()
        wait_until(lambda: len(log.batches) == 4)
        doors["second"].set()
        for call in calls:
            call.result(TIMEOUT_S)
    assert [item[TASK_RESULT_KEY] for item in items] == [0, 1]


def assert_set(event: threading.Event) -> None:
    assert event.wait(TIMEOUT_S)


def test_an_item_gets_an_instance_that_holds_its_rows(tmp_path: Path) -> None:
    colours = write_colour_model(tmp_path)
    node = {"backend": "TensorrtTensor", "model": str(colours.model), "instance_num": 2}
    node.update(min="1;1", max="4;1", mean="0,0,0", std="255,255,255")
    pixels = torch.zeros((3, 3, SIDE, SIDE), dtype=torch.uint8)
    with pipe({"model": node}, engine="onnxruntime") as run:
        for _ in range(4):
            item = {TASK_DATA_KEY: pixels, "request_size": 3}
            run(item)
            assert TASK_RESULT_KEY in item, item


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("raised_by", ["backend", "callback"])
def test_a_keyboard_interrupt_in_a_worker_loses_no_core(log: Log, raised_by: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pipe(two_nodes(2), rebuild=AT_ONCE) as run:
        node = run.local_nodes["first" if raised_by == "backend" else "second"]
        for count in range(3):
            wait_until(lambda count=count: node.counts.rebuilds == count)
            until_idle(run)
            if raised_by == "backend":
                done = threading.Event()
                run.submit({TASK_DATA_KEY: KeyboardInterrupt()}, done.set)
                assert done.wait(TIMEOUT_S)
            else:
                run.submit({TASK_DATA_KEY: 1}, interrupt)
        wait_until(lambda: node.counts.rebuilds == 3)
        item: dict[str, Any] = {}
        wait_until(lambda: called(run, item, 2))
    assert log.most_inside == 1


def called(run: Pipe, item: dict[str, Any], number: int) -> bool:
    """Whether a call has a result; while a node is being rebuilt it has none."""
    item[TASK_DATA_KEY] = number
    run(item, timeout_ms=1000 * TIMEOUT_S)
    return item.get(TASK_RESULT_KEY) == number


@pytest.mark.usefixtures("one_core", "log")
def test_a_callback_may_call_another_node_of_its_pipe() -> None:
    """The one core is free while it waits; the node's one instance is another's."""
    nodes = {"a": {"backend": "TestPooled"}, "b": {"backend": "TestPooled", "instance_num": 2}}
    inner: list[dict[str, Any]] = []
    with pipe(nodes) as run:

        def item_done(error: Exception | None) -> None:
            assert error is None
            item: dict[str, Any] = {TASK_DATA_KEY: 3, "node_name": "a"}
            run(item, timeout_ms=1000 * TIMEOUT_S)
            inner.append(item)

        items = [{TASK_DATA_KEY: number, "node_name": "b"} for number in range(5)]
        run(items, item_done=item_done)
    assert [item[TASK_RESULT_KEY] for item in inner] == [3] * 5


@pytest.mark.usefixtures("log")
def test_a_callback_that_would_wait_for_its_own_instance_is_told() -> None:
    errors: list[BaseException] = []
    with pipe({"only": {"backend": "TestPooled"}}) as run:

        def item_done(error: Exception | None) -> None:
            assert error is None
            try:
                run({TASK_DATA_KEY: 3})
            except PipelineInputError as refusal:
                errors.append(refusal)

        run([{TASK_DATA_KEY: 1}, {TASK_DATA_KEY: 2}], item_done=item_done)
    assert len(errors) == 2
    assert "it would wait for itself" in str(errors[0])


def test_without_a_core_that_is_not_stuck_a_pipe_is_not_ready(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.callable_pipe.available_cores", lambda: 2)
    nodes = {name: {"backend": "TestPooled", "instance_num": 2} for name in "ab"}
    rule = RestartPolicy(first_wait_s=0.0, stuck_s=0.001)
    with pipe(nodes, rebuild=rule) as run:
        for name in nodes:
            run({TASK_DATA_KEY: 1, "node_name": name})
        door = Door(log)
        done = [threading.Event(), threading.Event()]
        run.submit({TASK_DATA_KEY: 1, "node_name": "a"}, done[0].set)
        wait_until(lambda: run.local_nodes["a"].stuck_instances)
        assert run.why_not_ready() == ""
        run.submit({TASK_DATA_KEY: 1, "node_name": "b"}, done[1].set)
        wait_until(run.why_not_ready)
        assert "each of 2 cores" in run.why_not_ready()
        door.open.set()
        assert all(event.wait(TIMEOUT_S) for event in done)
        assert run.why_not_ready() == ""


def test_an_instance_is_rebuilt_while_all_workers_are_at_work(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.callable_pipe.available_cores", lambda: 2)
    nodes = {"a": {"backend": "TestPooled"}, "b": {"backend": "TestPooled"}}
    door = threading.Event()
    log.meanwhile = lambda node: assert_set(door) if node == "a" else None
    with pipe(nodes, rebuild=AT_ONCE) as run:
        done = threading.Event()
        run.submit({TASK_DATA_KEY: 1, "node_name": "a"}, done.set)
        wait_until(lambda: log.inside)
        for _ in range(3):
            run({TASK_DATA_KEY: RuntimeError("the engine is broken"), "node_name": "b"})
        wait_until(lambda: run.local_nodes["b"].counts.rebuilds)
        assert not done.is_set()
        door.set()
        assert done.wait(TIMEOUT_S)


@register("TestFlaky")
class Flaky(CpuOperator):
    """Fails the first time, for which its item is not to blame."""

    can_break = True

    def init(self, config: InstanceConfig) -> None:
        super().init(config)
        self._has_failed = False

    def process(self, item: Item) -> Any:
        if not self._has_failed:
            self._has_failed = True
            raise RuntimeError("not this time")
        return item[TASK_DATA_KEY]


@pytest.mark.usefixtures("log")
def test_an_operator_that_can_break_has_its_second_try_in_a_sequence_too() -> None:
    with pipe({"only": {"backend": "S[TestFlaky,TestPooled]"}}) as run:
        item: dict[str, Any] = {TASK_DATA_KEY: 4}
        run(item)
    assert item[TASK_RESULT_KEY] == 4


@pytest.mark.usefixtures("one_core")
def test_a_graph_shares_the_cores_too(log: Log) -> None:
    nodes: dict[str, Any] = {
        "root": {"backend": "TestPooled", "next": "left,right"},
        "left": {"backend": "TestPooled", "next": "joined"},
        "right": {"backend": "TestPooled", "next": "joined"},
        "joined": {"backend": "TestPooled", "map": "left[result:data],right[result:other]"},
    }
    with pipe(nodes) as run:
        item: dict[str, Any] = {TASK_DATA_KEY: 7}
        run(item)
    assert item[TASK_RESULT_KEY] == 7
    assert sorted(node for node, _ in log.batches) == ["joined", "left", "right", "root"]
    assert log.most_inside == 1


@pytest.mark.usefixtures("one_core")
def test_a_lone_item_is_run_by_its_caller_through_a_node_of_batches(log: Log) -> None:
    with pipe(two_nodes(4)) as run:
        for number in range(3):
            run({TASK_DATA_KEY: number})
    assert log.threads == [threading.get_ident()] * 6


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("in_caller", [True, False])
def test_what_nothing_expected_is_rebuilt_in_the_instances_own_thread(
    log: Log, in_caller: bool
) -> None:
    """Also where the error came up in the thread of a caller, or of another node's instance."""
    left = [SystemExit("out of the blue")]

    def end_pass(node: str) -> None:
        if node == "second" and left:
            raise left.pop()

    log.ends_pass = end_pass
    document = two_nodes(2)
    with pipe(document, rebuild=AT_ONCE) as run:
        bad: dict[str, Any] = {TASK_DATA_KEY: 1}
        if in_caller:
            run(bad)
        else:
            done = threading.Event()
            run.submit(bad, done.set)
            assert done.wait(TIMEOUT_S)
        assert isinstance(bad[TASK_ERROR_KEY], NodeError)
        assert isinstance(bad[TASK_ERROR_KEY].cause, SystemExit)
        wait_until(lambda: run.local_nodes["second"].counts.rebuilds)
        good: dict[str, Any] = {}
        wait_until(lambda: called(run, good, 2))
        owner = run.local_nodes["second"].threads[0].ident
        assert log.init_threads[-1] == owner


def test_an_engine_that_fails_is_looked_after_by_its_instances_thread(log: Log) -> None:
    document = two_nodes(2)
    with pipe(document, rebuild=AT_ONCE) as run:
        run({TASK_DATA_KEY: 0})
        for _ in range(3):
            run({TASK_DATA_KEY: RuntimeError("the engine is broken")})
        good: dict[str, Any] = {}
        wait_until(lambda: called(run, good, 5))
        nodes = run.local_nodes
        # The node that was asked first fails the items, is tried with one that has worked, stays.
        owner = nodes["first"].threads[0].ident
        wait_until(lambda: owner in log.threads)
        assert [node.counts.rebuilds for node in nodes.values()] == [0, 0]


@pytest.fixture
def memory_for() -> Iterator[Callable[[float], None]]:
    before = DECODE_MEMORY.limit_bytes

    def limit(limit_bytes: float) -> None:
        DECODE_MEMORY.limit_bytes = limit_bytes

    yield limit
    DECODE_MEMORY.limit_bytes = before


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("calls_another_pipe", [False, True])
def test_who_waits_for_memory_leaves_the_core_to_others(
    log: Log, memory_for: Callable[[float], None], calls_another_pipe: bool
) -> None:
    """The first whole image waits for a second one, for which there is memory only after it."""
    jpeg = cv2.imencode(".jpg", np.zeros((60, 80, 3), np.uint8))[1].tobytes()
    cost = image_cost(jpeg)
    assert cost is not None
    # Images of earlier tests may still be there.
    gc.collect()
    memory_for(DECODE_MEMORY.taken_bytes + 1.5 * cost.memory_bytes)
    nodes = {
        "decode": {"backend": "DecodeMat", "next": "pairs", "batching_timeout": NEVER_MS},
        "pairs": {"backend": "S[TestPooled,ResizeMat]", "test_max": 2},
    }
    nodes["pairs"].update(resize_h=4, resize_w=4, batching_timeout=NEVER_MS)  # type: ignore[arg-type]
    with pipe(nodes) as run, pipe({"only": {"backend": "TestPooled"}}) as other:
        for _ in range(4 * calls_another_pipe):
            done = threading.Event()

            def call(done: threading.Event = done) -> None:
                other({TASK_DATA_KEY: 1})
                done.set()

            run.submit({TASK_DATA_KEY: jpeg}, call)
            assert done.wait(TIMEOUT_S)
        items: list[dict[str, Any]] = [{TASK_DATA_KEY: jpeg} for _ in range(6)]
        run(items, timeout_ms=1000 * TIMEOUT_S)
    assert [item[TASK_RESULT_KEY].shape for item in items] == [(4, 4, 3)] * 6
    assert log.most_inside == 1


def test_an_interrupted_caller_gives_core_and_instance_back(log: Log) -> None:
    def interrupt(_: str) -> None:
        log.meanwhile = lambda _: None
        raise KeyboardInterrupt

    log.meanwhile = interrupt
    with pipe({"only": {"backend": "TestPooled"}}) as run:
        with pytest.raises(KeyboardInterrupt):
            run({TASK_DATA_KEY: 1})
        item: dict[str, Any] = {TASK_DATA_KEY: 2}
        run(item, timeout_ms=1000 * TIMEOUT_S)
        assert item[TASK_RESULT_KEY] == 2
        assert run.local_nodes["only"].counts.rebuilds == 0


@pytest.mark.usefixtures("one_core")
def test_an_item_whose_caller_has_given_up_is_dropped_before_its_next_node(log: Log) -> None:
    door = Door(log)
    with pipe(two_nodes(2)) as run:
        ahead: dict[str, Any] = {TASK_DATA_KEY: 1}
        done = threading.Event()
        run.submit(ahead, done.set)
        assert door.is_entered.wait(TIMEOUT_S)
        late: dict[str, Any] = {TASK_DATA_KEY: 2}
        run(late, timeout_ms=1)
        assert isinstance(late[TASK_ERROR_KEY], DeadlinePassedError)
        door.open.set()
        assert done.wait(TIMEOUT_S)
    assert [batch for batch in log.batches if batch[1] == [2]] == []
