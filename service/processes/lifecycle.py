"""The life of a process that accepts connections: start up, serve, drain."""

from __future__ import annotations

import logging
import math
import selectors
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from interfaces.stats import Stats
from service.accepting.listener import Listener
from service.options.server_settings import ServerSettings
from service.processes.process import LEAVING_S
from service.processes.service_manager import READY, STOPPING, tell_service_manager
from service.processes.subreaper import wait_for_children
from service.processes.trouble_summary import TroubleSummary
from service.processes.wakeup_pipe import WakeupPipe

_log = logging.getLogger(__name__)

STARTING = "the server starts: it loads and warms up its model"
"""Why it is not ready before it is."""
# A serving thread that does not turn for so long hangs.
_TURN_S = 5.0

_Self = TypeVar("_Self", bound="Lifecycle")


class Lifecycle(ABC):
    """The common part of a server in one process and of a supervisor with workers.

    A context manager. `run` calls `startup`, `serve`, `drain` and `shutdown` in this order, in one
    thread; `stop` may be called from anywhere.

    Args:
        settings: the process's own.
        listener: the source of its connections.

    Attributes:
        ready: whether it is past its start, so that a stop has to drain it.
    """

    def __init__(self, settings: ServerSettings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._stop_reason = ""
        # All that the serving thread waits for makes one of the selector's sockets readable.
        self._selector = selectors.DefaultSelector()
        self._wakeup = WakeupPipe()
        self._selector.register(self._wakeup.receiver, selectors.EVENT_READ)
        self.ready = False
        self._troubles = TroubleSummary()
        # What other threads want done in the serving one.
        self._errands: deque[Callable[[], None]] = deque()

    @property
    def stop_limit_s(self) -> float:
        """Longest time from `stop` to the end of `run`."""
        return self._settings.drain_delay_s + self._settings.drain_timeout_s + LEAVING_S

    def wake(self) -> None:
        """Let the serving thread look what has happened; any thread may call this."""
        self._wakeup.set()

    def soon(self, errand: Callable[[], None]) -> None:
        """Have the serving thread do something short; any thread may call this."""
        self._errands.append(errand)
        self._wakeup.set()

    def lives(self) -> bool:
        """Whether the serving thread does what it is asked, or still starts up; for any other."""
        if not self.ready:
            return True
        has_turned = threading.Event()
        self.soon(has_turned.set)
        return has_turned.wait(_TURN_S) or not self.ready

    @abstractmethod
    def stats(self) -> Stats:
        """What the whole server does and has done; for other threads than the serving one.

        Raises:
            TimeoutError: the serving thread does not come to it.
        """

    @abstractmethod
    def info(self) -> Any:
        """The IDL's ServerInfo, None while there is none; otherwise as `stats`."""

    @abstractmethod
    def why_not_ready(self) -> str:
        """Why the server as a whole can take no requests, "" where it can; as `stats`."""

    def stop(self, reason: str = "stop was called") -> None:
        """Let `serve` return. Safe in any thread and in a signal handler."""
        self._stop_reason = reason
        self._wakeup.set()

    def abandon(self) -> None:
        """Kill all child processes, since this process ends now; any thread may call this."""
        wait_for_children(0.0)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._selector.close()
        self._wakeup.close()

    def run(self) -> int:
        """Start up, serve until stopped, drain.

        Returns:
            How many requests were cut off unfinished; 0 after an orderly stop.

        Raises:
            ConfigurationError, WorkerError: a setting cannot work.
            OSError: the address cannot be had.
        """
        try:
            self.startup()
            if self.ready:
                tell_service_manager(READY)
            self.serve()
            tell_service_manager(STOPPING)
            cut_off = self.drain()
            self._sum_up()
            return cut_off
        finally:
            self.shutdown()

    @abstractmethod
    def startup(self) -> None:
        """Take the port, load what serves, then accept clients."""

    def serve(self) -> None:
        """Serve until `stop` is called, and for `drain_delay_s` after that."""
        while not self._stop_reason:
            self._turn()
        delay_s = self._settings.drain_delay_s
        if not delay_s:
            return
        self._announce_stop()
        _log.info(
            "stopping (%s): not ready, and serving on for --drain-delay-s = %s",
            self._stop_reason,
            delay_s,
        )
        end_s = time.monotonic() + delay_s
        while time.monotonic() < end_s:
            self._turn(end_s)

    @abstractmethod
    def drain(self) -> int:
        """Finish the requests in flight, for `drain_timeout_s` at most.

        Returns:
            How many requests were cut off unfinished.
        """

    def shutdown(self) -> None:
        """Free the port."""
        self.ready = False
        self._listener.close()

    def _turn(self, end_s: float = math.inf) -> None:
        """Wait for something to happen, until `end_s` at most, and handle it."""
        wait_s = min(end_s, self._next_due_s(), self._troubles.due_s) - time.monotonic()
        if (pause_s := self._listener.pause_s()) is not None:
            wait_s = min(wait_s, pause_s)
        for key, _ in self._selector.select(None if wait_s == math.inf else max(0.0, wait_s)):
            if key.fileobj is self._wakeup.receiver:
                self._wakeup.clear()
                while self._errands:
                    self._errands.popleft()()
                self._on_wakeup()
            else:
                self._on_readable(key.data)
        self._listener.end_pause()
        if self._troubles.is_due():
            self._sum_up()

    @abstractmethod
    def _sum_up(self) -> None:
        """Log what calls did not get, if this process speaks for the server."""

    @abstractmethod
    def _announce_stop(self) -> None:
        """Say through `health` that the server will stop."""

    @abstractmethod
    def _next_due_s(self) -> float:
        """When something is due without any event, on the monotonic clock; infinite for never."""

    @abstractmethod
    def _on_wakeup(self) -> None:
        """`wake` was called."""

    @abstractmethod
    def _on_readable(self, data: Any) -> None:
        """Something that was registered with the selector, with `data`, can be read."""
