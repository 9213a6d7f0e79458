"""What SIGTERM and SIGINT do to a server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from service.orphans import wait_for_children

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stoppable(Protocol):
    """A server, as far as signals are concerned."""

    ready: bool

    @property
    def wakeup_fd(self) -> int:
        """Descriptor that wakes its serving thread when a byte is written to it."""

    def stop(self, reason: str) -> None:
        """Let it drain and end."""


@contextmanager
def stopped_by_signals(server: Stoppable) -> Iterator[None]:
    """Stop `server` on the first SIGTERM or SIGINT, and the process at once on the second.

    The second one leaves no child either, and a third does not wait for their end. The first drains
    a server that serves. One that is still starting up has nothing to drain:
    SystemExit is raised in the main thread with the usual exit code, 128 + the signal's number.
    To be entered in the main thread.
    """
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        if len(received) > 1:
            try:
                if len(received) == 2:
                    wait_for_children(0.0)
            finally:
                os._exit(128 + number)
        if not server.ready:
            raise SystemExit(128 + number)
        server.stop(signal.Signals(number).name)

    previous = {number: signal.signal(number, on_signal) for number in _STOP_SIGNALS}
    # Python runs `on_signal` only between bytecodes; this wakes a thread that waits in select.
    previous_fd = signal.set_wakeup_fd(server.wakeup_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Let the signals that stop a server wait; a process started meanwhile begins without them."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def leave_stop_to_supervisor() -> None:
    """Do nothing on SIGTERM and SIGINT.

    A terminal, or a service manager, sends them to all processes of a server. The supervisor gets
    them too, and says when to stop. They are handled and not ignored, so that programs that this
    process starts have them as usual.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
