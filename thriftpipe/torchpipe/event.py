"""`Event`: makes a call asynchronous, and says when its item is done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from interfaces.error_text import in_one_line

logger = logging.getLogger(__name__)


class Event:
    """Under `event` of an item it lets the call return at once.

    When the item is filled, the callbacks run, in a thread of their own, so that they may call any
    pipe; then the threads that wait go on.

    Args:
        num: for how many items the event may be used.
    """

    def __init__(self, num: int = 1) -> None:
        if not isinstance(num, int) or isinstance(num, bool) or num < 1:
            raise ValueError(f"Event(num={num!r}): expected a whole number of at least 1")
        self._made_s = time.monotonic()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._not_begun = self._not_done = num
        self._exception: Exception | None = None
        self._callbacks: list[Callable[[], object]] = []
        self._exception_callbacks: list[Callable[[Exception], object]] = []
        self._final: Callable[[], object] | None = None
        self._callback_thread: threading.Thread | None = None

    def wait(self, timeout_ms: float | None = None) -> bool:
        """Wait until all its items are done.

        Args:
            timeout_ms: for how long, in milliseconds; None for ever.

        Returns:
            Whether they are.

        Raises:
            Exception: what the first failed item's call would have raised.
        """
        # A callback's own thread would wait for itself.
        if threading.current_thread() is not self._callback_thread:
            self._done.wait(None if timeout_ms is None else timeout_ms / 1000)
        self.try_throw()
        return self._not_done == 0

    # Both lines of torchpipe have it, the older one with a capital letter.
    Wait = wait

    def valid(self) -> bool:
        """Whether not all its items are done."""
        return self._not_done > 0

    def time_passed(self) -> float:
        """Milliseconds since it was made."""
        return (time.monotonic() - self._made_s) * 1000

    def get_exception(self) -> Exception | None:
        """What the first failed item's call would have raised, if one has failed."""
        return self._exception

    def try_throw(self) -> None:
        """Raise that exception, if there is one."""
        if self._exception is not None:
            raise self._exception

    def set_callback(self, callback: Callable[[], object]) -> None:
        """Have it called when all items are done; the last one that was set comes first."""
        with self._lock:
            if self._not_done:
                self._callbacks.append(callback)
                return
        callback()

    append_callback = set_callback

    def set_exception_callback(self, callback: Callable[[Exception], object]) -> None:
        """Have it called before the others with the exception, if there is one."""
        with self._lock:
            if self._not_done:
                self._exception_callbacks.append(callback)
                return
        if self._exception is not None:
            callback(self._exception)

    def set_final_callback(self, callback: Callable[[], object]) -> None:
        """Have it called after the others; there is only one.

        Raises:
            RuntimeError: there is one already.
        """
        with self._lock:
            if self._final is not None:
                raise RuntimeError("the event has a final callback already: use set_callback")
            self._final = callback
            if self._not_done:
                return
        callback()

    def begin(self) -> None:
        """Use it for one more item; ValueError if it was used for all that it may be."""
        with self._lock:
            if not self._not_begun:
                raise ValueError(
                    "the event was used before: make a new Event() for each item, or "
                    "Event(num=...) for several"
                )
            self._not_begun -= 1

    def give_back(self) -> None:
        """Cancel one `begin`: that item's call was refused."""
        with self._lock:
            self._not_begun += 1

    def item_done(self, exception: Exception | None) -> None:
        """One of its items is filled; `exception` is what its call would have raised."""
        with self._lock:
            if self._exception is None:
                self._exception = exception
            self._not_done -= 1
            if self._not_done:
                return
            callbacks = self._to_call()
        if not callbacks:
            self._done.set()
            return
        self._callback_thread = threading.Thread(
            target=self._call, args=(callbacks,), name="thriftpipe-event", daemon=True
        )
        self._callback_thread.start()

    def _to_call(self) -> list[Callable[[], object]]:
        callbacks = [*reversed(self._callbacks)]
        error = self._exception
        if error is not None:
            with_it = reversed(self._exception_callbacks)
            callbacks = [*((lambda one=one: one(error)) for one in with_it), *callbacks]
        return callbacks if self._final is None else [*callbacks, self._final]

    def _call(self, callbacks: list[Callable[[], object]]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # noqa: BLE001 (whatever a user's function raises)
                logger.warning("a callback of an event raised %s", in_one_line(error))
        self._done.set()
