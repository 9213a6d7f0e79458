"""Backends that fail on command: who is retried, who lives, and how an instance comes back."""

from __future__ import annotations

import logging
import threading
import time
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ClassVar

import pytest

from pipeline import DeadlinePassedError, ItemError, NodeError, NoInstanceError, Pipe, pipe
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.config import parse_config
from pipeline.errors import PipelineConfigError
from service.handlers.outcomes import InvalidImageError
from service.handlers.restart_policy import RestartPolicy

AT_ONCE = RestartPolicy(first_wait_s=0.0)
PATIENCE_S = 30


class Commands:
    """What TestCommanded does, and what it has done."""

    def __init__(self) -> None:
        self.engine_is_broken = False
        self.raised: BaseException = RuntimeError("the engine is broken")
        # What the next calls of `forward` raise, whatever they hold.
        self.next_raises: list[BaseException | None] = []
        self.init_raises: BaseException = OSError("no device")
        self.batches: list[list[Any]] = []
        self.inits = 0
        self.fails_init = False
        self.closes = 0
        self.loads = 0
        self.unloads = 0
        # Held open for all that is made at the start; a test takes it away.
        self.may_init = threading.Event()
        self.may_init.set()
        self.entered_init = threading.Semaphore(0)


class Loaded:
    """What the instances share."""

    def __init__(self) -> None:
        Commanded.commands.loads += 1

    def close(self) -> None:
        Commanded.commands.unloads += 1


@register("TestCommanded")
class Commanded(Backend):
    """Doubles numbers; an exception as data is raised, "slow" ones are not done in time."""

    commands: ClassVar[Commands]

    @property
    def max(self) -> int:
        return 4

    def init(self, config: InstanceConfig) -> None:
        commands = Commanded.commands
        commands.inits += 1
        commands.entered_init.release()
        assert commands.may_init.wait(PATIENCE_S)
        config.shared.get_or_create("loaded", Loaded)
        if commands.fails_init:
            raise commands.init_raises

    def forward(self, items: Sequence[Item]) -> None:
        commands = Commanded.commands
        commands.batches.append([item["data"] for item in items])
        if commands.next_raises and (error := commands.next_raises.pop(0)) is not None:
            raise error
        if commands.engine_is_broken:
            raise commands.raised
        for item in items:
            if isinstance(item["data"], BaseException):
                raise item["data"]
            item["result"] = item["data"] * 2

    def close(self) -> None:
        Commanded.commands.closes += 1


@register("TestWithDecoder")
class WithDecoder(Commanded):
    """One instance at a time fetches a batch."""

    locks_decoder = True

    @property
    def max(self) -> int:
        return 1


@pytest.fixture
def commands() -> Iterator[Commands]:
    Commanded.commands = Commands()
    yield Commanded.commands
    Commanded.commands.may_init.set()


