"""SIGINT and SIGTERM where they may come at any time, and must not hide what has been done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Raises KeyboardInterrupt for a signal, but only where that is expected.

    One that comes elsewhere is raised where the next such part begins.
    """

    def __init__(self) -> None:
        self._came = self._raised = 0
        self._is_expected = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take both signals meanwhile; in the main thread."""
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def expected(self) -> Iterator[None]:
        """A part that the next signal ends, by KeyboardInterrupt; parts are not nested."""
        if self._came > self._raised:
            self._raise()
        self._is_expected = True
        try:
            yield
        finally:
            self._is_expected = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._came += 1
        if self._is_expected:
            self._raise()

    def _raise(self) -> None:
        self._is_expected = False
        self._raised += 1
        raise KeyboardInterrupt
