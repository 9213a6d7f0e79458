"""The lock that a thread does not get twice before those that wait."""

from __future__ import annotations

import threading
import time

from service.handlers.turn_lock import TurnLock
from tests.serving import TIMEOUT_S


def waiting_threads(lock: TurnLock, names: str, got: list[str]) -> list[threading.Thread]:
    """Threads that wait for the lock, one behind the other; it must be held."""

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


def test_the_thread_that_gives_it_back_gets_it_after_those_that_wait() -> None:
    lock, got = TurnLock(), list[str]()
    lock.acquire()
    threads = waiting_threads(lock, "abc", got)
    lock.release()
    lock.acquire()
    assert got == ["a", "b", "c"]
    lock.release()
    for thread in threads:
        thread.join(TIMEOUT_S)
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


def test_one_whose_time_is_over_is_passed_over() -> None:
    lock, got = TurnLock(), list[str]()
    lock.acquire()
    assert not lock.acquire(0.0)
    assert not lock.acquire(-1.0)
    (thread,) = waiting_threads(lock, "a", got)
    lock.release()
    thread.join(TIMEOUT_S)
    assert got == ["a"]
    with lock:
        assert not lock.acquire(0.001)
    assert lock.acquire(0.0)


def test_a_thread_that_comes_anew_does_not_wait_while_the_lock_is_free() -> None:
    """Although another one, which is about to wake up, has waited longer."""
    lock, got = TurnLock(), list[str]()
    with lock:
        (thread,) = waiting_threads(lock, "a", got)
        gate = lock._waiting[0]
        # It stays asleep.
        lock._waiting[0] = threading.Lock()

    def come() -> None:
        assert lock.acquire(0.0)
        got.append("b")
        lock._waiting[0] = gate
        lock.release()

    newcomer = threading.Thread(target=come)
    newcomer.start()
    newcomer.join(TIMEOUT_S)
    thread.join(TIMEOUT_S)
    assert got == ["b", "a"]
