"""How many lines of Python a piece of work executes, beside what it executed before.

The number is the same on every machine, busy or not, so that a change which makes a request or an
item dearer is seen where times would say nothing. It tells nothing of what happens within one call
of a library.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import tomli

COUNTS = Path(__file__).with_name("line_counts.toml")
_MORE, _LESS = 1.05, 0.9
_WARM_UP, _TIMES = 20, 100


class LineCounter:
    """Counts the lines of the threads that are started while it is at work, and of its own.

    Args:
        thread_names: what the names of those threads begin with.
    """

    def __init__(self, *thread_names: str) -> None:
        self._names = thread_names
        # A list for each thread, which no other one changes.
        self._counts: dict[int, list[int]] = {}

    def total(self) -> int:
        """All lines until now."""
        return sum(count[0] for count in list(self._counts.values()))

    def trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """For `threading.settrace`: called with the first function of each thread."""
        del frame, event, argument
        thread = threading.current_thread()
        if not thread.name.startswith(self._names):
            sys.settrace(None)
            return None
        count = self._counts.setdefault(thread.ident or 0, [0])

        def on_line(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            del frame, argument
            if event == "line":
                count[0] += 1
            return on_line

        def on_call(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            del frame, event, argument
            return on_line

        sys.settrace(on_call)
        return on_line


@contextmanager
def counting(*thread_names: str) -> Iterator[LineCounter]:
    """Count from here on, in threads that are started within."""
    counter = LineCounter(*thread_names)
    threading.settrace(counter.trace)
    try:
        yield counter
    finally:
        threading.settrace(None)  # type: ignore[arg-type]


def lines_each(counter: LineCounter, work: Callable[[], object]) -> float:
    """Lines that one piece of work takes, after some that may take more."""
    for _ in range(_WARM_UP):
        work()
    before = counter.total()
    for _ in range(_TIMES):
        work()
    return (counter.total() - before) / _TIMES


def check(name: str, lines: float) -> None:
    """Compare with the number of tests/line_counts.toml."""
    known = tomli.loads(COUNTS.read_text())[name]
    assert known * _LESS <= lines <= known * _MORE, (
        f"{name}: {lines:.0f} lines, and {known} before. Make it cheaper, or write the new number "
        f"into tests/{COUNTS.name}, and what it is worth into the commit's message"
    )
