"""Semaphores in memory that two processes share."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time

import pytest

from pipeline.engine_process.semaphore import SEMAPHORE_BYTES, Semaphore, available
from tests.serving import TIMEOUT_S

OFFSET = 64
POSTER = """
import mmap, sys
from pipeline.engine_process.semaphore import Semaphore
for _ in sys.stdin:
    Semaphore(mmap.mmap({fd}, {size}), {offset}).post()
    print(flush=True)
"""


@pytest.fixture
def semaphore() -> Semaphore:
    made = Semaphore(mmap.mmap(-1, OFFSET + SEMAPHORE_BYTES), OFFSET)
    made.initialise()
    return made


def test_it_counts_posts(semaphore: Semaphore) -> None:
    assert not semaphore.take()
    semaphore.post()
    semaphore.post()
    assert semaphore.take()
    assert semaphore.wait(None)
    assert not semaphore.take()


def test_waiting_ends_with_the_time(semaphore: Semaphore) -> None:
    until_s = time.monotonic() + 0.05
    assert not semaphore.wait(until_s)
    assert time.monotonic() >= until_s
    assert not semaphore.wait(0.0)
    semaphore.post()
    assert semaphore.wait(0.0)


def test_a_thread_that_waits_is_woken_by_another_process() -> None:
    fd = os.memfd_create("semaphore")
    size = OFFSET + SEMAPHORE_BYTES
    os.ftruncate(fd, size)
    semaphore = Semaphore(mmap.mmap(fd, size), OFFSET)
    semaphore.initialise()
    script = POSTER.format(fd=fd, size=size, offset=OFFSET)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[fd],
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        woken: list[bool] = []
        for number, until_s in enumerate((None, time.monotonic() + TIMEOUT_S)):
            waiting = threading.Thread(
                target=lambda until_s=until_s: woken.append(semaphore.wait(until_s))
            )
            waiting.start()
            assert woken == [True] * number
            other.stdin.write(b"\n")
            other.stdin.flush()
            assert other.stdout.readline() == b"\n"
            waiting.join(TIMEOUT_S)
            assert woken == [True] * (number + 1)
        other.stdin.close()
    os.close(fd)


def test_the_memory_stays_while_a_thread_may_wait_in_it() -> None:
    memory = mmap.mmap(-1, SEMAPHORE_BYTES)
    held = Semaphore(memory, 0)
    with pytest.raises(BufferError):
        memory.close()
    del held
    memory.close()


def test_this_hosts_c_library_has_them() -> None:
    assert available()