class Running:
    """A pipe of one node `m`, and the changes of its readiness."""

    def __init__(self, rule: RestartPolicy = AT_ONCE, **settings: Any) -> None:
        self._changes: SimpleQueue[str] = SimpleQueue()
        document = {"m": {"backend": "TestCommanded", **settings}}
        self.pipe = Pipe(
            parse_config(document),
            rebuild=rule,
            readiness_changed=lambda: self._changes.put(""),
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        Commanded.commands.may_init.set()
        self.pipe.close()

    def call(self, *data: Any, **options: Any) -> list[Any]:
        """Results, or what failed the items."""
        items = [{"data": value} for value in data]
        self.pipe(items, **options)
        return [item.get("result", item.get("error")) for item in items]

    def next_change(self) -> str:
        """Wait until the readiness has changed; what it is."""
        self._changes.get(timeout=PATIENCE_S)
        return self.pipe.why_not_ready()

    @property
    def counts(self) -> Any:
        return self.pipe.local_nodes["m"].counts

    def break_down(self, commands: Commands) -> str:
        """Three batches that fail; why the pipe is not ready then."""
        commands.engine_is_broken = True
        for _ in range(3):
            (error,) = self.call(1)
            assert isinstance(error, NodeError)
        return self.next_change()


class TestRetry:
    """An item's second try."""

    def test_a_call_that_fails_once_costs_no_item(self, commands: Commands) -> None:
        with Running() as running:
            for size in (1, 3):
                commands.batches.clear()
                commands.next_raises = [RuntimeError("now and then")]
                assert running.call(*range(size)) == [2 * value for value in range(size)]
                assert sum(map(len, commands.batches)) > size

    def test_an_item_gets_one_try_more_and_no_other(self, commands: Commands) -> None:
        poison = RuntimeError("poison")
        with Running() as running:
            (error,) = running.call(poison)
        assert commands.batches == [[poison], [poison]]
        assert (error.node, error.cause) == ("m", poison)

    @pytest.mark.parametrize(
        "backend",
        ["TestCommanded", "S[TestCommanded]", "Torch[S[TestCommanded]]", "S[Torch[TestCommanded]]"],
    )
    def test_neighbours_of_a_poisonous_item_live(self, commands: Commands, backend: str) -> None:
        poison = ValueError("poison")
        # A batch of four: an instance waits until it is full.
        with (
            Running(backend=f"Range[{backend}]", range="4,4", batching_timeout=60_000) as running,
            ThreadPoolExecutor(1) as caller,
        ):
            results = caller.submit(running.call, 1, poison, 3, 4).result(PATIENCE_S)
            assert results[0::2] == [2, 6]
            assert results[3] == 8
            assert results[1].cause is poison
            assert commands.batches == [[1, poison, 3, 4], [1], [poison], [3], [4]]

    @pytest.mark.parametrize("fault", [ItemError("no"), InvalidImageError("no image")])
    def test_an_item_at_fault_is_not_tried_again_and_counts_for_nothing(
        self, commands: Commands, fault: Exception
    ) -> None:
        with Running() as running:
            for _ in range(5):
                (error,) = running.call(fault)
                assert error.cause is fault
            assert running.counts.working_instances == 1
        assert commands.batches == [[fault]] * 5
        assert commands.inits == 1

    @pytest.mark.usefixtures("commands")
    def test_an_item_whose_deadline_has_passed_is_not_retried(self) -> None:
        tried: list[Any] = []
        caller_is_back = threading.Event()

        class Slow(Commanded):
            def forward(self, items: Sequence[Item]) -> None:
                tried.append([item["data"] for item in items])
                assert caller_is_back.wait(PATIENCE_S)
                raise RuntimeError("too late")

        try:
            register("TestSlow")(Slow)
            with Running(backend="TestSlow") as running:
                (error,) = running.call(1, timeout_ms=300)
                assert isinstance(error, DeadlinePassedError)
                caller_is_back.set()
        finally:
            caller_is_back.set()
        assert tried == [[1]]


class TestRebuild:
    """An instance that is broken."""

    def test_after_three_failures_it_is_closed_and_rebuilt(
        self, commands: Commands, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        with Running() as running:
            assert running.call(1) == [2]
            assert running.pipe.why_not_ready() == ""
            commands.may_init.clear()
            why = running.break_down(commands)
            assert "node 'm' has no working instance since 20" in why
            assert "(RuntimeError: the engine is broken); it is being rebuilt" in why
            assert (commands.closes, commands.unloads) == (1, 0)
            assert running.counts.working_instances == 0
            (error,) = running.call(1)
            assert isinstance(error.cause, NoInstanceError)
            commands.engine_is_broken = False
            commands.may_init.set()
            assert running.next_change() == ""
            assert running.call(2) == [4]
            assert (running.counts.working_instances, running.counts.rebuilds) == (1, 1)
        # The engine that instances share worked until then, and is kept.
        assert (commands.inits, commands.closes, commands.loads) == (2, 2, 1)
        lines = [record.getMessage() for record in caplog.records]
        assert (
            "m-0-0 is out of service: RuntimeError: the engine is broken; attempt 1 to rebuild it "
            "follows in 0 s"
        ) in lines
        assert "m-0-0 is back in service after attempt 1" in lines

    def test_items_that_fail_it_leave_it_in_service(
        self, commands: Commands, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As long as what has worked before works: one caller must not take a node from all."""
        poison = ValueError("poison")
        with Running() as running:
            assert running.call(1) == [2]
            commands.batches.clear()
            for _ in range(7):
                (error,) = running.call(poison)
                assert error.cause is poison
            assert running.call(3) == [6]
            assert running.pipe.why_not_ready() == ""
            assert running.counts.rebuilds == 0
        three = [[poison]] * 6
        assert commands.batches == [*three, [1], *three, [1], [poison], [poison], [3]]
        lines = [record.getMessage() for record in caplog.records]
        told = (
            "m-0-0: 3 batches in a row gave no result (ValueError: poison), and another item does"
        )
        assert sum(told in line for line in lines) == 2

    def test_what_cannot_be_copied_or_is_too_large_tells_nothing(self, commands: Commands) -> None:
        """Then three failures in a row are the instance's, as without any item that worked."""

        class Uncopied(int):
            def __deepcopy__(self, memo: Any) -> Any:
                raise TypeError("no copies")

        class Large(int):
            nbytes = 2**40

        for first in (Uncopied(1), Large(1)):
            with Running() as running:
                assert running.call(first) == [2]
                assert running.call(1) == [2]
                commands.may_init.clear()
                for _ in range(3):
                    assert isinstance(running.call(RuntimeError("poison"))[0], NodeError)
                assert "(RuntimeError: poison)" in running.next_change()
        assert commands.loads == 2

    def test_a_success_between_failures_keeps_it(self, commands: Commands) -> None:
        with Running() as running:
            for _ in range(3):
                commands.next_raises = [RuntimeError("bad")] * 4
                for _ in range(2):
                    assert isinstance(running.call(1)[0], NodeError)
                assert running.call(1) == [2]
            assert running.counts.rebuilds == 0
        assert commands.inits == 1

    def test_the_others_serve_meanwhile(self, commands: Commands) -> None:
        rule = RestartPolicy(failures=1, first_wait_s=0.0)
        with Running(rule, instance_num=2) as running:
            for _ in range(2):
                assert commands.entered_init.acquire(timeout=PATIENCE_S)
            commands.may_init.clear()
            commands.engine_is_broken = True
            assert isinstance(running.call(1)[0], NodeError)
            commands.engine_is_broken = False
            assert commands.entered_init.acquire(timeout=PATIENCE_S)
            assert running.pipe.why_not_ready() == ""
            assert running.counts.working_instances == 1
            assert running.call(1, 2, 3, 4, 5, 6) == [2, 4, 6, 8, 10, 12]

    def test_what_waits_when_the_last_one_goes_fails_at_once(self, commands: Commands) -> None:
        inside, go_on = threading.Semaphore(0), threading.Event()

        class Held(Commanded):
            def forward(self, items: Sequence[Item]) -> None:
                inside.release()
                assert go_on.wait(PATIENCE_S)
                super().forward(items)

        register("TestHeld")(Held)
        commands.engine_is_broken = True
        rule = RestartPolicy(failures=1, first_wait_s=0.0)
        items: list[Any] = [{"data": value} for value in range(40)]
        done = threading.Semaphore(0)
        with Running(rule, backend="TestHeld") as running, ThreadPoolExecutor(1) as caller:
            first = caller.submit(running.call, 1)
            assert inside.acquire(timeout=PATIENCE_S)
            for item in items:
                running.pipe.submit(item, done.release)
            commands.may_init.clear()
            go_on.set()
            assert isinstance(first.result(PATIENCE_S)[0].cause, RuntimeError)
            for _ in items:
                assert done.acquire(timeout=PATIENCE_S)
            assert all(isinstance(item["error"].cause, NoInstanceError) for item in items)

    def test_a_shared_engine_that_is_broken_is_loaded_again(self, commands: Commands) -> None:
        with Running() as running:
            assert running.call(1) == [2]
            running.break_down(commands)
            assert running.next_change() == ""
            assert commands.loads == 1
            # Its own part was rebuilt, to no avail: now what it shares goes too.
            running.break_down(commands)
            assert running.next_change() == ""
            assert (commands.loads, commands.unloads) == (2, 1)
            commands.engine_is_broken = False
            assert running.call(1) == [2]

    def test_attempts_that_fail_are_repeated_until_one_succeeds(
        self, commands: Commands, caplog: pytest.LogCaptureFixture
    ) -> None:
        rule = RestartPolicy(first_wait_s=0.001, longest_wait_s=0.002)
        with Running(rule) as running:
            assert commands.entered_init.acquire(timeout=PATIENCE_S)
            commands.fails_init = True
            running.break_down(commands)
            for _ in range(3):
                assert commands.entered_init.acquire(timeout=PATIENCE_S)
            commands.fails_init = commands.engine_is_broken = False
            assert running.next_change() == ""
            assert running.call(1) == [2]
        lines = [record.getMessage() for record in caplog.records]
        assert any("OSError: no device; attempt 2 to rebuild it" in line for line in lines)

    def test_closing_ends_the_wait_for_an_attempt(self, commands: Commands) -> None:
        before = set(threading.enumerate())
        running = Running(RestartPolicy(first_wait_s=3600.0, longest_wait_s=3600.0))
        running.break_down(commands)
        running.pipe.close()
        assert set(threading.enumerate()) == before
        assert commands.inits == 1

    def test_closing_while_an_instance_is_being_made_waits_for_it(self, commands: Commands) -> None:
        before = set(threading.enumerate())
        running = Running()
        assert running.call(1) == [2]
        assert commands.entered_init.acquire(timeout=PATIENCE_S)
        commands.may_init.clear()
        running.break_down(commands)
        assert commands.entered_init.acquire(timeout=PATIENCE_S)
        closing = threading.Thread(target=running.pipe.close)
        closing.start()
        commands.may_init.set()
        closing.join(PATIENCE_S)
        assert set(threading.enumerate()) == before
        assert (commands.closes, commands.unloads) == (2, 1)

    def test_all_calls_under_way_are_answered_while_instances_come_and_go(
        self, commands: Commands
    ) -> None:
        with Running(instance_num=3) as running, ThreadPoolExecutor(8) as callers:

            def call(number: int) -> bool:
                commands.engine_is_broken = number % 100 < 50
                results = running.call(number, number + 1)
                return all(
                    isinstance(result, NodeError) or result == 2 * (number + place)
                    for place, result in enumerate(results)
                )

            assert all(callers.map(call, range(600)))
            commands.engine_is_broken = False
            while running.pipe.why_not_ready():
                running.next_change()
            assert running.call(1) == [2]


class Panic(BaseException):
    """As PyO3's PanicException: no Exception."""


RAISED = pytest.mark.parametrize("raised", [OSError("who knows"), Panic("who knows")])


class TestNoException:
    """What is raised need not be an Exception, nor come from where one is expected."""

    @pytest.mark.parametrize("kind", [Panic, CancelledError, SystemExit, GeneratorExit])
    def test_it_fails_its_item_as_any_other(
        self, commands: Commands, kind: type[BaseException]
    ) -> None:
        with Running(backend="Range[TestCommanded]", range="3,3", batching_timeout=60_000) as run:
            results = run.call(1, kind("no more"), 3, timeout_ms=PATIENCE_S * 1000)
            assert results[0::2] == [2, 6]
            assert isinstance(results[1].cause, kind)
            assert str(results[1]) == f"node 'm': {kind.__name__}: no more"
            assert run.counts.working_instances == 1
        assert (commands.inits, commands.closes) == (1, 1)

    def test_three_in_a_row_take_the_instance_out(self, commands: Commands) -> None:
        commands.raised = Panic("the engine is poisoned")
        with Running() as running:
            commands.may_init.clear()
            assert "(Panic: the engine is poisoned)" in running.break_down(commands)
            commands.engine_is_broken = False
            commands.may_init.set()
            assert running.next_change() == ""
            assert running.call(1) == [2]

    def test_what_nothing_expected_costs_the_batch_and_the_instance_is_rebuilt(
        self, commands: Commands
    ) -> None:
        commands.next_raises = [KeyboardInterrupt("in an instance")]
        with Running(range="2,2", backend="Range[TestCommanded]", batching_timeout=60_000) as run:
            commands.may_init.clear()
            errors = run.call(1, 2, timeout_ms=PATIENCE_S * 1000)
            assert {str(error) for error in errors} == {
                "node 'm': KeyboardInterrupt: in an instance"
            }
            assert "(KeyboardInterrupt: in an instance); it is being rebuilt" in run.next_change()
            commands.may_init.set()
            assert run.next_change() == ""
            assert run.call(1, 2) == [2, 4]
            assert (run.counts.working_instances, run.counts.rebuilds) == (1, 1)

    @pytest.mark.usefixtures("commands")
    def test_an_item_that_failed_has_no_result_however_far_it_had_come(self) -> None:
        class HalfDone(Commanded):
            def forward(self, items: Sequence[Item]) -> None:
                items[0]["result"] = 1
                raise KeyboardInterrupt

        register("TestHalfDone")(HalfDone)
        with Running(backend="TestHalfDone") as running:
            running.pipe(item := {"data": 1})
            assert isinstance(item["error"], NodeError)
            assert "result" not in item

    def test_the_turn_is_passed_on(self, commands: Commands) -> None:
        commands.next_raises = [KeyboardInterrupt()]
        rule = RestartPolicy(first_wait_s=3600.0, longest_wait_s=3600.0)
        with Running(rule, backend="TestWithDecoder", instance_num=2) as running:
            (error,) = running.call(1, timeout_ms=PATIENCE_S * 1000)
            assert isinstance(error.cause, KeyboardInterrupt)
            assert running.call(2, timeout_ms=PATIENCE_S * 1000) == [4]

    def test_a_start_that_raises_it_ends_with_an_error(self, commands: Commands) -> None:
        commands.fails_init, commands.init_raises = True, SystemExit("no licence")
        with pytest.raises(PipelineConfigError, match=r"\[m\] SystemExit: no licence"):
            Running(instance_num=2)

    def test_an_attempt_to_rebuild_that_raises_it_is_repeated(self, commands: Commands) -> None:
        with Running() as running:
            assert commands.entered_init.acquire(timeout=PATIENCE_S)
            commands.fails_init, commands.init_raises = True, Panic("no device")
            running.break_down(commands)
            for _ in range(2):
                assert commands.entered_init.acquire(timeout=PATIENCE_S)
            commands.fails_init = commands.engine_is_broken = False
            assert running.next_change() == ""

    @RAISED
    def test_a_caller_that_cannot_be_asked_costs_no_item(
        self, commands: Commands, raised: BaseException
    ) -> None:
        def has_gone() -> bool:
            raise raised

        with Running() as running:
            assert running.call(1, has_gone=has_gone, timeout_ms=PATIENCE_S * 1000) == [2]
        assert commands.inits == 1

    @RAISED
    def test_what_is_called_for_a_submitted_item_may_raise(
        self, commands: Commands, raised: BaseException
    ) -> None:
        called = threading.Semaphore(0)

        def done() -> None:
            called.release()
            raise raised

        items = [{"data": 1}, {"data": 2}]
        with Running() as running:
            for item in items:
                running.pipe.submit(item, done)
            for _ in items:
                assert called.acquire(timeout=PATIENCE_S)
            assert running.call(3, timeout_ms=PATIENCE_S * 1000) == [6]
        assert [item["result"] for item in items] == [2, 4]
        assert commands.inits == 1

    @RAISED
    def test_a_caller_that_cannot_be_told_loses_no_outcome(
        self, commands: Commands, caplog: pytest.LogCaptureFixture, raised: BaseException
    ) -> None:
        def item_done(error: Exception | None) -> None:
            assert error is None
            raise raised

        with Running() as running:
            results = running.call(1, 2, item_done=item_done, timeout_ms=PATIENCE_S * 1000)
            assert results == [2, 4]
            assert running.call(3, timeout_ms=PATIENCE_S * 1000) == [6]
        assert commands.inits == 1
        assert caplog.text.count(f"item_done raised {type(raised).__name__}: who knows") == 2

    def test_an_error_without_words_is_told_by_its_kind(self, commands: Commands) -> None:
        class MuteError(Exception):
            def __str__(self) -> str:
                raise ValueError("no words")

        with Running() as running:
            assert str(running.call(MuteError())[0]) == "node 'm': MuteError"
        assert commands.inits == 1


def test_a_batch_far_beyond_the_usual_time_shows(commands: Commands) -> None:
    go_on, entered = threading.Event(), threading.Semaphore(0)
    registered = "TestSticking"

    class Sticking(Commanded):
        @property
        def max(self) -> int:
            return 1

        def forward(self, items: Sequence[Item]) -> None:
            if items[0]["data"] == "stick":
                entered.release()
                assert go_on.wait(PATIENCE_S)
                items[0]["data"] = 1
            super().forward(items)

    register(registered)(Sticking)
    end_s = time.monotonic() + PATIENCE_S
    with (
        Running(RestartPolicy(stuck_s=0.02), backend=registered, instance_num=2) as running,
        ThreadPoolExecutor(2) as callers,
    ):
        node = running.pipe.local_nodes["m"]
        try:
            calls = [callers.submit(running.call, "stick")]
            assert entered.acquire(timeout=PATIENCE_S)
            while node.stuck_instances < 1:
                assert time.monotonic() < end_s
            # The other one serves.
            assert running.pipe.why_not_ready() == ""
            assert running.call(2) == [4]
            calls.append(callers.submit(running.call, "stick"))
            while not running.pipe.why_not_ready():
                assert time.monotonic() < end_s
            assert "each of its 2 instances in service has been at work" in (
                running.pipe.why_not_ready()
            )
        finally:
            go_on.set()
        assert [call.result(PATIENCE_S) for call in calls] == [[2], [2]]
        assert (node.stuck_instances, running.pipe.why_not_ready()) == (0, "")
    assert commands.inits == 2


def test_items_of_a_graph_that_forks_fail_at_the_node_that_is_broken(commands: Commands) -> None:
    document = {
        "a": {"backend": "TestText", "next": "b,c"},
        "b": {"backend": "TestCommanded"},
        "c": {"backend": "TestText"},
    }
    rule = RestartPolicy(failures=1, first_wait_s=3600.0, longest_wait_s=3600.0)
    with pipe(document, rebuild=rule) as run:
        commands.engine_is_broken = True
        for _ in range(3):
            item = {"data": 1}
            run(item)
            assert item["error"].node == "b"


def test_the_waits_double_up_to_the_longest() -> None:
    rule = RestartPolicy()
    assert [rule.wait_s(attempt) for attempt in (1, 2, 3, 5, 6, 7)] == [1, 2, 4, 16, 30, 30]
    assert rule.wait_s(10_000) == 30
