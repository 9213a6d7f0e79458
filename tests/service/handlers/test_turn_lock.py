"""The lock that a thread does not get twice while others wait."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from service.handlers.turn_lock import TurnLock
from tests.serving import TIMEOUT_S


def waiting_threads(lock: TurnLock, names: str, got: list[str]) -> list[threading.Thread]:
    """Threads that wait for the lock; it must be held."""

    def use(name: str) -> None:
        with lock:
            got.append(name)

    threads = []
    for number, name in enumerate(names, 1):
        thread = threading.Thread(target=use, args=(name,), daemon=True)
        thread.start()
        threads.append(thread)
        end_s = time.monotonic() + TIMEOUT_S
        while len(lock._waiting) < number:
            assert time.monotonic() < end_s
    return threads


def test_the_thread_that_gives_it_back_gets_it_after_one_that_waits() -> None:
    lock, got = TurnLock(), list[str]()
    lock.acquire()
    threads = waiting_threads(lock, "a", got)
    lock.release()
    lock.acquire()
    assert got == ["a"]
    lock.release()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert lock.acquire(0.0)


@pytest.mark.parametrize("holders", [1, 2])
def test_calls_of_many_images_take_turns(holders: int) -> None:
    """Each of them wants the lock again at once, and no more hold it than may."""
    lock, turns, threads_count = TurnLock(holders), list[int](), 4
    inside, most = list[int](), 0
    start = threading.Barrier(threads_count)

    def call(number: int) -> None:
        nonlocal most
        start.wait(TIMEOUT_S)
        for _ in range(100):
            with lock:
                inside.append(number)
                most = max(most, len(inside))
                turns.append(number)
                time.sleep(0)
                inside.remove(number)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert Counter(turns) == dict.fromkeys(range(threads_count), 100)
    assert most <= holders
    assert lock.acquire(0.0)


def test_a_thread_that_comes_anew_does_not_wait_while_the_lock_is_free() -> None:
    lock = TurnLock()
    lock._waiting.add(-1)
    assert lock.acquire(0.0)


def test_as_many_hold_it_as_may() -> None:
    lock, got = TurnLock(2), list[str]()
    assert lock.acquire(0.0)
    assert lock.acquire(0.0)
    threads = waiting_threads(lock, "a", got)
    lock.release()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert got == ["a"]
    assert lock.acquire(0.0)
    assert not lock.acquire(0.0)


def test_one_whose_time_is_over_keeps_no_other_waiting() -> None:
    lock, got = TurnLock(), list[str]()
    lock.acquire()
    assert not lock.acquire(0.0)
    assert not lock.acquire(-1.0)
    (thread,) = waiting_threads(lock, "a", got)
    lock.release()
    thread.join(TIMEOUT_S)
    assert got == ["a"]
    gone = threading.Thread(target=lock.acquire, args=(0.001,))
    with lock:
        gone.start()
        gone.join(TIMEOUT_S)
    assert not lock._waiting
    assert lock.acquire(0.0)
