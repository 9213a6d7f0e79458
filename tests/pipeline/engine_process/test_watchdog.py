"""When an engine process counts as hung: with real processes, stopped and not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from pipeline.engine_process.slots import SlotMemory
from pipeline.engine_process.status_slot import Pulse, StatusSlot
from pipeline.engine_process.watchdog import Watchdog

SLOT_BYTES = 8192
LOOKS = 4


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as started:
        yield started
        started.kill()


@pytest.fixture
def told() -> Iterator[StatusSlot]:
    memory = SlotMemory.create(2, SLOT_BYTES)
    yield memory.status_slot(1)
    memory.close()


@pytest.fixture
def watchdog(process: subprocess.Popen[bytes], told: StatusSlot) -> Iterator[Watchdog]:
    made = Watchdog(process.pid, 8.0, told.pulse)
    yield made
    made.close()


def test_it_looks_several_times_before_it_bites(watchdog: Watchdog, told: StatusSlot) -> None:
    assert watchdog.look_s == 2.0
    for beats in range(1, 9):
        told.put_pulse(Pulse(beats, is_loading=False))
        # Longer than one look apart, whatever that was for: both may have been paused.
        assert [watchdog.look() for _ in range(LOOKS)] == [False] * LOOKS
    assert watchdog.look()


def test_results_are_signs_of_life(watchdog: Watchdog) -> None:
    for _ in range(3):
        assert not any(watchdog.look() for _ in range(LOOKS - 1))
        watchdog.lives()


def test_a_status_is_no_heartbeat(watchdog: Watchdog, told: StatusSlot) -> None:
    told.put_pulse(Pulse(7, is_loading=False))
    watchdog.look()
    told.put_status("x" * 10_000)
    assert told.pulse() == (7, False)
    assert [watchdog.look() for _ in range(LOOKS)] == [False, False, False, True]


def test_a_process_that_loads_has_time_unless_it_is_stopped(
    watchdog: Watchdog, told: StatusSlot, process: subprocess.Popen[bytes]
) -> None:
    told.put_pulse(Pulse(3, is_loading=True))
    assert not any(watchdog.look() for _ in range(10 * LOOKS))
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    assert [watchdog.look() for _ in range(LOOKS)] == [False, False, False, True]
    watchdog.kill()
    watchdog.wait_for_end(60.0)
    assert process.wait(60) == -signal.SIGKILL
    # It may have ended by itself in the meantime.
    watchdog.kill()


def test_without_a_timeout_nothing_is_looked_at(
    process: subprocess.Popen[bytes], told: StatusSlot
) -> None:
    watchdog = Watchdog(process.pid, 0.0, told.pulse)
    assert watchdog.look_s is None
    watchdog.close()
