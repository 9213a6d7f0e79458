"""Notices that the engine process hangs, although it has not ended, and kills it."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.engine_process.status_slot import Pulse

logger = logging.getLogger(__name__)

# Looks in the time after which a process without a heartbeat hangs.
_LOOKS = 4
# Kinds of a stopped process in /proc/PID/stat: by a signal, or by a debugger.
_STOPPED = frozenset("Tt")


class Watchdog:
    """Looks for the heartbeats of one engine process.

    It counts looks and not time: a pause of the whole container, in which this process stands
    still, too, is one look. While an instance loads, which may keep the interpreter's lock for as
    long as it takes, a heartbeat is not expected; a process that is stopped then hangs as well.

    Args:
        pid: the engine process.
        timeout_s: how long it may give no sign of life; 0 for no limit.
        pulse: reads its last heartbeat.
    """

    def __init__(self, pid: int, timeout_s: float, pulse: Callable[[], Pulse]) -> None:
        self.pid = pid
        self._timeout_s = timeout_s
        self._pulse = pulse
        self._beats = -1
        self._missed = 0
        # It stays that process's, even if another process gets its number later.
        self._fd = os.pidfd_open(pid)

    @property
    def look_s(self) -> float | None:
        """Time from one look to the next; None for no looks."""
        return self._timeout_s / _LOOKS or None

    def lives(self) -> None:
        """There was a sign of life."""
        self._missed = 0

    def look(self) -> bool:
        """Whether it hangs: there was no sign of life at as many looks as make up the time."""
        pulse = self._pulse()
        if pulse.beats != self._beats or (pulse.is_loading and not self._is_stopped()):
            self._beats = pulse.beats
            self._missed = 0
        else:
            self._missed += 1
        return self._missed >= _LOOKS

    def kill(self) -> None:
        """End the process at once."""
        logger.error(
            "the engine process (pid %d) gave no sign of life for --hang-timeout-s = %g; "
            "it is killed",
            self.pid,
            self._timeout_s,
        )
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def wait_for_end(self, timeout_s: float) -> None:
        """Wait until the process has ended, and its socket is closed for good."""
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        waiting.poll(timeout_s * 1000)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._fd)

    def _is_stopped(self) -> bool:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        # Behind the program's name, in which anything may stand.
        return stat.rpartition(") ")[2][:1] in _STOPPED
