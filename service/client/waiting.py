"""Waiting in an event loop; what is no longer waited for is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any


async def is_done_within(future: asyncio.Future[Any], seconds: float | None) -> bool:
    """Wait so long, or without a limit, for a future or task; whether it is done.

    It is cancelled where it is not, and where the waiting itself is.
    """
    future.add_done_callback(look_at)
    try:
        await asyncio.wait({future}, timeout=seconds)
        return future.done()
    finally:
        future.cancel()


def look_at(future: asyncio.Future[Any]) -> None:
    """Take a future's error, which asyncio would log where its waiter was cancelled meanwhile."""
    if not future.cancelled():
        future.exception()
