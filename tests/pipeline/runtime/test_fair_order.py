"""The order in which items of several callers leave."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.fair_order import FairOrder
from pipeline.runtime.task import Task, WaitingCall


def item(
    caller: int,
    number: object = 0,
    rows: int = 1,
    deadline_s: float | None = None,
    *,
    is_alone: bool = False,
) -> Task:
    call = WaitingCall(1, deadline_s)
    call.caller, call.is_alone = caller, is_alone
    return Task({"data": (caller, number), "request_size": rows}, call)


def order_of(*tasks: Task) -> FairOrder:
    order = FairOrder()
    for task in tasks:
        order.put(task)
    return order


def callers(order: FairOrder, batches: int, largest: int = 1) -> list[int]:
    return [task.call.caller for _ in range(batches) for task in order.take(largest)]


def test_callers_with_one_item_each_are_served_first_in_first_out() -> None:
    order = order_of(*(item(caller) for caller in (3, 1, 2)))
    assert callers(order, 1) == [3]
    order.put(item(3))
    order.put(item(4))
    assert callers(order, 4) == [1, 2, 3, 4]
    assert not order
    assert order.rows == len(order) == 0


def test_the_items_of_one_caller_are_too() -> None:
    order = order_of(*(item(1, number) for number in range(9)))
    taken = [task.item["data"][1] for _ in range(3) for task in order.take(4)]
    assert taken == list(range(9))


def test_a_caller_that_gave_up_a_lone_item_has_one_turn_in_a_round() -> None:
    """Its next call has several, while the lone one still waits behind another caller's."""
    lone = item(1, "lone", is_alone=True)
    order = order_of(item(2), item(2), lone, *(item(1, number) for number in range(3)))
    taken = [task.item["data"] for _ in range(6) for task in order.take(1)]
    assert taken == [(2, 0), (1, "lone"), (1, 0), (2, 0), (1, 1), (1, 2)]
    assert not order
    order.put(item(3))
    assert callers(order, 1) == [3]


def test_callers_of_many_take_turns() -> None:
    order = order_of(*(item(caller) for caller in (1, 2, 3) for _ in range(4)))
    assert callers(order, 3, largest=4) == [1, 2, 3] * 4


def test_a_single_item_does_not_wait_for_a_round_of_those_of_whom_many_wait() -> None:
    order = order_of(*(item(caller) for caller in (1, 2, 3, 4) for _ in range(256)))
    assert callers(order, 10) == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    order.put(item(5))
    assert callers(order, 3) == [5, 3, 4]


def test_a_caller_that_comes_back_within_the_round_waits_for_the_next() -> None:
    """One that asks again and again gets its share, and the others theirs."""
    order = order_of(*(item(caller) for caller in (1, 2) for _ in range(100)))
    callers(order, 2)
    seen: Counter[int] = Counter()
    for _ in range(60):
        order.put(item(3))
        while True:
            (caller,) = callers(order, 1)
            seen[caller] += 1
            if caller == 3:
                break
    assert seen[3] == 60
    assert 59 <= seen[1] <= 61
    assert 59 <= seen[2] <= 61


def test_shares_are_of_rows() -> None:
    order = order_of(
        *(item(1, rows=4) for _ in range(50)), *(item(2) for _ in range(200)), item(3, rows=99)
    )
    rows: Counter[int] = Counter()
    for _ in range(60):
        for task in order.take(8):
            rows[task.call.caller] += task.rows
    assert rows[3] == 99, "what fits into no batch leaves by itself"
    order = order_of(*(item(1, rows=4) for _ in range(50)), *(item(2) for _ in range(200)))
    rows.clear()
    for _ in range(20):
        for task in order.take(8):
            rows[task.call.caller] += task.rows
    assert abs(rows[1] - rows[2]) <= 8


def test_what_is_next_and_overdue_is_taken_out() -> None:
    order = order_of(
        *(item(1, number, deadline_s=number) for number in range(4)),
        item(2, deadline_s=9.0),
        item(3),
    )
    assert [task.item["data"] for task in order.take_overdue(2.0)] == [(1, 0)]
    assert [task.item["data"] for task in order.take_overdue(9.0)] == [(2, 0)]
    assert callers(order, 1) == [3]
    assert len(order.take_overdue(10.0)) == 3
    assert not order


def test_the_oldest_item_is_found_wherever_it_waits() -> None:
    order = FairOrder()
    for queued_at_s, caller in ((2.0, 1), (1.0, 1), (3.0, 2)):
        task = item(caller)
        task.queued_at_s = queued_at_s
        order.put(task)
    order.take(1)
    assert order.oldest_s() == 1.0


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=120),
    largest=st.integers(1, 8),
)
def test_every_item_leaves_once_and_in_its_callers_order(
    steps: list[tuple[int, int]], largest: int
) -> None:
    """Whatever is put and taken: caller 0 stands for taking a batch."""
    order = FairOrder()
    waiting: dict[int, deque[int]] = {caller: deque() for caller in range(1, 5)}

    def take() -> None:
        batch = order.take(largest)
        rows = [task.rows for task in batch]
        assert len(batch) == 1 or sum(rows) <= largest
        for task in batch:
            caller, number = task.item["data"]
            assert waiting[caller].popleft() == number

    for number, (caller, rows) in enumerate(steps):
        if caller:
            order.put(item(caller, number, rows))
            waiting[caller].append(number)
        else:
            take()
        assert len(order) == sum(map(len, waiting.values()))
    while order:
        take()
    assert not any(waiting.values())
    assert order.rows == 0


@given(
    steps=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3)), max_size=120),
    largest=st.integers(1, 4),
)
def test_the_order_is_the_same_with_callers_that_are_known_to_have_one_item(
    steps: list[tuple[int, int]], largest: int
) -> None:
    """Callers 1 to 4 have one item at a time, 5 to 8 any number; 0 stands for taking a batch."""
    known, unknown = FairOrder(), FairOrder()
    waiting: set[int] = set()

    def take() -> list[tuple[int, int]]:
        batch = [task.item["data"] for task in known.take(largest)]
        assert batch == [task.item["data"] for task in unknown.take(largest)]
        waiting.difference_update(caller for caller, _ in batch)
        return batch

    for number, (caller, rows) in enumerate(steps):
        if not caller:
            take()
        elif caller > 4 or caller not in waiting:
            waiting.add(caller)
            known.put(item(caller, number, rows, is_alone=caller <= 4))
            unknown.put(item(caller, number, rows))
        assert len(known) == len(unknown)
        assert known.rows == unknown.rows
    while take():
        pass
    assert not unknown
