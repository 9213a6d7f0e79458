"""Connections of an event loop that are kept between calls, at most so many at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from service.client.async_connection import AsyncConnection
from service.client.deadline import CallDeadline
from service.client.errors import ClientClosedError, ConnectionFailedError
from service.client.exchange import ConnectionState, Endpoint
from service.client.idle_connections import IdleConnections
from service.client.waiting import is_done_within


class AsyncConnectionPool:
    """Lends a connection to one call at a time, in the event loop of the first call.

    `ConnectionPool` has its arguments, and says which connections are replaced.
    """

    def __init__(self, endpoint: Endpoint, max_connections: int, idle_timeout_s: float) -> None:
        self._endpoint = endpoint
        self._permits = asyncio.Semaphore(max_connections)
        self._idle = IdleConnections[AsyncConnection](idle_timeout_s)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()

    async def call(
        self,
        method: str,
        arguments: Callable[[ConnectionState], dict[str, Any]],
        deadline: CallDeadline,
    ) -> Any:
        """Make a call; `ConnectionPool.call` has the rest."""
        self._check_open()
        await self._wait_for_permit(deadline)
        connection = None
        try:
            self._check_open()
            if (connection := self._idle.take()) is not None:
                try:
                    return await connection.call(method, arguments(connection), deadline)
                except ConnectionFailedError as error:
                    if not error.unanswered:
                        raise
                    connection.close()
            connection = AsyncConnection(self._endpoint)
            await connection.open(deadline)
            return await connection.call(method, arguments(connection), deadline)
        finally:
            if connection is not None:
                self._give_back(connection)
            self._permits.release()

    async def closed_within(self, seconds: float) -> bool:
        """Wait so long, or until the pool is closed; whether it is."""
        return await is_done_within(asyncio.ensure_future(self._closed.wait()), seconds)

    async def close(self) -> None:
        """Close all connections; those of calls under way when these are done."""
        self._closed.set()
        # Sockets of another process, or of a loop that has ended, close with their objects.
        if self._is_at_home() and (idle := self._idle.close_all()):
            await asyncio.wait({connection.gone for connection in idle})

    def _is_at_home(self) -> bool:
        return os.getpid() == self._pid and self._loop in (None, asyncio.get_running_loop())

    def _check_open(self) -> None:
        address = self._endpoint.address
        if self._closed.is_set():
            raise ClientClosedError(f"{address}: this client is closed; make another")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if not self._is_at_home():
            raise ClientClosedError(
                f"{address}: this client belongs to another event loop or process; make one in each"
            )

    async def _wait_for_permit(self, deadline: CallDeadline) -> None:
        if not self._permits.locked():
            await self._permits.acquire()
            return
        acquiring = asyncio.ensure_future(self._permits.acquire())
        try:
            if not await is_done_within(acquiring, deadline.remaining_s):
                raise deadline.exceeded("while it waited for one of max_connections")
        except asyncio.CancelledError:
            # It may have come just now.
            if acquiring.done() and not acquiring.cancelled():
                self._permits.release()
            raise

    def _give_back(self, connection: AsyncConnection) -> None:
        self._idle.put(connection)
        if self._closed.is_set():
            self._idle.close_all()
