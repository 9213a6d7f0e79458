"""Backends that do what an image's first bytes say: each declared exception can be asked for.

`python -m service --backends` executes this file.
"""

from __future__ import annotations

import threading
from typing import Any

from pipeline.backends.interface import ItemBackend
from pipeline.backends.registry import register
from service.handlers.outcomes import DeadlineExceededError

TIMEOUT_S = 60

_entered = threading.Semaphore(0)
_released = threading.Semaphore(0)


@register("TestAsked")
class Asked(ItemBackend):
    """Hands an image on, once what is asked for by the words in front of it is done.

    "late:" and "fail:" fail the image. "hold:" keeps it here until another one comes with
    "free:"; one with "held:" waits until the first is here.
    """

    def process(self, data: Any) -> Any:
        asked, image = bytes(data[:5]), data[5:]
        if asked == b"late:":
            raise DeadlineExceededError("too late")
        if asked == b"fail:":
            raise RuntimeError("a cause that is no client's business")
        if asked == b"hold:":
            _entered.release()
            assert _released.acquire(timeout=TIMEOUT_S)
        elif asked == b"held:":
            assert _entered.acquire(timeout=TIMEOUT_S)
        elif asked == b"free:":
            _released.release()
        else:
            return data
        return image
