"""The lock that is handed over in turn."""

from __future__ import annotations

import threading
import time

from service.handlers.fifo_lock import FifoLock
from tests.serving import TIMEOUT_S


def waiting_threads(lock: FifoLock, names: str, got: list[str]) -> list[threading.Thread]:
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
    lock, got = FifoLock(), list[str]()
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
    lock, got = FifoLock(2), list[str]()
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
    lock, got = FifoLock(), list[str]()
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
