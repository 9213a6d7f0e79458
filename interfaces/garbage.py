"""When Python searches for garbage, and in what."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_while_importing() -> Iterator[None]:
    """No search meanwhile, and none in what was imported, later: modules stay.

    Those of torch alone take a fifth longer with it, and each search in them a tenth of a second.
    """
    was_on, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if was_on:
            gc.enable()


def keep_all() -> None:
    """What there is stays for good; searches that pass over it would stall requests."""
    gc.collect()
    gc.freeze()
