"""What the calling thread has to do around its work, told to code that does not know why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


class _ThisThread(threading.local):
    """Of the calling thread.

    Attributes:
        waits: entered while it waits for what other threads do.
        works_for: for whom it works just now, or None.
    """

    waits: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)
    works_for: object = None


THIS_THREAD = _ThisThread()
