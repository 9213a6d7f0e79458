"""When Python searches for garbage, and in what."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_while_importing() -> Iterator[None]:
    """No search meanwhile: the modules of torch alone take a fifth longer with it.

    Nothing is frozen: what was there before may be garbage that holds an image, and that is to go.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def keep_all() -> None:
    """What there is stays for good; searches that pass over it would stall requests."""
    gc.collect()
    gc.freeze()
