"""One loop rebuilds what is broken, for the baseline's engine and for a pipeline's instances."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from service.handlers.restart_policy import RebuildLoop, RestartPolicy


class Build:
    """Raises what it is told, one error a call, and then returns."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = iter(errors)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        for error in self._errors:
            raise error


@pytest.fixture
def stopping() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_attempts_are_counted_until_it_works(
    stopping: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    loop = RebuildLoop("the engine", RestartPolicy(first_wait_s=0.0), stopping)
    caplog.set_level(logging.INFO)
    build = Build(OSError("no memory"), SystemExit(3))
    assert loop.run("RuntimeError: it broke", build)
    assert build.calls == 3
    assert loop.run("it broke again", Build())
    loop.worked()
    assert loop.run("once more", Build())
    assert [record.getMessage() for record in caplog.records] == [
        "the engine is out of service: RuntimeError: it broke; attempt 1 to rebuild it follows "
        "in 0 s",
        "the engine is out of service: OSError: no memory; attempt 2 to rebuild it follows in 0 s",
        "the engine is out of service: SystemExit: 3; attempt 3 to rebuild it follows in 0 s",
        "the engine is back in service after attempt 3",
        "the engine is out of service: it broke again; attempt 4 to rebuild it follows in 0 s",
        "the engine is back in service after attempt 4",
        "the engine is out of service: once more; attempt 1 to rebuild it follows in 0 s",
        "the engine is back in service after attempt 1",
    ]


def test_a_stop_ends_the_pause(stopping: threading.Event) -> None:
    loop, build = RebuildLoop("the engine", RestartPolicy(first_wait_s=3600), stopping), Build()
    rebuilt = []
    thread = threading.Thread(target=lambda: rebuilt.append(loop.run("broken", build)))
    thread.start()
    stopping.set()
    thread.join(60)
    assert rebuilt == [False]
    assert not build.calls


def test_no_attempt_begins_after_a_stop(stopping: threading.Event) -> None:
    """Another one's attempt may take long; the server may stop meanwhile."""
    lock, build = threading.Lock(), Build()
    waits = threading.Event()

    class Lock:
        def __enter__(self) -> None:
            waits.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    loop = RebuildLoop("x", RestartPolicy(first_wait_s=0.0), stopping, Lock())
    rebuilt = []
    thread = threading.Thread(target=lambda: rebuilt.append(loop.run("broken", build)))
    with lock:
        thread.start()
        assert waits.wait(60)
        stopping.set()
    thread.join(60)
    assert rebuilt == [False]
    assert not build.calls
