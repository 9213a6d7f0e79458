"""What SIGTERM and SIGINT do to a server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from service.server import Server

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_by_signals(server: Server) -> Iterator[None]:
    """Stop `server` on the first SIGTERM or SIGINT, and the process at once on the second.

    The first drains a server that serves. One that is still starting up has nothing to drain:
    SystemExit is raised in the main thread with the usual exit code, 128 + the signal's number.
    To be entered in the main thread.
    """
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        if received:
            os._exit(128 + number)
        received.append(number)
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
